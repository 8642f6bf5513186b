"""Work on many rows that runs out of memory is done in halves instead."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

ResultT = TypeVar("ResultT")
_LOGGER = logging.getLogger(__name__)


def in_halves(
    work: Callable[[slice], ResultT],
    rows: slice,
    join: Callable[[ResultT, ResultT], ResultT],
    on_halving: Callable[[int], None] | None = None,
) -> ResultT:
    """Work on rows; where the memory does not suffice, on each half of them, and so on.

    Args:
        work: Does some of the rows, whichever; may be called again for rows that it failed at.
        rows: From the first to before the last, at least one.
        join: Puts the results of two halves together, in their order.
        on_halving: Told how many rows were too many.

    Raises:
        RuntimeError: A single row is too many, or something else went wrong.
    """
    count = rows.stop - rows.start
    try:
        return work(rows)
    except (RuntimeError, MemoryError) as error:
        if count == 1 or not is_out_of_memory(error):
            raise
    # From here on the error is gone, and with it what it held of the failed try.
    _LOGGER.warning("out of memory with %d rows: done in halves", count)
    if on_halving is not None:
        on_halving(count)
    middle = rows.start + count // 2
    first, second = slice(rows.start, middle), slice(middle, rows.stop)
    return join(in_halves(work, first, join, on_halving), in_halves(work, second, join, on_halving))


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether memory ran out: on a CPU, torch has no class of its own for that."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"  # torch's, without loading it
        or "can't allocate memory" in str(error)
    )
