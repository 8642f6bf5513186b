"""What an agent may do: move the split point by a layer, the codec with it, or jump anywhere.

| actions | number | action a |
|---|---|---|
| `split` | 3 | the split point by a - 1 |
| `split_and_codec` | 9 | the split point by a // 3 - 1, the codec by a % 3 - 1 in its list |
| `absolute` | split points | to split point p_min + a |

A move beyond the first or last split point, or codec, stays where it is.

Shape suffixes: N episodes, A actions, P places (index 0 is the first split point and codec).
"""

from __future__ import annotations

import numpy as np

from envs.params import LayerSplitParams
from raysplit.base.arrays import IntArray

STAY_OR_STEP = 3  # -1, 0, +1


def number_of_actions(params: LayerSplitParams) -> int:
    """Return A."""
    match params.actions:
        case "split":
            return STAY_OR_STEP
        case "split_and_codec":
            return STAY_OR_STEP**2
        case "absolute":
            return len(params.split_points)


def arrived(params: LayerSplitParams, places_N: IntArray, actions_N: IntArray) -> IntArray:
    """Return the places that actions lead to."""
    last = len(params.split_points) - 1
    match params.actions:
        case "split":
            return np.minimum(np.maximum(places_N + (actions_N - 1), 0), last)
        case "split_and_codec":
            codecs = len(params.codecs)
            rows_N, codecs_N = np.divmod(places_N, codecs)
            up_N, on_N = np.divmod(actions_N, STAY_OR_STEP)
            rows_N = np.clip(rows_N + up_N - 1, 0, last)
            return rows_N * codecs + np.clip(codecs_N + on_N - 1, 0, codecs - 1)
        case "absolute":
            return actions_N + np.zeros_like(places_N)


def targets_of_actions(params: LayerSplitParams) -> IntArray:
    """Return the place that each action leads to from each, shape (A, P)."""
    actions_A1 = np.arange(number_of_actions(params))[:, None]
    return arrived(params, np.arange(len(params.split_points_P)), actions_A1)


def towards(params: LayerSplitParams, places_N: IntArray, goals_N: IntArray) -> IntArray:
    """Return the actions that lead to goals as fast as may be."""
    codecs = len(params.codecs)
    (rows_N, codecs_N), (goal_rows_N, goal_codecs_N) = (
        np.divmod(np.asarray(x), codecs) for x in (places_N, goals_N)
    )
    up_N = np.sign(goal_rows_N - rows_N) + 1
    match params.actions:
        case "split":
            return up_N
        case "split_and_codec":
            return STAY_OR_STEP * up_N + np.sign(goal_codecs_N - codecs_N) + 1
        case "absolute":
            return goal_rows_N
