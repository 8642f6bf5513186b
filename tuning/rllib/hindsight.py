"""Advantages of all actions along the link path that an episode met, in place of sampled returns.

A sampled return differs far more by the link's draws than by the action. The link path
w_0 .. w_T of an episode is the same whatever is done (`envs.hindsight`), and a source of rewards
answers for every split point, so by backward recursion under the present policy pi

    Q_t(p, a) = r(p', w_(t+1)) - c(p, p', w_(t+1)) + discount * V_(t+1)(p'),   p' = p moved by a,
    V_t(p) = sum_a pi(a | p, w_t) Q_t(p, a),      A_t(p, a) = Q_t(p, a) - V_t(p).

With c what moving costs. Their expectation over paths is that of the policy's own values, and what
the path gives to all actions alike cancels. Nothing is bootstrapped unless a rollout is cut within
an episode.

Shape suffixes: T steps, N parallel envs, M of their observations, P places (`envs.params`),
A actions, I observation columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from ray.rllib.core.columns import Columns

from envs.actions import targets_of_actions
from envs.hindsight import arrival_rewards, at_every_place, moving_costs
from envs.params import LayerSplitParams
from envs.sources import PPLSource
from raysplit.base.arrays import BoolArray, Float32Array, FloatArray, IntArray
from tuning.rllib.module import ActorCritic


@dataclass(frozen=True, slots=True, kw_only=True)
class HindsightRows:
    """What is learned from T steps of N envs; rows of resets hold numbers without meaning.

    Attributes:
        advantages_TNA: Of every action where the episode stood.
        log_probs_TNA: Of every action, under the policy that acted.
        values_TN: V of where the episode stood: the critic's target.
    """

    advantages_TNA: Float32Array
    log_probs_TNA: Float32Array
    values_TN: Float32Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Hindsight:
    """Computes `HindsightRows` of one problem.

    Attributes:
        params: The problem.
        source: Where its perplexities come from.
        discount: Discount factor.
        bootstraps: Whether rollouts may be cut within an episode: the critic's value then stands
            for the steps to come.
    """

    params: LayerSplitParams
    source: PPLSource
    discount: float
    bootstraps: bool

    @classmethod
    def of_config(cls, config: Any) -> Hindsight | None:  # noqa: ANN401 - RLlib's, by its base class
        """Return what an RLlib configuration asks for; None where advantages are sampled."""
        if not config.learner_config_dict["hindsight"]:
            return None
        return cls(
            params=config.env_config["params"],
            source=config.env_config["source"],
            discount=config.gamma,
            bootstraps=config.vf_loss_coeff > 0,
        )

    def rows(
        self,
        net: ActorCritic,
        obs_TNI: Float32Array,
        terminated_TN: BoolArray,
        valid_TN: BoolArray,
    ) -> HindsightRows:
        """Return the advantages of all actions, in one call of the source.

        Args:
            net: The policy that acted, and the critic.
            obs_TNI: Observations, shape (T + 1, N, I).
            terminated_TN: The episode ended here.
            valid_TN: A step of the problem, which led to the next row's observation.
        """
        steps, envs, columns = obs_TNI.shape
        obs_MPI = at_every_place(self.params, obs_TNI.reshape(-1, columns))
        obs_TNPI = obs_MPI.reshape(steps, envs, *obs_MPI.shape[1:])
        log_probs_TNPA = _log_probs(net, obs_TNPI[:-1])
        ends_TNP = np.zeros(obs_TNPI.shape[:-1])
        if self.bootstraps:
            ends_TNP = _values(net, obs_TNPI)
        q_TNPA = action_values(
            rewards_TNPA=self._rewards(net, obs_TNI, obs_TNPI, valid_TN),
            policy_TNPA=np.exp(log_probs_TNPA),
            ends_TNP=ends_TNP,
            terminated_TN=terminated_TN,
            valid_TN=valid_TN,
            targets_PA=targets_of_actions(self.params).T,
            discount=self.discount,
        )
        visited_TN11 = self.params.observed_places(obs_TNI[:-1])[..., None, None]
        q_TNA = np.take_along_axis(q_TNPA, visited_TN11, axis=2)[:, :, 0]
        log_probs_TNA = np.take_along_axis(log_probs_TNPA, visited_TN11, axis=2)[:, :, 0]
        values_TN = (np.exp(log_probs_TNA) * q_TNA).sum(-1)
        return HindsightRows(
            advantages_TNA=(q_TNA - values_TN[..., None]).astype(np.float32),
            log_probs_TNA=log_probs_TNA,
            values_TN=values_TN.astype(np.float32),
        )

    def _rewards(
        self,
        net: ActorCritic,
        obs_TNI: Float32Array,
        obs_TNPI: Float32Array,
        valid_TN: BoolArray,
    ) -> FloatArray:
        """Return the scaled reward of each action at each place, 0 in rows of resets."""
        targets_PA = targets_of_actions(self.params).T
        rewards_MP = arrival_rewards(self.params, self.source, obs_TNPI[1:][valid_TN])
        rewards_MPA = rewards_MP[:, targets_PA] - moving_costs(self.params, obs_TNI[1:][valid_TN])
        rewards_TNPA = np.zeros((*valid_TN.shape, *targets_PA.shape))
        rewards_TNPA[valid_TN] = net.rewards(rewards_MPA.astype(np.float32))
        return rewards_TNPA


def action_values(
    *,
    rewards_TNPA: FloatArray,
    policy_TNPA: FloatArray | Float32Array,
    ends_TNP: FloatArray,
    terminated_TN: BoolArray,
    valid_TN: BoolArray,
    targets_PA: IntArray,
    discount: float,
) -> FloatArray:
    """Return Q of each action at each place along the link paths, shape (T, N, P, A).

    Args:
        rewards_TNPA: Of each action at each place.
        policy_TNPA: Probability of each action at each place.
        ends_TNP: What a place is worth where a path is cut, shape (T + 1, N, P).
        terminated_TN: The episode ended here, and what comes after is worth nothing.
        valid_TN: A step of the problem; the row behind an episode's last is none.
        targets_PA: Index of the place that each action leads to.
        discount: Discount factor.
    """
    q_TNPA = np.empty(policy_TNPA.shape)
    later_NP = ends_TNP[-1]
    for t in reversed(range(len(q_TNPA))):
        goes_on_N1 = ~terminated_TN[t][:, None]
        arrived_NP = discount * later_NP * goes_on_N1
        q_TNPA[t] = rewards_TNPA[t] + arrived_NP[:, targets_PA]
        expected_NP = (policy_TNPA[t] * q_TNPA[t]).sum(-1)
        later_NP = np.where(valid_TN[t][:, None], expected_NP, ends_TNP[t])
    return q_TNPA


def standardised_over_actions(advantages_BA: Float32Array) -> Float32Array:
    """Return advantages with root mean square 1; under the policy their mean is 0 as it is."""
    return advantages_BA / max(float(np.sqrt(np.square(advantages_BA).mean())), 1e-8)


def _log_probs(net: ActorCritic, obs_TNPI: Float32Array) -> Float32Array:
    with torch.no_grad():
        logits = net.policy_outputs(torch.from_numpy(obs_TNPI).flatten(0, -2))
        log_probs = torch.log_softmax(logits, -1).numpy()
    return cast(Float32Array, log_probs.reshape(*obs_TNPI.shape[:-1], -1))


def _values(net: ActorCritic, obs_TNPI: Float32Array) -> FloatArray:
    with torch.no_grad():
        values = net.compute_values({Columns.OBS: torch.from_numpy(obs_TNPI).flatten(0, -2)})
    return values.numpy().reshape(obs_TNPI.shape[:-1]).astype(np.float64)
