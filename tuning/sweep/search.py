"""Tune's searcher and scheduler, restored from a sweep's records."""

# Optuna is an optional extra, and Tune's searchers and schedulers are untyped:
# pyright: reportMissingImports=false, reportArgumentType=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from typing_extensions import override

from raysplit.base.errors import UserError
from tuning.sweep.plan import Overrides, name_of
from tuning.sweep.records import TrialProgress, TrialRecord
from tuning.sweep.settings import Range, SweepConfig

METRIC, STEP = "episode_return", "step"

ReportedPoint = tuple[int, float]
"""A step of a trial, and the metric there."""


def check_optuna() -> None:
    """Check that the optional extra is there.

    Raises:
        UserError: It is not.
    """
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise UserError(
            "sweep.method is optuna, which is not installed: pip install 'raysplit[optuna]', or "
            "choose random"
        ) from None


def optuna_search(
    config: SweepConfig, over: Sequence[tuple[Overrides, float]], first: Sequence[Overrides]
) -> Searcher:
    """Return Optuna's search, given the settings that are over and those to begin with."""
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    search = OptunaSearch(
        space={name: _distribution(values) for name, values in config.space.items()},
        metric=METRIC,
        mode="max",
        # Each start draws on from another point of the sequence.
        seed=config.search_seed + len(over) + len(first),
        points_to_evaluate=[dict(overrides) for overrides in first],
    )
    for overrides, value in over:
        search.add_evaluated_point(dict(overrides), value)
    return search


def _distribution(values: tuple[Any, ...] | Range) -> Any:  # noqa: ANN401 - untyped library
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if not isinstance(values, Range):
        return CategoricalDistribution(values)
    if values.integers:
        return IntDistribution(int(values.low), int(values.high), log=values.log)
    return FloatDistribution(values.low, values.high, log=values.log)


def scheduler(
    config: SweepConfig,
    total_steps: int,
    over: Sequence[TrialRecord],
    resumed: Mapping[str, Sequence[ReportedPoint]],
) -> TrialScheduler:
    """Return the scheduler; ASHA's rungs hold what the sweep's earlier trials reported there.

    Args:
        config: The sweep section.
        total_steps: Of a training.
        over: The trainings of all trials that are over.
        resumed: What the trials reported that Tune goes on with, by `resumed_name`.
    """
    if config.asha is None:
        return FIFOScheduler()
    seeds_per_trial = len(config.seeds) if config.method == "optuna" else 1
    asha = _ResumableAsha(
        resumed,
        time_attr=STEP,
        metric=METRIC,
        mode="max",
        grace_period=config.asha.grace_steps,
        max_t=total_steps * seeds_per_trial,
        reduction_factor=config.asha.reduction_factor,
    )
    for trial_id, records in _as_trials(config, over).items():
        _replay(asha, trial_id, records, total_steps)
    return asha


def resumed_name(config: Mapping[str, Any]) -> str:
    """Return a trial's name before Tune has given it an id: its Tune configuration."""
    return name_of(config)


class _ResumableAsha(AsyncHyperBandScheduler):
    """ASHA that gets a resumed trial's earlier reports as its own, not as a competitor's."""

    def __init__(self, resumed: Mapping[str, Sequence[ReportedPoint]], **options: Any) -> None:  # noqa: ANN401
        super().__init__(**options)
        self._resumed = resumed

    @override
    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        super().on_trial_add(tune_controller, trial)
        for step, value in self._resumed.get(resumed_name(trial.config), ()):
            # Stop or go on is ignored: the trial went on from there.
            self.on_trial_result(tune_controller, trial, {STEP: step, METRIC: value})


def _as_trials(
    config: SweepConfig, records: Sequence[TrialRecord]
) -> dict[str, Sequence[TrialRecord]]:
    """The trainings of each Tune trial, in its order: all seeds of a setting with optuna."""
    if config.method != "optuna":
        return {record.trial.key: [record] for record in records}
    by_setting: dict[str, dict[int, TrialRecord]] = {}
    for record in records:
        setting = name_of(record.trial.overrides)
        by_setting.setdefault(setting, {})[record.trial.seed] = record
    return {
        setting: [by_seed[seed] for seed in config.seeds if seed in by_seed]
        for setting, by_seed in by_setting.items()
    }


def _replay(
    asha: AsyncHyperBandScheduler, trial_id: str, records: Sequence[TrialRecord], total_steps: int
) -> None:
    """Report what a trial that is over reported."""
    trial = SimpleNamespace(trial_id=f"earlier-{trial_id}", config={})
    asha.on_trial_add(None, trial)
    trainings = [(record.progress, record.episode_return) for record in records]
    for step, value in trial_reports(trainings, total_steps):
        asha.on_trial_result(None, trial, {STEP: step, METRIC: value})


def trial_reports(
    trainings: Sequence[tuple[TrialProgress, float | None]], total_steps: int
) -> list[ReportedPoint]:
    """Return what a trial has reported so far (see `run_trial`).

    Args:
        trainings: Progress and exact return (None until it has finished) of each training of the
            trial, in its order.
        total_steps: Of a training.
    """
    reports: list[ReportedPoint] = []
    returns: list[float] = []
    for done, (progress, episode_return) in enumerate(trainings):
        begun = done * total_steps
        reports += [(begun + step, fmean([*returns, value])) for step, value in progress.reports]
        if episode_return is None:
            return reports
        returns.append(episode_return)
    return [*reports, (len(trainings) * total_steps, fmean(returns))]
