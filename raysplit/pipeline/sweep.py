"""Hyper-parameter sweeps: from a run folder with a fitted surrogate to curves, Fig. 8 and the best.

In the run folder's `sweep/`: trials/ (one folder a training; what is in them is never trained
again), plan.json (the trainings as planned last), curves.parquet (every learning curve), best.json
(the settings in order of merit) and figures/ (Fig. 8).
"""

# pandas leaves the types of its writers open:
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

from rich.table import Table

from envs.family import training_problem
from envs.oracle import Oracle, planning_problem
from raysplit.base.errors import UserError, suggest
from raysplit.base.files import replacing, sha256_of, sha256_of_file, write_atomically
from raysplit.base.progress import console, progress_bar
from raysplit.figures import hyperparameter_panels, save
from raysplit.pipeline.experiment import Experiment
from raysplit.pipeline.oracles import solved_grid
from raysplit.pipeline.over_radio import surrogate_source
from raysplit.pipeline.problem import measured_problem
from raysplit.pipeline.run import folder_path
from raysplit.pipeline.run_folder import RunFolder
from raysplit.pipeline.stages.train import say_if_ray_starts
from raysplit.pipeline.sweep_state import compare_with_plan, report_damage
from raysplit.pipeline.tracked import tracker_of, training_config
from raysplit.pipeline.views.sweep_panels import sweep_panels
from tuning.settings import TrainConfig
from tuning.sweep.plan import Base, check_space
from tuning.sweep.records import TrialFolder, TrialRecord, trial_folders
from tuning.sweep.results import CombinationResult, best_first, curves_table, sweep_results
from tuning.sweep.run import run_sweep, trials_left
from tuning.sweep.search import check_optuna
from tuning.sweep.settings import SweepConfig
from tuning.sweep.trial import SweepJob


def sweep(experiment: Experiment, out: Path | None) -> None:
    """Run an experiment's sweep, or go on with it, and write what it found (`run.check_sweep`).

    Raises:
        UserError: The sweep does not fit problem or machine.
    """
    with RunFolder.open(folder_path(experiment, out), experiment) as folder:
        _run(folder, resumed=False)


def resume(run: Path) -> None:
    """Go on with the sweep of a run folder (`run.check_resume`).

    Raises:
        UserError: It is not the one that was begun.
    """
    with RunFolder.open(run, RunFolder.read(run).experiment) as folder:
        _run(folder, resumed=True)


def _run(folder: RunFolder, *, resumed: bool) -> None:
    config = folder.experiment.sweep
    job = _job(folder, config)
    check_space(job.base, config)
    if config.method == "optuna":
        check_optuna()
    (job.folder / "trials").mkdir(parents=True, exist_ok=True)
    compare_with_plan(job, config, resumed=resumed)
    report_damage(job.folder)
    _train(folder, job, config)
    results = sweep_results(job, config)
    _write_results(folder, job, config, results)


def _job(folder: RunFolder, config: SweepConfig) -> SweepJob:
    params, _ = measured_problem(folder)
    weights = folder.path / "surrogate" / "surrogate.safetensors"
    source, source_id = surrogate_source(folder), sha256_of_file(weights)
    losses = folder.experiment.losses()
    if losses:  # another radio loses other packets at the same SNR
        source_id = sha256_of([source_id, [loss.loss_X.tolist() for loss in losses.values()]])
    base = Base(training_problem(params), source_id, _agent(folder.experiment, config))
    home = (folder.path / "sweep").resolve()
    identity = config.model_dump(
        mode="json", exclude={"max_concurrent", "cpus_per_trial", "samples"}
    )
    # As text: draws follow the order of the hyper-parameters' names.
    search = sha256_of({"sweep": json.dumps(identity), "base": base.key({}, 0)})[:16]
    # What is chosen here must not have seen the later part of a trace, which judges the choice.
    seen = planning_problem(params.for_training())
    judge = Oracle(seen, source, grid_points=solved_grid(seen, losses))
    return SweepJob(base, source, judge, home, search)


def _agent(experiment: Experiment, config: SweepConfig) -> TrainConfig:
    name = _agent_name(experiment, config)
    if name not in experiment.agents:
        raise UserError(
            f"sweep.agent is '{name}', but the experiment's agents are "
            f"{', '.join(experiment.agents)}{suggest(name, experiment.agents)}"
        )
    agent = experiment.agents[name]
    if agent.rewards != "surrogate":
        raise UserError(
            f"agent '{name}' learns on {agent.rewards} rewards, but a sweep learns on the "
            f"surrogate: choose another sweep.agent, or set agents.{name}.rewards to surrogate"
        )
    return agent


def _agent_name(experiment: Experiment, config: SweepConfig) -> str:
    return config.agent or next(iter(experiment.agents))


def _train(folder: RunFolder, job: SweepJob, config: SweepConfig) -> None:
    left, new = trials_left(job, config)
    if left or new:
        say_if_ray_starts(folder, _agent_name(folder.experiment, config))
    per_trial = len(config.seeds) if config.method == "optuna" else 1
    _track_unlogged(folder, job)
    with progress_bar("sweep", (len(left) + new) * per_trial) as advance:

        def on_trial(record: TrialRecord) -> None:
            share = record.share_of_gap
            shown = record.status if share is None else f"share of the gap {share:.1%}"
            advance(1, shown)
            _track(folder, job, record)

        run_sweep(job, config, folder.experiment.backend, on_trial)


def _track_unlogged(folder: RunFolder, job: SweepJob) -> None:
    """Track what was put on record just before the driver was killed."""
    for trial in trial_folders(job.folder):
        record = trial.record()
        if record is not None and record.trial.search == job.search:
            _track(folder, job, record)


def _track(folder: RunFolder, job: SweepJob, record: TrialRecord) -> None:
    trial = record.trial
    marker = TrialFolder(job.folder, trial.key).path / "tracked"
    if marker.exists():
        return
    training = {
        **training_config(job.base.config(trial.overrides), trial.seed),
        "overrides": dict(trial.overrides),  # the setting's own; the agent's stay in its section
        "status": record.status,
    }
    with tracker_of(folder, f"sweep-{trial.key}", training=training) as tracker:
        progress = record.progress
        for (step, mean), (_, judged) in zip(progress.curve, progress.judged, strict=True):
            metrics = {"episode_return": mean, "judged_return": judged}  # as stage train logs them
            tracker.log_metrics({k: v for k, v in metrics.items() if v is not None}, step)
        if record.share_of_gap is not None:
            tracker.log_metrics({"share_of_gap": record.share_of_gap}, progress.steps)
    marker.touch()


def _write_results(
    folder: RunFolder, job: SweepJob, config: SweepConfig, results: list[CombinationResult]
) -> None:
    started = time.time()
    curves = curves_table(results)
    with replacing(job.folder / "curves.parquet") as new:
        curves.to_parquet(new, index=False)
    order = best_first(results)
    path = job.folder / "best.json"
    write_atomically(path, json.dumps(_best(config, order), indent=2) + "\n")
    fig8 = hyperparameter_panels(sweep_panels(config, curves))
    figures = save(fig8, job.folder / "figures", "fig8")
    outputs = [
        folder.path / file.relative_to(folder.path.resolve())
        for file in (job.folder / "curves.parquet", path, *figures.values())
    ]
    folder.declare_done("sweep", job.search, outputs, started)
    _track_results(folder, job, order, figures["png"])
    _print(config, order)
    console.print(f"sweep: {folder.path / 'sweep'}")


def _track_results(
    folder: RunFolder, job: SweepJob, order: list[CombinationResult], fig8: Path
) -> None:
    columns = ("setting", "share of the gap", "low", "high")
    rows = [
        (result.label, share.value, share.low, share.high)
        for result in order
        if (share := result.share_of_gap)
    ]
    with tracker_of(folder, "sweep") as tracker:
        tracker.log_table("best settings", columns, rows)
        tracker.log_figure("fig8", fig8)
        tracker.log_artifact(job.folder / "curves.parquet", name="sweep curves", kind="sweep")
        tracker.log_artifact(job.folder / "best.json", name="sweep best settings", kind="sweep")


def _best(config: SweepConfig, order: list[CombinationResult]) -> dict[str, Any]:
    rows = [_row(result) for result in order]
    panels = {row["panel"]: row for row in reversed(rows)}
    return {
        "best": rows[0] if rows else None,
        "best_by_panel": {name: panels[name] for name in _panel_names(config) if name in panels},
        "settings": rows,
        "interval": "interquartile mean over seeds, 95 % bootstrap",
        "seeds": list(config.seeds),
    }


def _row(result: CombinationResult) -> dict[str, Any]:
    setting = result.combination
    assert result.share_of_gap  # only finished settings are ranked
    assert result.episode_return
    return {
        "panel": setting.panel,
        "parameter": setting.parameter,
        "value": setting.value,
        "overrides": dict(setting.overrides),
        "share_of_gap": dataclasses.asdict(result.share_of_gap),
        "episode_return": dataclasses.asdict(result.episode_return),
        "by_seed": {str(seed): r.share_of_gap for seed, r in sorted(result.records.items())},
    }


def _panel_names(config: SweepConfig) -> list[str]:
    return list(config.space) if config.method == "panels" else [config.method]


_SHOWN_SETTINGS = 25  # of a search; panels show the best of each


def _print(config: SweepConfig, order: list[CombinationResult]) -> None:
    if not order:
        console.print(
            f"no setting has finished all of its {len(config.seeds)} seeds, so none is ranked: "
            "give sweep.asha more grace_steps or a smaller reduction_factor, or leave it out"
        )
        return
    table = Table(title="best settings (share of the gap random - optimum on the surrogate)")
    for column in ("setting", "share of the gap", "95 % interval", "seeds"):
        table.add_column(column)
    seen: set[str] = set()
    one_each = config.method == "panels"
    for result in order:
        panel, share = result.combination.panel, result.share_of_gap
        left_out = panel in seen if one_each else table.row_count == _SHOWN_SETTINGS
        if share is None or left_out:
            continue
        seen.add(panel)
        interval = f"{share.low:.1%} to {share.high:.1%}"
        table.add_row(result.label, f"{share.value:.1%}", interval, str(len(result.records)))
    console.print(table)
