"""A sweep's files: one folder a training, and in it, once it is over, its record.

    sweep/trials/KEY/trial.json     what is trained
                    /agent/         the agent, with its checkpoints while it is in training
                    /progress.json  the learning curve so far, and at which step it was begun
                    /record.json    the outcome: written last

These files are the truth about a sweep. Ray Tune runs the trainings, but nothing depends on its
own state; every file here is replaced whole, so a kill at any point leaves the old one or the new.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from raysplit.base.errors import UserError
from raysplit.base.sealed_json import read_sealed, write_sealed
from tuning.sweep.settings import Number

Status = Literal["finished", "stopped"]


@dataclass(frozen=True, slots=True)
class TrialDescription:
    """A training of a sweep.

    Attributes:
        key: Its folder.
        overrides: What differs from the agent.
        seed: Its seed.
        search: The search that asked for it.
    """

    key: str
    overrides: Mapping[str, Number]
    seed: int
    search: str


@dataclass(slots=True)
class TrialProgress:
    """How far a training is.

    Attributes:
        starts: The step at which each start began: 0, then that of a checkpoint.
        curve: Steps and mean episode return (None where no episode ended).
        judged: Steps and what the policy was worth there, exactly.
        reports: Steps and recent return as reported to Tune.
        seconds: Training time, interruptions not counted.
    """

    starts: list[int] = field(default_factory=list)
    curve: list[tuple[int, float | None]] = field(default_factory=list)
    judged: list[tuple[int, float | None]] = field(default_factory=list)
    reports: list[tuple[int, float]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def steps(self) -> int:
        """Steps trained."""
        return self.curve[-1][0] if self.curve else 0


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """A training that is over.

    Attributes:
        trial: What was trained.
        status: `finished`, or `stopped` early by ASHA.
        progress: Its learning curve.
        episode_return: The policy's exact return; None where it was stopped.
        share_of_gap: The same as a share of the gap between random and the optimum.
    """

    trial: TrialDescription
    status: Status
    progress: TrialProgress
    episode_return: float | None
    share_of_gap: float | None


class TrialFolder:
    """One training's files."""

    def __init__(self, sweep: Path, key: str) -> None:
        self.path = sweep / "trials" / key
        self.agent = self.path / "agent"

    def describe(self, trial: TrialDescription) -> None:
        """Write what is trained here."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_sealed(self.path / "trial.json", asdict(trial))

    def description(self) -> TrialDescription | None:
        """Return what is trained here, if it can be read."""
        values = _read(self.path / "trial.json")
        if values is None and (record := self.record()):
            return record.trial
        return TrialDescription(**values) if values else None

    def save_progress(self, progress: TrialProgress) -> None:
        """Replace the progress."""
        write_sealed(self.path / "progress.json", asdict(progress))

    def progress(self) -> TrialProgress:
        """Return the progress; none where nothing can be read."""
        values = _read(self.path / "progress.json")
        return _progress(values) if values else TrialProgress()

    def save_record(self, record: TrialRecord) -> None:
        """Write the outcome: the training is over."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_sealed(self.path / "record.json", asdict(record))

    def record(self) -> TrialRecord | None:
        """Return the outcome; None where there is none, or its file is damaged."""
        values = _read(self.path / "record.json")
        if values is None:
            return None
        return TrialRecord(
            trial=TrialDescription(**values.pop("trial")),
            progress=_progress(values.pop("progress")),
            **values,
        )

    def damaged_files(self) -> list[Path]:
        """Return the files that are there and are damaged."""
        files = [self.path / name for name in ("trial.json", "progress.json", "record.json")]
        return [path for path in files if path.exists() and _read(path) is None]


def trial_folders(sweep: Path) -> list[TrialFolder]:
    """Return the folders of all trainings that were ever begun, sorted by key."""
    return [TrialFolder(sweep, path.name) for path in sorted((sweep / "trials").glob("*"))]


def _progress(values: dict[str, Any]) -> TrialProgress:
    return TrialProgress(
        starts=values["starts"],
        curve=[(step, value) for step, value in values["curve"]],
        judged=[(step, value) for step, value in values["judged"]],
        reports=[(step, value) for step, value in values["reports"]],
        seconds=values["seconds"],
    )


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return read_sealed(path, "the training goes on from its newest checkpoint")
    except UserError:
        return None
