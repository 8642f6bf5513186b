"""A pretrained LLaMA on this machine: its preset's outcome, and bfloat16 against float32."""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench.pretrained import what_is_missing
from bench.report import BenchReport, Options
from raysplit.link.state import LinkState
from raysplit.measure.config import BackendConfig
from raysplit.measure.ledger import Ledger
from raysplit.measure.prepare import prepare_job
from raysplit.measure.rows import Row
from raysplit.measure.service import MeasuringService
from raysplit.measure.setting import Setting
from raysplit.model.precision import resolve_dtype
from raysplit.pipeline.experiment import Experiment, load_experiment
from raysplit.pipeline.oracles import read_evaluation
from raysplit.pipeline.run import run_stages
from raysplit.pipeline.run_folder import RunFolder

RUN = Path("runs/bench-smollm2")
"""The preset's run folder; one that is finished is only read."""
_SETTINGS = [Setting(p, LinkState(noise_std=1.0)) for p in (3, 10, 20)]
_NAMES = ("smollm2_share_measured", "bf16_speedup", "bf16_log_ppl_error")


def add(report: BenchReport, options: Options) -> None:
    """Measure with smollm2-135m, where it and the text are at hand."""
    reason = what_is_missing(options)
    for name in _NAMES if reason else ():
        report.skip(name, reason)
    if not reason:
        changes = [f"corpus.path={options.wikitext2}"]
        if options.quick:
            changes += ["corpus.max_sentences=64", "plan.settings=8", "problem.max_split_point=3"]
        experiment = load_experiment("smollm2", changes)
        _share(report, experiment, RUN.with_name("quick-smollm2") if options.quick else RUN)
        _bfloat16(report, experiment)


def _share(report: BenchReport, experiment: Experiment, folder: Path) -> None:
    run_stages(experiment, folder, ("measure", "fit", "train", "evaluate"))
    evaluation = read_evaluation(RunFolder.read(folder))
    tuned = evaluation["agents"]["ppo-tuned"]["measured"]
    low, high = tuned["share_of_gap_ci95"]
    report.add(
        {
            "smollm2_share_measured": tuned["share_of_gap"],
            "smollm2_share_measured_low": low,
            "smollm2_share_measured_high": high,
            "smollm2_best_fixed_share": evaluation["problem"]["best_fixed_share_of_gap"],
        }
    )


def _bfloat16(report: BenchReport, experiment: Experiment) -> None:
    """Time the same settings in both formats, where the CPU multiplies bfloat16 faster."""
    if resolve_dtype("auto", "cpu") != "bfloat16":
        for name in ("bf16_speedup", "bf16_log_ppl_error"):
            report.skip(name, "this CPU multiplies bfloat16 no faster than float32")
        return
    rows = {dtype: _measured(experiment, dtype) for dtype in ("float32", "bfloat16")}
    seconds = {dtype: sum(row.seconds for row in found) for dtype, found in rows.items()}
    both = zip(rows["float32"], rows["bfloat16"], strict=True)
    report.add(
        {
            "bf16_speedup": seconds["float32"] / seconds["bfloat16"],
            "bf16_log_ppl_error": max(abs(one.log_ppl - other.log_ppl) for one, other in both),
        }
    )


def _measured(experiment: Experiment, dtype: str) -> list[Row]:
    """Measure the settings on the whole of 200 sentences: no sample differs between formats."""
    job, card = prepare_job(
        model=experiment.model.model_copy(update={"dtype": dtype}),
        corpus=experiment.corpus.model_copy(update={"max_sentences": 200}),
        protocol=experiment.protocol,
        link=experiment.link,
        measuring=experiment.measuring.model_copy(update={"target_stderr": 0.0}),
        split_points=(3, 20),
        device="cpu",
    )
    with (
        tempfile.TemporaryDirectory(prefix="raysplit-bench-") as folder,
        Ledger(Path(folder) / "ledger.sqlite") as ledger,
        MeasuringService(job, card, ledger, BackendConfig(kind="inprocess")) as service,
    ):
        rows = service.measure(_SETTINGS)
    return [rows[setting] for setting in _SETTINGS]
