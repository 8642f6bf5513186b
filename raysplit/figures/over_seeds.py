"""Learning curves of several seeds as one band: what a panel of learning curves is made of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from raysplit.base.arrays import FloatArray
from raysplit.base.statistics import bootstrap_band
from raysplit.figures.style import Band

_POINTS = 60


def band_over_seeds(runs: Sequence[FloatArray]) -> Band:
    """Return the interquartile mean of curves and its bootstrap interval; a single one stands bare.

    Args:
        runs: One array a seed, with columns step and value, steps ascending. They may be taken at
            different steps: the band spans those that all of them have.
    """
    first: float = max(run[0, 0] for run in runs)
    last: float = min(run[-1, 0] for run in runs)
    steps_X: FloatArray = np.linspace(first, last, _POINTS)
    curves_SX: FloatArray = np.stack([np.interp(steps_X, run[:, 0], run[:, 1]) for run in runs])
    if len(curves_SX) == 1:
        return Band(x=steps_X, centre=curves_SX[0], low=curves_SX[0], high=curves_SX[0])
    band = bootstrap_band(curves_SX, 0)
    return Band(x=steps_X, centre=band.value_X, low=band.low_X, high=band.high_X)
