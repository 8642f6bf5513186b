"""A run: the five stages in order, each skipped where the manifest says that it is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from raysplit.base.errors import UserError, command
from raysplit.base.progress import console, say
from raysplit.pipeline.experiment import Experiment
from raysplit.pipeline.input_hashes import inputs_sha256
from raysplit.pipeline.preflight import refuse_early, say_if_too_few
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


def _say_if_not_usable(folder: RunFolder) -> None:
    from raysplit.pipeline.verdict import say_if_not_usable

    say_if_not_usable(folder)


STAGES = (
    Stage("measure", _measure),
    Stage("fit", _fit),
    Stage("train", _train),
    Stage("evaluate", _evaluate),
    Stage("report", _report),
)
STAGE_NAMES = tuple(stage.name for stage in STAGES)
BEFORE_A_SWEEP = ("measure", "fit")  # it learns on the surrogate


def run_stages(
    experiment: Experiment,
    out: Path | None,
    names: Sequence[str],
    given: Sequence[str] = ("EXPERIMENT",),
) -> None:
    """Run the named stages that are not done yet.

    Args:
        experiment: What to run.
        out: The run folder; None takes `runs/NAME`.
        names: The stages.
        given: The command line's words for experiment and folder, for remedies.

    Raises:
        UserError: If a stage's predecessor is not done, or the input is wrong.
    """
    refuse_early(experiment)
    say_if_too_few(experiment, to_fit="fit" in names)
    path = folder_path(experiment, out)
    refuse_unbegun(path, STAGE_NAMES[: STAGE_NAMES.index(names[0])], given)
    with RunFolder.open(path, experiment) as folder:
        # Before the first of them runs, not after an hour of it.
        require(folder, STAGE_NAMES[: STAGE_NAMES.index(names[0])], given)
        for stage in STAGES:
            if stage.name in names:
                _run_stage(folder, stage)
        if names[-1] == "report":
            console.print(f"report: {folder.path / 'report.html'}")
        if STAGE_NAMES.index(names[-1]) >= STAGE_NAMES.index("evaluate"):
            _say_if_not_usable(folder)


def _run_stage(folder: RunFolder, stage: Stage) -> None:
    before = STAGE_NAMES[: STAGE_NAMES.index(stage.name)]
    inputs = inputs_sha256(folder, stage.name, before)
    if folder.is_done(stage.name, inputs):
        say(f"{stage.name:<10} done before", "dim", "")
        return
    started = time.time()
    outputs = stage.run(folder)
    folder.declare_done(stage.name, inputs, outputs, started)
    say(f"{stage.name:<10} done", "green", f" in {time.time() - started:.1f} s")


def folder_path(experiment: Experiment, out: Path | None) -> Path:
    """Return where a run lives."""
    return out or Path("runs") / experiment.name


def refuse_unbegun(path: Path, before: Sequence[str], given: Sequence[str]) -> None:
    """Refuse a folder in which nothing was begun, so that no empty one is left behind.

    Raises:
        UserError: There is none, and stages `before` are needed.
    """
    if before and not RunFolder.is_one(path):
        raise _not_done(before[0], path, given)


def check_sweep(experiment: Experiment, out: Path | None, given: Sequence[str]) -> None:
    """Refuse a sweep without a fitted surrogate; nothing heavy is loaded for that.

    Raises:
        UserError: There is none in the run folder.
    """
    path = folder_path(experiment, out)
    refuse_unbegun(path, BEFORE_A_SWEEP, given)
    with RunFolder.open(path, experiment) as folder:
        require(folder, BEFORE_A_SWEEP, given)


def check_resume(run: Path) -> None:
    """Refuse to go on with a sweep that was not begun.

    Raises:
        UserError: The folder holds none, or its surrogate is gone.
    """
    experiment = RunFolder.read(run).experiment
    given = [str(run / "experiment.yaml"), "--out", str(run)]
    if not (run / "sweep" / "trials").is_dir():
        raise UserError(f"{run} holds no sweep to resume; start one: {command('sweep', *given)}")
    check_sweep(experiment, run, given)


def require(folder: RunFolder, before: Sequence[str], given: Sequence[str]) -> None:
    """Refuse to go on without stages that must be done before.

    Raises:
        UserError: One is not, or was done from other inputs.
    """
    for i, name in enumerate(before):
        if not folder.is_done(name, inputs_sha256(folder, name, before[:i])):
            raise _not_done(name, folder.path, given)


def _not_done(name: str, path: Path, given: Sequence[str]) -> UserError:
    return UserError(
        f"stage '{name}' is not done in {path}: run {command(name, *given)} first, or "
        f"{command('run', *given)} for all stages"
    )
