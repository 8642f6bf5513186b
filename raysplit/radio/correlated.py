"""First-order autoregressive sequences: the Gauss-Markov process."""

# scipy ships no type information:
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false

from __future__ import annotations

from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

_Array = TypeVar("_Array", bound=NDArray[Any])


def autoregressive(white_NT: _Array, correlation: float) -> _Array:
    """Return x_t = c x_(t-1) + sqrt(1 - c^2) w_t along the last axis, in its steady state.

    Args:
        white_NT: Independent w of one variance, which x keeps.
        correlation: c in [-1, 1], of neighbours; of elements k apart it is c^k.
    """
    innovation = np.sqrt(1 - correlation**2)
    # The first element is drawn from the steady state, so it needs no run-in.
    first_N1 = white_NT[..., :1]
    from scipy.signal import lfilter  # loads scipy.stats, which takes seconds

    rest, _ = lfilter(
        [innovation], [1.0, -correlation], white_NT[..., 1:], zi=correlation * first_N1
    )
    return cast(_Array, np.concatenate([first_N1, rest], axis=-1))
