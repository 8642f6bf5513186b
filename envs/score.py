"""The exact score of a policy on a problem that is solved: return, regret, share of the gap.

Shape suffixes: N states, I entries of an observation, K link coordinates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from envs.actions import number_of_actions
from envs.checks import checked_actions
from envs.dynamics import State, observation
from envs.oracle import Oracle
from envs.params import LayerSplitParams
from envs.policies import Policy
from raysplit.base.arrays import Float32Array, FloatArray, IntArray

Predict = Callable[[Float32Array], ArrayLike]
"""Actions (N,) for observations (N, I), as the agents of most libraries give them."""


@dataclass(frozen=True, slots=True)
class Score:
    """One policy on one source.

    Attributes:
        episode_return: Expected return of an episode.
        regret: How far that is below the exact optimum.
        share_of_gap: 0 for the random policy, 1 for the optimum.
    """

    episode_return: float
    regret: float
    share_of_gap: float


def score(oracle: Oracle, policy: Policy) -> Score:
    """Return the exact score of a policy."""
    episode_return = oracle.policy_return(policy)
    return Score(episode_return, oracle.regret(episode_return), oracle.share_of_gap(episode_return))


@dataclass(frozen=True, slots=True, eq=False)
class ObservationPolicy:
    """An agent that sees the environment's observations, as an oracle asks its policies.

    Attributes:
        predict: The agent: float32 observations of shape (N, I) to N of the problem's actions.
        params: The problem whose environment it plays.
    """

    predict: Predict
    params: LayerSplitParams

    def __call__(
        self,
        split_points_N: IntArray,
        link_states_NK: FloatArray,
        steps_N: IntArray,
        /,
        *codecs_N: IntArray,
    ) -> IntArray:
        """Show the agent what the environment would, and return its actions.

        Raises:
            UserError: If they are not one of the problem's actions for each state.
        """
        none_N = np.zeros_like(steps_N)
        (codecs,) = codecs_N or (none_N,)
        state = State(split_points_N, codecs, link_states_NK, steps_N, rows_N=none_N)
        actions = self.predict(observation(self.params, state))
        return checked_actions(actions, len(split_points_N), number_of_actions(self.params))
