"""Tune's searcher and scheduler, brought to where the records say they stood."""

# Optuna is an optional extra, and Tune's searchers and schedulers are untyped:
# pyright: reportMissingImports=false, reportArgumentType=false

from __future__ import annotations

import json
from collections.abc import Sequence
from statistics import fmean
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from raysplit.errors import UserError
from tuning.sweep_plan import Overrides
from tuning.sweep_records import TrialRecord
from tuning.sweep_settings import Range, SweepConfig

METRIC, STEP = "episode_return", "step"


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
    """Return Optuna's search, told of settings that are over and asked to begin with others."""
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
    config: SweepConfig, total_steps: int, search: str, earlier: Sequence[TrialRecord]
) -> TrialScheduler:
    """Return the scheduler; ASHA's rungs hold what the sweep's earlier trials reported there."""
    if config.asha is None:
        return FIFOScheduler()
    seeds_per_trial = len(config.seeds) if config.method == "optuna" else 1
    asha = AsyncHyperBandScheduler(
        time_attr=STEP,
        metric=METRIC,
        mode="max",
        grace_period=config.asha.grace_steps,
        max_t=total_steps * seeds_per_trial,
        reduction_factor=config.asha.reduction_factor,
    )
    begun = [record for record in earlier if record.trial.search == search]
    for trial_id, records in _as_trials(config, begun).items():
        _replay(asha, trial_id, records, total_steps)
    return asha


def _as_trials(
    config: SweepConfig, records: Sequence[TrialRecord]
) -> dict[str, Sequence[TrialRecord]]:
    """The trainings of each Tune trial, in its order: all seeds of a setting with optuna."""
    if config.method != "optuna":
        return {record.trial.key: [record] for record in records}
    by_setting: dict[str, dict[int, TrialRecord]] = {}
    for record in records:
        setting = json.dumps(dict(record.trial.overrides), sort_keys=True)
        by_setting.setdefault(setting, {})[record.trial.seed] = record
    return {
        setting: [by_seed[seed] for seed in config.seeds if seed in by_seed]
        for setting, by_seed in by_setting.items()
    }


def _replay(
    asha: AsyncHyperBandScheduler, trial_id: str, records: Sequence[TrialRecord], total_steps: int
) -> None:
    """Report what a trial reported (see `run_trial`)."""
    trial = SimpleNamespace(trial_id=f"earlier-{trial_id}")
    asha.on_trial_add(None, trial)
    returns: list[float] = []
    for done, record in enumerate(records):
        begun = done * total_steps
        for step, value in record.progress.reports:
            reported = {STEP: begun + step, METRIC: fmean([*returns, value])}
            asha.on_trial_result(None, trial, reported)
        if record.episode_return is None:
            return
        returns.append(record.episode_return)
    asha.on_trial_result(None, trial, {STEP: len(records) * total_steps, METRIC: fmean(returns)})
