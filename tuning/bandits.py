"""Linear contextual bandits as baselines: LinUCB and linear Thompson sampling.

They see the link and the place, and learn the reward of the next step for each action, without
looking further ahead. The model is linear in hat functions of the link coordinates, apart for each
action and place, so that it can be as sharp as an agent's network (`tuning.rllib.features`):

    r(x, a) = theta_a . phi(x),   B_a = I + sum phi phi',   theta_a = B_a^-1 sum r phi
    LinUCB     argmax_a theta_a . phi + width sqrt(phi' B_a^-1 phi)      (Li et al., WWW 2010)
    Thompson   argmax_a theta . phi,  theta ~ N(theta_a, width^2 B_a^-1) (Agrawal, Goyal, ICML 2013)

Rewards are scaled by the mean and standard deviation of the first step's. What has been learned is
played greedily.

Shape suffixes: N episodes, K link coordinates, A actions, F features (H hats of each coordinate),
P places.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from envs.actions import number_of_actions
from envs.params import LayerSplitParams
from envs.sources import PPLSource
from envs.vector import LayerSplitVectorEnv
from raysplit.base.arrays import FloatArray, IntArray

Bandit = Literal["linucb", "thompson"]
BANDITS: tuple[Bandit, ...] = ("linucb", "thompson")

_HATS = 8
_ENVS = 80
_WIDTHS: dict[Bandit, float] = {"linucb": 0.5, "thompson": 0.3}


@dataclass(frozen=True, slots=True, eq=False)
class BanditPolicy:
    """Takes the action with the largest predicted next reward.

    Attributes:
        params: The problem.
        theta_APF: What was learned.
    """

    params: LayerSplitParams
    theta_APF: FloatArray

    def __call__(
        self,
        split_points_N: IntArray,
        link_states_NK: FloatArray,
        steps_N: IntArray,
        /,
        *codecs_N: IntArray,
    ) -> IntArray:
        """Return the actions."""
        places_N = self.params.places(np.asarray(split_points_N, dtype=np.int64), *codecs_N)
        features_NF = _features(self.params, link_states_NK)
        return np.einsum("nf,anf->na", features_NF, self.theta_APF[:, places_N]).argmax(axis=1)


def train_bandit(
    params: LayerSplitParams, source: PPLSource, kind: Bandit, total_steps: int, seed: int
) -> BanditPolicy:
    """Let a bandit play so many steps and return what it learned.

    Args:
        params: The problem.
        source: Where its perplexities come from.
        kind: Which one.
        total_steps: Steps of the environment, in rounds of 80 episodes side by side.
        seed: Of the environment and of Thompson's draws.
    """
    rng = np.random.default_rng(seed)
    env = LayerSplitVectorEnv(params, source, _ENVS)
    features = _HATS * len(params.link_names)
    sums_shape = (number_of_actions(params), len(params.split_points_P), features)
    precision_APFF = np.tile(np.eye(features), (*sums_shape[:2], 1, 1))
    weighted_APF = np.zeros(sums_shape)
    obs_NI = env.reset(seed=seed)[0]
    centre, scale, played = 0.0, 0.0, 0
    while played < total_steps:
        for _ in range(params.episode_steps):
            places_N = params.observed_places(obs_NI)
            features_NF = _features(params, obs_NI[:, : len(params.link_names)].astype(np.float64))
            mean_NA, spread_NA = _predicted(
                features_NF, precision_APFF[:, places_N], weighted_APF[:, places_N]
            )
            # Of Thompson's draws only phi . theta counts: each episode draws its own theta.
            draws = 1.0 if kind == "linucb" else rng.standard_normal(mean_NA.shape)
            actions_N = (mean_NA + _WIDTHS[kind] * spread_NA * draws).argmax(axis=1)
            obs_NI, rewards_N, *_ = env.step(actions_N)
            if not scale:
                centre, scale = float(rewards_N.mean()), max(float(rewards_N.std()), 1e-8)
            scaled_N1 = ((rewards_N - centre) / scale)[:, None]
            outer_NFF = features_NF[:, :, None] * features_NF[:, None, :]
            np.add.at(precision_APFF, (actions_N, places_N), outer_NFF)
            np.add.at(weighted_APF, (actions_N, places_N), scaled_N1 * features_NF)
        played += params.episode_steps * _ENVS
        obs_NI = env.step(np.zeros(_ENVS, dtype=np.int64))[0]  # only resets
    theta_APF1 = np.linalg.solve(precision_APFF, weighted_APF[..., None])
    return BanditPolicy(params, theta_APF1[..., 0].astype(np.float64))


def _predicted(
    features_NF: FloatArray, precision_ANFF: FloatArray, weighted_ANF: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return each action's mean and standard deviation, (N, A) each."""
    features_ANF = np.broadcast_to(features_NF, weighted_ANF.shape)
    columns = np.stack([weighted_ANF, features_ANF], axis=-1)
    theta_ANF, solved_ANF = np.moveaxis(np.linalg.solve(precision_ANFF, columns), -1, 0)
    mean_AN = (features_ANF * theta_ANF).sum(axis=-1)
    return mean_AN.T, np.sqrt((features_ANF * solved_ANF).sum(axis=-1)).T


def _features(params: LayerSplitParams, links_NK: FloatArray) -> FloatArray:
    """Return the hats of all link coordinates, (N, F)."""
    shares_NK = (links_NK - params.link_low_K) / (params.link_high_K - params.link_low_K)
    at_NK1 = np.clip(shares_NK, 0, 1)[..., None] * (_HATS - 1)
    return np.maximum(0.0, 1.0 - np.abs(at_NK1 - np.arange(_HATS))).reshape(len(links_NK), -1)
