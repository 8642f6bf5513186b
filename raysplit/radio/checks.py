"""What is refused of the numbers that this room is given."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from raysplit.base.arrays import FloatArray
from raysplit.base.errors import UserError


def checked(
    name: str,
    values: ArrayLike,
    *,
    low: float = -np.inf,
    high: float = np.inf,
    above: float = -np.inf,
) -> FloatArray:
    """Return numbers as float64.

    Args:
        name: What they are, with the unit, as messages begin.
        values: Any shape; infinities are allowed where the range allows them.
        low: Smallest value.
        high: Largest value.
        above: Every value is greater.

    Raises:
        UserError: If one is no number or outside the range: value, rule, remedy.
    """
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise UserError(f"{name} = {values!r} is no number: give a number or an array") from None
    right = (numbers >= low) & (numbers <= high) & ((numbers > above) | np.isneginf(above))
    if right.all():
        return numbers
    rules = [
        f"{word} {limit:g}"
        for word, limit in (("at least", low), ("above", above), ("at most", high))
        if np.isfinite(limit)
    ]
    value = numbers[~right].flat[0]
    raise UserError(
        f"{name} = {value:g} is not possible: it must be {' and '.join(rules) or 'a number'}"
    )
