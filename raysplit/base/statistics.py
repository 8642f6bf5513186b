"""Scores over seeds, summed up robustly, and the rank correlation of two samples.

With a handful of seeds a mean follows its extreme runs and a standard deviation says little. The
interquartile mean leaves out the lowest and the highest quarter of the runs; the interval comes
from redrawing the seeds, within each task (case, link state) on its own, and taking percentiles.

Shape suffixes: N values of a sample, S seeds, K tasks, X points of a curve.
"""

# scipy ships no type information:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from raysplit.base.arrays import FloatArray
from raysplit.base.errors import UserError

Statistic = Literal["interquartile_mean", "mean"]

_BATCH = 500  # bootstrap samples held in memory at a time


@dataclass(frozen=True, slots=True)
class Interval:
    """A statistic with its confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, eq=False)
class PointwiseInterval:
    """A curve of a statistic with its confidence interval at every point."""

    value_X: FloatArray
    low_X: FloatArray
    high_X: FloatArray


def interquartile_mean(scores: ArrayLike) -> float:
    """Return the mean of the middle half of all scores, whatever the array's shape.

    A quarter of the scores, rounded down, is left out at each end.

    Raises:
        UserError: If there is no score, or one is not finite.
    """
    return float(_apply("interquartile_mean", _checked(scores, fewest=1).ravel(), axis=0))


def bootstrap_interval(
    scores: ArrayLike,
    seed: int,
    *,
    statistic: Statistic = "interquartile_mean",
    confidence: float = 0.95,
    resamples: int = 5000,
) -> Interval:
    """Return a statistic of all scores with its stratified percentile bootstrap interval.

    Args:
        scores: Shape (S,), or (S, K): then seeds are redrawn within each task independently.
        seed: Fixes the resampling.
        statistic: What to compute of all scores together.
        confidence: Probability mass of the interval, inside (0, 1).
        resamples: Number of bootstrap samples.

    Raises:
        UserError: If there are fewer than 2 seeds, or a score is not finite.
    """
    scores_SK = _checked(scores, fewest=2)
    tasks = list(scores_SK.reshape(len(scores_SK), -1).T)
    low, high = _percentiles(tasks, -1, seed, statistic, confidence, resamples)
    return Interval(float(_apply(statistic, scores_SK.ravel(), axis=0)), float(low), float(high))


def bootstrap_band(
    curves_SX: ArrayLike,
    seed: int,
    *,
    statistic: Statistic = "interquartile_mean",
    confidence: float = 0.95,
    resamples: int = 2000,
) -> PointwiseInterval:
    """Return a statistic over seeds at every point of their curves, with pointwise intervals.

    Whole curves are redrawn: what the points of one run have in common stays together.

    Args:
        curves_SX: One row a seed.
        seed: Fixes the resampling.
        statistic: What to compute over the seeds.
        confidence: Probability mass of each interval, inside (0, 1).
        resamples: Number of bootstrap samples.

    Raises:
        UserError: If there are fewer than 2 seeds, or a score is not finite.
    """
    checked_SX = _checked(curves_SX, fewest=2)
    low_X, high_X = _percentiles([checked_SX], 0, seed, statistic, confidence, resamples)
    return PointwiseInterval(_apply(statistic, checked_SX, axis=0), low_X, high_X)


def rank_correlation(a_N: FloatArray, b_N: FloatArray) -> float:
    """Return Spearman's rho, equal values sharing their mean rank.

    NaN where all values of one of them are equal: they have no order.
    """
    if np.ptp(a_N) == 0 or np.ptp(b_N) == 0:
        return float("nan")
    found: Any = stats.spearmanr(a_N, b_N)
    return float(found.statistic)


def _percentiles(
    samples: Sequence[FloatArray],
    axis: int,
    seed: int,
    statistic: Statistic,
    confidence: float,
    resamples: int,
) -> tuple[FloatArray, FloatArray]:
    """Redraw each sample along its axis and return the statistic's percentiles over all of them."""

    def of_redrawn(*redrawn: FloatArray, axis: int) -> FloatArray:
        return _apply(statistic, np.concatenate(redrawn, axis=axis), axis)

    interval = stats.bootstrap(
        samples,
        of_redrawn,
        axis=axis,
        n_resamples=resamples,
        batch=_BATCH,
        vectorized=True,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return np.asarray(interval.low), np.asarray(interval.high)


def _apply(statistic: Statistic, scores: FloatArray, axis: int) -> FloatArray:
    if statistic == "mean":
        return np.asarray(scores.mean(axis=axis))
    return np.asarray(stats.trim_mean(scores, 0.25, axis=axis))


def _checked(scores: ArrayLike, fewest: int) -> FloatArray:
    array = np.asarray(scores, dtype=np.float64)
    seeds = len(array) if array.size else 0
    if seeds < fewest:
        raise UserError(
            f"scores of {seeds} seed(s) cannot be summed up: it takes at least {fewest}; "
            "run more seeds"
        )
    if not np.isfinite(array).all():
        raise UserError("a score is NaN or infinite: look into that run before averaging over it")
    return array
