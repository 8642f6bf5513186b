"""One trial of a sweep: the training of `raysplit train`, an exact score, and the record of both.

A trial goes on from what its folder holds, whoever wrote it: an earlier process that was killed, an
earlier sweep. Damaged parts are dropped, which costs at most one more checkpoint interval.
"""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ray import tune

from envs.oracle import Oracle
from envs.score import score
from envs.sources import PPLSource
from raysplit.base.errors import UserError
from tuning.agent import CurvePoint, load_agent
from tuning.checkpoint import checkpoints_of, verify_checkpoint
from tuning.evaluate import judge_of
from tuning.settings import TrainConfig
from tuning.sweep.plan import Base, Overrides, Trial
from tuning.sweep.records import TrialDescription, TrialFolder, TrialProgress, TrialRecord
from tuning.sweep.search import METRIC, STEP
from tuning.train import train

RECENT_POINTS = 5

ReportPoint = Callable[[int, float], None]
"""report(step, episode_return) tells Tune how far a trial is; Tune may end the trial there."""


@dataclass(frozen=True, slots=True)
class SweepJob:
    """What every trial of a sweep is given.

    Attributes:
        base: The problem and the agent.
        source: Where perplexities come from.
        oracle: The problem solved on that source: what policies are scored with.
        folder: The sweep's folder, absolute, seen by every machine that runs trials.
        search: Identifies this sweep's trials in the folder.
    """

    base: Base
    source: PPLSource
    oracle: Oracle
    folder: Path
    search: str


def tune_trial(config: dict[str, Any], job: SweepJob, seeds: Sequence[int]) -> None:
    """Run a Tune trial: a planned one, or a setting that a search suggests, with all seeds."""
    if not (job.folder / "trials").is_dir():  # a node that joined after the sweep had begun
        raise UserError(f"node {socket.gethostname()} does not see {job.folder}")
    trial = Trial.from_tune(config, seeds)
    run_trial(
        job,
        trial.overrides,
        trial.seeds,
        lambda step, value: tune.report({STEP: step, METRIC: value}),
    )


def run_trial(
    job: SweepJob, overrides: Overrides, seeds: Sequence[int], report: ReportPoint = lambda *_: None
) -> None:
    """Train and score one setting; what has a record already is only reported."""
    returns: list[float] = []
    for done, seed in enumerate(seeds):
        begun = done * job.base.agent.total_steps

        def report_seed(step: int, value: float, begun: int = begun) -> None:
            report(begun + step, float(np.mean([*returns, value])))

        returns.append(_run_seed(job, overrides, seed, report_seed))
    # Only here: a stop between two seeds would find the next one's training not begun.
    report(len(seeds) * job.base.agent.total_steps, float(np.mean(returns)))


def _run_seed(job: SweepJob, overrides: Overrides, seed: int, report: ReportPoint) -> float:
    key = job.base.key(overrides, seed)
    folder = TrialFolder(job.folder, key)
    trial = TrialDescription(key, dict(overrides), seed, job.search)
    folder.describe(trial)
    record = folder.record()
    if record is not None and record.episode_return is not None:
        return record.episode_return
    drop_damaged_parts(folder.agent)
    watch = _ProgressRecorder(folder, job.base.agent, report)
    trained = train(
        job.base.params,
        job.source,
        job.base.config(overrides),
        seed,
        folder.agent,
        watch,
        judge=judge_of(job.oracle),
    )
    found = score(job.oracle, trained.policy().for_problem(job.base.params))
    progress = TrialProgress(
        starts=watch.progress.starts,
        curve=[(point.step, point.episode_return) for point in trained.curve],
        judged=[(point.step, point.judged_return) for point in trained.curve],
        reports=watch.progress.reports,
        seconds=trained.curve[-1].seconds,
    )
    folder.save_record(
        TrialRecord(trial, "finished", progress, found.episode_return, found.share_of_gap)
    )
    return found.episode_return


class _ProgressRecorder:
    """Writes and reports a training's progress once a checkpoint interval."""

    def __init__(self, folder: TrialFolder, agent: TrainConfig, report: ReportPoint) -> None:
        self._folder = folder
        self._agent = agent
        self._report = report
        self.progress = folder.progress()
        if not (folder.agent / "agent.json").exists():
            self._note_start(newest_checkpoint(folder.agent))
        self._reported_at = self.progress.steps

    def _note_start(self, step: int) -> None:
        """What came after the checkpoint that this start goes on from is trained again."""
        seen = self.progress
        seen.starts.append(step)
        seen.curve = [point for point in seen.curve if point[0] <= step]
        seen.judged = [point for point in seen.judged if point[0] <= step]
        seen.reports = [report for report in seen.reports if report[0] <= step]
        self._folder.save_progress(seen)

    def __call__(self, point: CurvePoint) -> None:
        seen = self.progress
        seen.curve.append((point.step, point.episode_return))
        seen.judged.append((point.step, point.judged_return))
        seen.seconds = point.seconds
        due = point.step - self._reported_at >= self._agent.checkpoint_every_steps
        if not due or point.step >= self._agent.total_steps:
            return
        self._reported_at = point.step
        recent = [value for _, value in seen.curve if value is not None][-RECENT_POINTS:]
        if recent:
            value = float(np.mean(recent))
            seen.reports.append((point.step, value))
            self._folder.save_progress(seen)
            self._report(point.step, value)


def newest_checkpoint(agent: Path) -> int:
    """Return the step of an agent's newest complete checkpoint; 0 without one."""
    found = checkpoints_of(agent)
    return int(found[-1].name.removeprefix("step-")) if found else 0


def drop_damaged_parts(agent: Path) -> list[Path]:
    """Delete an agent's record and checkpoints where they are not whole; training repeats them.

    Returns:
        What was deleted.
    """
    dropped: list[Path] = []
    if (agent / "agent.json").exists() and not _is_finished(agent):
        (agent / "agent.json").unlink()
        dropped.append(agent / "agent.json")
    for checkpoint in checkpoints_of(agent):
        try:
            verify_checkpoint(checkpoint)
        except UserError:
            shutil.rmtree(checkpoint)
            dropped.append(checkpoint)
    return dropped


def _is_finished(agent: Path) -> bool:
    try:
        return load_agent(agent).is_whole()
    except UserError:  # the record itself is damaged
        return False
