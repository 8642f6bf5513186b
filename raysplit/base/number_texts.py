"""Numbers as texts that stay apart."""

from __future__ import annotations

from collections.abc import Iterable

_ALL_DIGITS = 17  # tell any two numbers of double precision apart


def distinct_texts(values: Iterable[float], digits: int = 6) -> dict[float, str]:
    """Return each number's text, all with as many digits as it takes to tell them apart.

    Args:
        values: Finite numbers.
        digits: Significant digits, where these are enough.
    """
    distinct = {float(value) for value in values}
    for count in range(digits, _ALL_DIGITS):
        texts = {value: f"{value:.{count}g}" for value in distinct}
        if len(set(texts.values())) == len(distinct):
            return texts
    return {value: f"{value:.{_ALL_DIGITS}g}" for value in distinct}
