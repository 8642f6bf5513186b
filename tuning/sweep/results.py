"""What a sweep found: one tidy table of learning curves, and the settings in order of merit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from envs.score import Score
from raysplit.base.statistics import Interval
from tuning.evaluate import summarise
from tuning.sweep.plan import Combination, joint_combination, planned_combinations
from tuning.sweep.records import TrialFolder, TrialRecord
from tuning.sweep.run import begun_trials
from tuning.sweep.settings import SweepConfig
from tuning.sweep.trial import SweepJob


@dataclass(frozen=True, slots=True)
class CombinationResult:
    """One setting and its trainings.

    Attributes:
        combination: What was tried.
        values: All swept hyper-parameters, the agent's own where the setting leaves them.
        records: By seed, those that are over.
        share_of_gap: Interquartile mean and 95 % interval over the seeds; None unless all finished.
        episode_return: The same of the exact return.
    """

    combination: Combination
    values: dict[str, float]
    records: dict[int, TrialRecord]
    share_of_gap: Interval | None
    episode_return: Interval | None

    @property
    def label(self) -> str:
        """The setting in words."""
        return ", ".join(f"{name} {value:g}" for name, value in self.combination.overrides.items())


def sweep_results(job: SweepJob, config: SweepConfig) -> list[CombinationResult]:
    """Return every setting of the sweep with its records, in the plan's order."""
    settings = planned_combinations(config) or [
        joint_combination(config, trial.overrides) for trial in begun_trials(job, config)
    ]
    return [_result(job, config, setting) for setting in settings]


def _result(job: SweepJob, config: SweepConfig, combination: Combination) -> CombinationResult:
    keys = {seed: job.base.key(combination.overrides, seed) for seed in config.seeds}
    read = {seed: TrialFolder(job.folder, key).record() for seed, key in keys.items()}
    records = {seed: record for seed, record in read.items() if record}
    scores = [
        Score(record.episode_return, 0.0, record.share_of_gap)
        for record in records.values()
        if record.episode_return is not None and record.share_of_gap is not None
    ]
    summary = summarise(scores) if len(scores) == len(config.seeds) else None
    own = job.base.config(combination.overrides).hyperparameters().model_dump()
    return CombinationResult(
        combination=combination,
        values={name: _first(own[name]) for name in config.space},
        records=records,
        share_of_gap=summary.share_of_gap if summary else None,
        episode_return=summary.episode_return if summary else None,
    )


def _first(value: float | tuple[float, float]) -> float:
    """A schedule (first, last) of the agent's own stands with its first value."""
    return float(value[0] if isinstance(value, tuple) else value)


def best_first(results: Iterable[CombinationResult]) -> list[CombinationResult]:
    """Return the settings whose seeds have all finished, the largest share of the gap first."""
    finished = [result for result in results if result.share_of_gap]
    return sorted(finished, key=lambda r: -r.share_of_gap.value if r.share_of_gap else 0.0)


def curves_table(results: Sequence[CombinationResult]) -> pd.DataFrame:
    """Return all learning curves, one row a point.

    Columns: panel; parameter and value (None where several vary); seed; step; episode_return (with
    exploration, None where no episode ended); judged_return (what the policy is worth there,
    exactly); share_of_gap (of the trained policy, exact, in the row of the last step); status; and
    one column a swept hyper-parameter.
    """
    rows = [
        {
            "panel": result.combination.panel,
            "parameter": result.combination.parameter,
            "value": result.combination.value,
            "seed": seed,
            "step": step,
            "episode_return": episode_return,
            "judged_return": judged_return,
            "share_of_gap": record.share_of_gap if step == record.progress.steps else None,
            "status": record.status,
            **result.values,
        }
        for result in results
        for seed, record in sorted(result.records.items())
        for (step, episode_return), (_, judged_return) in zip(
            record.progress.curve, record.progress.judged, strict=True
        )
    ]
    numbers = ("value", "episode_return", "judged_return", "share_of_gap")
    return pd.DataFrame(rows).astype(dict.fromkeys(numbers, "float64"))
