"""The stages of a run, in order; each is skipped where the manifest says it is done."""

from __future__ import annotations

import importlib
import time
from collections.abc import Sequence
from pathlib import Path

from raysplit.errors import UserError
from raysplit.experiment import Experiment
from raysplit.preflight import refuse_early
from raysplit.progress import console
from raysplit.run_folder import RunFolder
from raysplit.stages.inputs import inputs_sha256

STAGES = ("measure", "fit", "train", "evaluate", "report")


def run_stages(experiment: Experiment, out: Path | None, stages: Sequence[str]) -> None:
    """Run stages that are not done yet; each module of this package holds one.

    Raises:
        UserError: If a stage's predecessor is not done, or the input is wrong.
    """
    refuse_early(experiment)
    path = out or Path("runs") / experiment.name
    if stages[0] != STAGES[0] and not path.exists():
        raise _not_done(STAGES[0], path)  # and no empty run folder is left behind
    with RunFolder.open(path, experiment) as folder:
        for stage in stages:
            _run_stage(folder, stage)
        if stages[-1] == "report":
            console.print(f"report: {folder.path / 'report.html'}")


def _run_stage(folder: RunFolder, stage: str) -> None:
    before = STAGES[: STAGES.index(stage)]
    _require(folder, before)
    inputs = inputs_sha256(folder, stage, before)
    if folder.is_done(stage, inputs):
        console.print(f"[dim]{stage:<10} done before[/dim]")
        return
    started = time.time()
    # A stage loads torch, Ray or matplotlib: only the one that runs pays for it.
    outputs = importlib.import_module(f"raysplit.stages.{stage}").run(folder)
    folder.declare_done(stage, inputs, outputs, started)
    console.print(f"[green]{stage:<10} done[/green] in {time.time() - started:.1f} s")


def _require(folder: RunFolder, before: Sequence[str]) -> None:
    for i, stage in enumerate(before):
        if not folder.is_done(stage, inputs_sha256(folder, stage, before[:i])):
            raise _not_done(stage, folder.path)


def _not_done(stage: str, path: Path) -> UserError:
    return UserError(
        f"stage '{stage}' is not done in {path}: run `raysplit {stage}` first, or `raysplit run` "
        "for all stages"
    )
