"""A sweep that is taken up again: the plan compared, damaged files named, nothing begun in silence.

The records in sweep/trials are the truth. Each file there knows its own hash; where one is damaged,
the older thing beside it is used: the finished agent, then a checkpoint, then the one before it.
"""

from __future__ import annotations

from pathlib import Path

from raysplit.base.config import Config
from raysplit.base.errors import UserError, command
from raysplit.base.files import read_with_copy, write_with_copy
from raysplit.base.progress import console, say
from tuning.sweep.records import trial_folders
from tuning.sweep.run import begun_trials, planned_trials, trials_left
from tuning.sweep.settings import SweepConfig
from tuning.sweep.trial import SweepJob, drop_damaged_parts


class _Plan(Config):
    """What was planned when the sweep was begun: the search, and a key for each training."""

    search: str
    trainings: tuple[str, ...]


def compare_with_plan(job: SweepJob, config: SweepConfig, *, resumed: bool) -> None:
    """Say how much is done.

    Raises:
        UserError: Another sweep than the one that was begun would be resumed, or the plan is lost.
    """
    path = job.folder / "plan.json"
    # A planned trial has one seed; optuna plans none.
    keys = tuple(sorted(job.base.key(t.overrides, t.seeds[0]) for t in planned_trials(job, config)))
    plan = _Plan(search=job.search, trainings=keys)
    planned = len(keys) or config.samples
    if resumed and (before := _read_plan(path)) != plan:
        raise UserError(
            f"{path} lists {len(before.trainings)} trainings of another problem, surrogate or "
            f"sweep than this run's {planned}; {_anew(path)}"
        )
    write_with_copy(path, plan.model_dump_json() + "\n")
    left, new = trials_left(job, config)
    done, begun = planned - len(left) - new, len(begun_trials(job, config))
    if resumed or done or begun:
        console.print(f"going on: {done} of {planned} trials are over, {len(left) + new} to run")


def _read_plan(path: Path) -> _Plan:
    try:
        return read_with_copy(path, _Plan.model_validate_json)
    except ValueError:
        raise UserError(
            f"{path} and its copy are damaged or missing, so nothing says what was planned; "
            f"{_anew(path)}"
        ) from None


def _anew(plan: Path) -> str:
    run = plan.parents[1]
    return (
        "plan it anew from the run's own experiment, keeping every training that fits: "
        f"{command('sweep', run / 'experiment.yaml', '--out', run)}"
    )


def report_damage(home: Path) -> None:
    """Name every damaged file, and what is used in its place."""
    for folder in trial_folders(home):
        damaged = folder.damaged_files()
        if folder.record() is None:
            damaged += drop_damaged_parts(folder.agent)
        for path in damaged:
            say(f"{path} is damaged", "yellow", "; going on from what was written before it")
