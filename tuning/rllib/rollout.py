"""What a lean env runner hands to a lean learner, and advantages computed from it.

Shape suffixes: T steps, N parallel envs, I observation columns, A actions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raysplit.base.arrays import BoolArray, Float32Array, IntArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """T steps of N envs side by side, as arrays.

    With NEXT_STEP autoreset the step after an episode's end only resets: its action is ignored
    and its reward is 0. Such a row is kept, because its observation is where the episode ended,
    but `valid_TN` is False there and it is never learned from.

    Attributes:
        obs_TNI: Observations, shape (T + 1, N, I); the last are where the rollout stopped.
        actions_TN: Actions taken.
        log_probs_TN: Their log-probability under the policy that took them.
        rewards_TN: Rewards.
        terminated_TN: The episode ended here, and what comes after is worth nothing.
        ended_TN: The episode ended here, be it terminated or truncated.
        valid_TN: A step of the problem and not a reset.
    """

    obs_TNI: Float32Array
    actions_TN: IntArray
    log_probs_TN: Float32Array
    rewards_TN: Float32Array
    terminated_TN: BoolArray
    ended_TN: BoolArray
    valid_TN: BoolArray

    @property
    def steps(self) -> int:
        """The number of steps that count."""
        return int(self.valid_TN.sum())


def advantages(
    rollout: Rollout, values_TN: Float32Array, discount: float, gae_lambda: float
) -> tuple[Float32Array, Float32Array]:
    """Return generalised advantages and value targets, each (T, N), float32.

    A_t = d_t + discount * gae_lambda * A_(t+1), d_t = r_t + discount * V(o_(t+1)) - V(o_t)
    (Schulman et al. 2016, Eq. 16), cut where an episode ends; rows that are not valid hold
    numbers without meaning.

    Args:
        rollout: T steps of N envs.
        values_TN: Values of all observations, shape (T + 1, N).
        discount: Discount factor.
        gae_lambda: 0 trusts the values, 1 trusts the rewards.
    """
    future_TN = discount * values_TN[1:] * ~rollout.terminated_TN
    delta_TN = rollout.rewards_TN + future_TN - values_TN[:-1]
    carried_TN = discount * gae_lambda * ~rollout.ended_TN
    advantages_TN = np.empty(delta_TN.shape, np.float32)
    following_N = np.zeros_like(delta_TN[0])
    for t in reversed(range(len(delta_TN))):
        following_N = delta_TN[t] + carried_TN[t] * following_N
        advantages_TN[t] = following_N
    return advantages_TN, advantages_TN + values_TN[:-1]


def standardised(values_B: Float32Array) -> Float32Array:
    """Return values with mean 0 and standard deviation 1 (0 where all are equal)."""
    return (values_B - values_B.mean()) / max(float(values_B.std()), 1e-8)
