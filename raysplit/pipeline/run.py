"""A run: the five stages in order, each skipped where the manifest says that it is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from raysplit.base.errors import UserError
from raysplit.base.progress import console, say
from raysplit.pipeline.experiment import Experiment
from raysplit.pipeline.input_hashes import inputs_sha256
from raysplit.pipeline.preflight import refuse_early
from raysplit.pipeline.run_folder import RunFolder


@dataclass(frozen=True, slots=True)
class Stage:
    """A step of a run.

    Attributes:
        name: Its name, also that of its command and of its entry in the manifest.
        run: Does the work in a run folder and returns the files that it made.
    """

    name: str
    run: Callable[[RunFolder], list[Path]]


# A stage loads torch, Ray or matplotlib: each is imported only when it runs.


def _measure(folder: RunFolder) -> list[Path]:
    from raysplit.pipeline.stages import measure

    return measure.run(folder)


def _fit(folder: RunFolder) -> list[Path]:
    from raysplit.pipeline.stages import fit

    return fit.run(folder)


def _train(folder: RunFolder) -> list[Path]:
    from raysplit.pipeline.stages import train

    return train.run(folder)


def _evaluate(folder: RunFolder) -> list[Path]:
    from raysplit.pipeline.stages import evaluate

    return evaluate.run(folder)


def _report(folder: RunFolder) -> list[Path]:
    from raysplit.pipeline.stages import report

    return report.run(folder)


STAGES = (
    Stage("measure", _measure),
    Stage("fit", _fit),
    Stage("train", _train),
    Stage("evaluate", _evaluate),
    Stage("report", _report),
)
STAGE_NAMES = tuple(stage.name for stage in STAGES)


def run_stages(experiment: Experiment, out: Path | None, names: Sequence[str]) -> None:
    """Run the named stages that are not done yet.

    Raises:
        UserError: If a stage's predecessor is not done, or the input is wrong.
    """
    refuse_early(experiment)
    path = out or Path("runs") / experiment.name
    if names[0] != STAGE_NAMES[0] and not path.exists():
        raise _not_done(STAGE_NAMES[0], path)  # and no empty run folder is left behind
    with RunFolder.open(path, experiment) as folder:
        for stage in STAGES:
            if stage.name in names:
                _run_stage(folder, stage)
        if names[-1] == "report":
            console.print(f"report: {folder.path / 'report.html'}")


def _run_stage(folder: RunFolder, stage: Stage) -> None:
    before = STAGE_NAMES[: STAGE_NAMES.index(stage.name)]
    _require(folder, before)
    inputs = inputs_sha256(folder, stage.name, before)
    if folder.is_done(stage.name, inputs):
        say(f"{stage.name:<10} done before", "dim", "")
        return
    started = time.time()
    outputs = stage.run(folder)
    folder.declare_done(stage.name, inputs, outputs, started)
    say(f"{stage.name:<10} done", "green", f" in {time.time() - started:.1f} s")


def _require(folder: RunFolder, before: Sequence[str]) -> None:
    for i, name in enumerate(before):
        if not folder.is_done(name, inputs_sha256(folder, name, before[:i])):
            raise _not_done(name, folder.path)


def _not_done(name: str, path: Path) -> UserError:
    return UserError(
        f"stage '{name}' is not done in {path}: run `raysplit {name}` first, or `raysplit run` "
        "for all stages"
    )
