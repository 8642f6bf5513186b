"""Run a sweep's trainings with Ray Tune, and go on with one that was interrupted.

    outcome = run_sweep(job, config, backend, on_trial=print)

The records in the sweep's folder (`records.py`) are the truth: what they hold is not trained
again, and what they lack is handed to Tune. Tune's own state is never restored: from a state file
cut short, Tune 2.60 would silently begin an empty experiment, and it is full of pickles, which a
run folder must not hold. It lies in a temporary folder of this machine until the sweep ends. Random
draws and successive halving are restored by replaying the records.

A process start costs as long as a training, so Tune keeps its actors for the next trial.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from raysplit.base.errors import UserError
from raysplit.measure.config import BackendConfig
from raysplit.measure.on_ray.session import start_ray
from tuning.sweep.plan import Trial, name_of, planned_combinations
from tuning.sweep.records import TrialFolder, TrialRecord, trial_folders
from tuning.sweep.resources import Bundles, check_machine, placed_bundles, trial_bundles
from tuning.sweep.search import (
    ReportedPoint,
    optuna_search,
    resumed_name,
    scheduler,
    trial_reports,
)
from tuning.sweep.settings import SweepConfig
from tuning.sweep.trial import SweepJob, run_trial, tune_trial

# Whatever ends a trial's process uses up one: also a spot machine that is taken back, since Tune
# spares only those that were drained before (`ray up` on AWS drains none). Trials go on from their
# checkpoint, so more attempts cost little; where all fail at once, as many process starts each.
_ATTEMPTS = 6

OnTrial = Callable[[TrialRecord], None]


def planned_trials(job: SweepJob, config: SweepConfig) -> list[Trial]:
    """Return one trial for each different training of the plan; optuna plans none."""
    found: dict[str, Trial] = {}
    for setting in planned_combinations(config):
        for seed in config.seeds:
            key = job.base.key(setting.overrides, seed)
            found.setdefault(key, Trial(setting.overrides, (seed,)))
    return list(found.values())


def records_of(job: SweepJob, trial: Trial) -> list[TrialRecord]:
    """Return what is on record of a trial's trainings."""
    return [record for folder in _folders(job, trial) if (record := folder.record())]


def _folders(job: SweepJob, trial: Trial) -> list[TrialFolder]:
    keys = (job.base.key(trial.overrides, seed) for seed in trial.seeds)
    return [TrialFolder(job.folder, key) for key in keys]


def is_over(job: SweepJob, config: SweepConfig, trial: Trial) -> bool:
    """Tell whether nothing of a trial is left to do.

    A training that ASHA stopped counts only in a sweep that stops trainings.
    """
    records = records_of(job, trial)
    if any(record.status == "stopped" for record in records):
        return config.asha is not None
    return len(records) == len(trial.seeds)


def trials_left(job: SweepJob, config: SweepConfig) -> tuple[list[Trial], int]:
    """Return the trials that are still to run, and how many new ones optuna may ask for."""
    if config.method != "optuna":
        planned = planned_trials(job, config)
        return [trial for trial in planned if not is_over(job, config, trial)], 0
    begun = begun_trials(job, config)
    return (
        [trial for trial in begun if not is_over(job, config, trial)],
        max(0, config.samples - len(begun)),
    )


def begun_trials(job: SweepJob, config: SweepConfig) -> list[Trial]:
    """Return the settings that this search has begun, finished or not."""
    found: dict[str, Trial] = {}
    for folder in trial_folders(job.folder):
        trial = folder.description()
        if trial is not None and trial.search == job.search:
            name = name_of(trial.overrides)
            found[name] = Trial(trial.overrides, config.seeds)
    return list(found.values())


def run_sweep(
    job: SweepJob, config: SweepConfig, backend: BackendConfig, on_trial: OnTrial
) -> None:
    """Train whatever the sweep's folder does not hold yet.

    Args:
        job: What all trials are given.
        config: The sweep section.
        backend: Where it runs; `inprocess` trains one after the other without Ray.
        on_trial: Called with each training's record as it is over.

    Raises:
        UserError: The trials do not fit the machine, or some failed.
    """
    left, new = trials_left(job, config)
    if not left and not new:
        return
    if backend.kind == "inprocess":
        _run_here(job, config, left, on_trial)
        return
    bundles = trial_bundles(config, job.base.agent)
    if backend.address is None and not ray.is_initialized():
        check_machine(bundles)
    started = start_ray(backend)
    try:
        with tempfile.TemporaryDirectory(
            prefix="raysplit-tune-", ignore_cleanup_errors=True
        ) as tmp:
            placed = placed_bundles(bundles, job.folder)
            _run_tune(job, config, left, new, placed, on_trial, tmp)
    finally:
        if started:
            ray.shutdown()


def _run_here(job: SweepJob, config: SweepConfig, left: list[Trial], on_trial: OnTrial) -> None:
    if config.method == "optuna" or config.asha is not None:
        raise UserError(
            "sweep.method optuna and sweep.asha need Ray Tune; set backend.kind to ray, or choose "
            "panels, grid or random without asha"
        )
    for trial in left:
        run_trial(job, trial.overrides, trial.seeds)
        for record in records_of(job, trial):
            on_trial(record)


def _run_tune(
    job: SweepJob,
    config: SweepConfig,
    left: list[Trial],
    new: int,
    bundles: Bundles,
    on_trial: OnTrial,
    storage: str,
) -> None:
    optuna = config.method == "optuna"
    listed = [trial.tune_config(config) for trial in left]
    tuner = tune.Tuner(
        tune.with_resources(
            tune.with_parameters(tune_trial, job=job, seeds=config.seeds),
            tune.PlacementGroupFactory(bundles),
        ),
        param_space=None if optuna else {"trial": tune.grid_search([c["trial"] for c in listed])},
        tune_config=tune.TuneConfig(
            scheduler=sweep_scheduler(job, config, left),
            search_alg=_optuna_search(job, config, left) if optuna else None,
            num_samples=len(left) + new if optuna else 1,
            max_concurrent_trials=config.max_concurrent,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="sweep",
            storage_path=storage,
            failure_config=tune.FailureConfig(max_failures=_ATTEMPTS - 1),
            callbacks=[Recorder(job, config, on_trial)],
            verbose=0,
        ),
    )
    with _quiet_tune():
        results = tuner.fit()
    if results.errors:
        last = str(results.errors[0]).strip().splitlines()[-1]
        raise UserError(
            f"{len(results.errors)} trial(s) failed {_ATTEMPTS} times: {last}; "
            "the others are on record, and --resume tries these again"
        )
    if missing := trials_left(job, config)[0]:
        raise UserError(f"{len(missing)} trial(s) left no record in {job.folder}; --resume goes on")


def sweep_scheduler(job: SweepJob, config: SweepConfig, left: list[Trial]) -> TrialScheduler:
    """Return the scheduler in the state that the records of earlier trials give."""
    total_steps = job.base.agent.total_steps
    going_on = {job.base.key(trial.overrides, seed) for trial in left for seed in trial.seeds}
    over = [
        record
        for folder in trial_folders(job.folder)
        if folder.path.name not in going_on
        and (record := folder.record())
        and record.trial.search == job.search
    ]
    resumed = {
        resumed_name(trial.tune_config(config)): _reported(job, trial, total_steps)
        for trial in left
    }
    return scheduler(config, total_steps, over, resumed)


def _reported(job: SweepJob, trial: Trial, total_steps: int) -> list[ReportedPoint]:
    """What a trial that is to go on has reported, in its finished seeds and in the one begun."""
    trainings = [
        (record.progress, record.episode_return) if record else (folder.progress(), None)
        for folder, record in ((folder, folder.record()) for folder in _folders(job, trial))
    ]
    return trial_reports(trainings, total_steps)


def _optuna_search(job: SweepJob, config: SweepConfig, left: list[Trial]) -> Searcher:
    """Optuna's search, given what is over; what was begun comes first."""
    over = [trial for trial in begun_trials(job, config) if is_over(job, config, trial)]
    values = [(trial.overrides, _value(records_of(job, trial))) for trial in over]
    return optuna_search(config, values, [trial.overrides for trial in left])


def _value(records: list[TrialRecord]) -> float:
    """The metric of a setting: a stopped training counts with its recent return."""
    returns = [
        record.progress.reports[-1][1] if record.episode_return is None else record.episode_return
        for record in records
    ]
    return sum(returns) / len(returns)


class Recorder(tune.Callback):
    """Passes on trials as they end, and writes the record of those that ASHA has stopped."""

    def __init__(self, job: SweepJob, config: SweepConfig, on_trial: OnTrial) -> None:
        self._job, self._config, self._on_trial = job, config, on_trial

    def __reduce__(self) -> tuple[Any, ...]:
        # Tune pickles its callbacks, which nothing restores; a progress bar cannot be pickled.
        return tune.Callback, ()

    def on_trial_complete(
        self,
        iteration: int,
        trials: list[Any],
        trial: Any,  # noqa: ANN401 - Tune's own class
        **info: Any,  # noqa: ANN401
    ) -> None:
        """Pass on the records of a trial."""
        for folder in _folders(self._job, Trial.from_tune(trial.config, self._config.seeds)):
            record = folder.record()
            if record is None and self._config.asha is not None:
                record = self._stopped(folder)
            if record is not None:
                self._on_trial(record)

    def _stopped(self, folder: TrialFolder) -> TrialRecord | None:
        """Write the record of a training that began and did not finish."""
        described, progress = folder.description(), folder.progress()
        if described is None or not progress.reports:
            return None
        record = TrialRecord(described, "stopped", progress, None, None)
        folder.save_record(record)
        return record


@contextmanager
def _quiet_tune() -> Iterator[None]:
    """No loggers and no printing of Tune's own, and Ctrl-C as everywhere else."""
    settings = {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "RAY_AIR_NEW_OUTPUT": "0",  # the new output prints a summary even where verbose is 0
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    logger = logging.getLogger("ray.tune")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
