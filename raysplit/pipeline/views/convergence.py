"""Where a policy converges: the place it ends at when the link stays as it is.

Shape suffixes: G link states, P starting places (`envs.params`).
"""

from __future__ import annotations

import numpy as np

from envs.actions import arrived
from envs.params import LayerSplitParams
from envs.policies import Policy, asked_of_policy
from raysplit.base.arrays import FloatArray, IntArray


def converged_places(
    params: LayerSplitParams, policy: Policy, link_states_GK: FloatArray
) -> IntArray:
    """Return the place reached from every place after as many moves as there are, (G, P).

    The policy is asked at the first step of an episode each time, so one that sees the step index
    answers as if all of the episode lay ahead.
    """
    points_P, codecs_P = params.split_points_P, params.codecs_P
    places_N = np.tile(np.arange(len(points_P)), len(link_states_GK))
    links_NK = np.repeat(link_states_GK, len(points_P), axis=0)
    steps_N = np.zeros(len(places_N), dtype=np.int64)
    for _ in range(max(len(params.split_points), len(params.codecs))):
        codecs = asked_of_policy(params, codecs_P[places_N])
        actions_N = policy(points_P[places_N], links_NK, steps_N, *codecs)
        places_N = arrived(params, places_N, actions_N)
    return places_N.reshape(len(link_states_GK), len(points_P))
