"""The values that a plan or a grid takes of one link coordinate, between its two ends.

One place for all of them, so that what one stage measures another finds under the same key.
"""

from __future__ import annotations

import math

import numpy as np

from raysplit.base.arrays import FloatArray

_DECIMALS = 6


def grid_axis(low: float, high: float, points: int) -> FloatArray:
    """Return so many evenly spaced values, ascending, exactly `low` and `high` at the ends."""
    axis = rounded_within(np.linspace(low, high, points), low, high)
    axis[0], axis[-1] = low, high
    return axis


def rounded_within(values: FloatArray, low: float, high: float) -> FloatArray:
    """Round values of a range so that they read well, by less than the range can see.

    They keep six decimals, and where the range is narrower than 1 as many more: at most half a
    millionth of its width is lost.
    """
    decimals = _DECIMALS + max(0, -math.floor(math.log10(high - low)))
    return np.clip(np.round(values, decimals), low, high)
