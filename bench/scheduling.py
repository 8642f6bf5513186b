"""The scheduler without models: how many units a second, and how busy it keeps 64 actors."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import ray

from raysplit.measure.on_ray.scheduler import Scheduler


@ray.remote(num_cpus=0)
class Sleeper:
    """Stands for an edge actor: a unit is the time that it takes."""

    def ready(self) -> None:
        """Answer."""

    def work(self, seconds: float) -> float:
        """Take that long."""
        if seconds:
            time.sleep(seconds)
        return seconds


def units_per_second(actors: int, units: int) -> float:
    """Return the rate at which units without work pass through the scheduler."""
    return units / _makespan(actors, [0.0] * units)


def simulated_efficiency(actors: int, service_s: Sequence[float]) -> float:
    """Return work / (actors x time until the last unit is done), from a warm start."""
    return sum(service_s) / (actors * _makespan(actors, service_s))


def service_times(units: int, whole_model_s: float, layers: int = 32) -> list[float]:
    """Model a 7B suffix: p from 1 to 10, and 1 to 3 times as many sentences for the error bar."""
    rng = np.random.default_rng(0)
    suffix_N = 1 - rng.integers(1, 11, units) / layers
    return list(whole_model_s * suffix_N * rng.integers(1, 4, units))


def _makespan(count: int, service_s: Sequence[float]) -> float:
    actors = [Sleeper.remote() for _ in range(count)]
    try:
        scheduler = Scheduler(actors, lambda actor, seconds: actor.work.remote(seconds))
        warm_up = list(scheduler.run([0.0] * (20 * count)))
        assert all(outcome.reason is None for outcome in warm_up)
        assert scheduler.alive == count or _all_ready(actors)
        start = time.perf_counter()
        done = sum(1 for _ in scheduler.run(service_s))
        seconds = time.perf_counter() - start
        assert done == len(service_s)
        return seconds
    finally:
        for actor in actors:
            ray.kill(actor)


def _all_ready(actors: Sequence[ray.actor.ActorHandle]) -> bool:
    ray.get([actor.ready.remote() for actor in actors])
    return True
