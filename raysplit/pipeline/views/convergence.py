"""Where a policy converges: the split point it ends at when the link stays as it is.

Shape suffixes: G link states, P starting split points.
"""

from __future__ import annotations

import numpy as np

from envs.dynamics import moved
from envs.params import LayerSplitParams
from envs.policies import Policy
from raysplit.base.arrays import FloatArray, IntArray


def converged_split_points(
    params: LayerSplitParams, policy: Policy, link_states_GK: FloatArray
) -> IntArray:
    """Return the split point reached from every start after as many moves as there are, (G, P).

    The policy is asked at the first step of an episode each time, so one that sees the step index
    answers as if all of the episode lay ahead.
    """
    starts_P = params.split_points_P
    split_points_N = np.tile(starts_P, len(link_states_GK))
    links_NK = np.repeat(link_states_GK, len(starts_P), axis=0)
    steps_N = np.zeros(len(split_points_N), dtype=np.int64)
    for _ in starts_P:
        actions_N = policy(split_points_N, links_NK, steps_N)
        split_points_N = moved(params, split_points_N, actions_N)
    return split_points_N.reshape(len(link_states_GK), len(starts_P))
