"""What every split point would have given along the link path that an episode met.

The link moves by itself, whatever the agent does (an exogenous input; Mao et al., "Variance
Reduction for Reinforcement Learning in Input-Driven Environments", ICLR 2019; Sinclair et al.,
"Hindsight Learning for MDPs with Exogenous Inputs", ICML 2023). So a path that was met says what
any other way along it would have earned. Only drift follows the split point: there the link is the
one that the direct way from the visited split point leads to, as in `envs.link_chain`.

Shape suffixes: M observations, P split points, A actions, K link coordinates, I observation
columns, X any leading axes.
"""

from __future__ import annotations

import numpy as np

from envs.dynamics import drifted, reward, targets_of_actions
from envs.params import LayerSplitParams
from envs.sources import PPLSource
from raysplit.base.arrays import Float32Array, FloatArray


def at_every_split_point(params: LayerSplitParams, obs_MI: Float32Array) -> Float32Array:
    """Return what would have been observed at each split point at that time, shape (M, P, I)."""
    links, split_points_P = len(params.link_names), params.split_points_P
    obs_MPI = np.repeat(obs_MI[:, None, :], len(split_points_P), axis=1)
    if params.drift_per_layer:
        moved_MP = split_points_P - obs_MI[:, links, None].astype(np.int64)
        links_XK = obs_MPI[..., :links].reshape(-1, links).astype(np.float64)
        drifted_XK = drifted(params, links_XK, moved_MP.ravel())
        obs_MPI[..., :links] = drifted_XK.reshape(*moved_MP.shape, links)
    obs_MPI[..., links] = split_points_P
    return obs_MPI


def arrival_rewards(
    params: LayerSplitParams, source: PPLSource, obs_XI: Float32Array
) -> FloatArray:
    """Return the reward of arriving in each observation, shape (X,), in one call of the source.

    Raises:
        UserError: If the source gives a value that no reward can be made of.
    """
    links = len(params.link_names)
    states_NI = obs_XI.reshape(-1, obs_XI.shape[-1])
    # Rounding to float32 may leave the range that a source covers.
    links_NK = states_NI[:, :links].astype(np.float64)
    links_NK = np.clip(links_NK, params.link_low_K, params.link_high_K)
    split_points_N = states_NI[:, links].astype(np.int64)
    return reward(params, source, split_points_N, links_NK).reshape(obs_XI.shape[:-1])


def steps_of_all_actions(
    params: LayerSplitParams, source: PPLSource, obs_MI: Float32Array, next_obs_MI: Float32Array
) -> tuple[Float32Array, Float32Array]:
    """Return where each action would have led over the link that came next, and its reward there.

    The mean over all split points is taken off the rewards: it is the link's own, alike for every
    action, so it changes no decision and takes most of the link's draws out (Dietterich et al.,
    "Discovering and Removing Exogenous State Variables and Rewards", ICML 2018).

    Args:
        params: The problem.
        source: Asked once.
        obs_MI: Where a step began.
        next_obs_MI: Where the action that was taken led.

    Returns:
        Observations, shape (M, A, I), and rewards, shape (M, A).
    """
    split_points_M = obs_MI[:, len(params.link_names)].astype(np.int64)
    targets_MA = targets_of_actions(params)[:, split_points_M - params.min_split_point].T
    next_obs_MPI = at_every_split_point(params, next_obs_MI)
    rewards_MP = arrival_rewards(params, source, next_obs_MPI)
    relative_MP = rewards_MP - rewards_MP.mean(axis=1, keepdims=True)
    return (
        np.take_along_axis(next_obs_MPI, targets_MA[..., None], axis=1),
        np.take_along_axis(relative_MP, targets_MA, axis=1).astype(np.float32),
    )
