"""What every split point would have given along the link path that an episode met.

The link moves by itself, whatever the agent does (an exogenous input; Mao et al., "Variance
Reduction for Reinforcement Learning in Input-Driven Environments", ICLR 2019; Sinclair et al.,
"Hindsight Learning for MDPs with Exogenous Inputs", ICML 2023). So a path that was met says what
any other way along it would have earned. Only drift follows the split point: there the link is the
one that the direct way from the visited split point leads to, as in `envs.link_chain`.

Shape suffixes: M observations, P places (`envs.params`), A actions, K link coordinates, I
observation columns, X any leading axes.
"""

from __future__ import annotations

import numpy as np

from envs.actions import targets_of_actions
from envs.dynamics import drifted, moving_cost, reward
from envs.params import LayerSplitParams
from envs.sources import PPLSource
from raysplit.base.arrays import Float32Array, FloatArray, IntArray


def at_every_place(params: LayerSplitParams, obs_MI: Float32Array) -> Float32Array:
    """Return what would have been observed at each place at that time, shape (M, P, I)."""
    links, split_points_P = len(params.link_names), params.split_points_P
    obs_MPI = np.repeat(obs_MI[:, None, :], len(split_points_P), axis=1)
    if params.drift_per_layer:
        moved_MP = split_points_P - obs_MI[:, links, None].astype(np.int64)
        links_XK = obs_MPI[..., :links].reshape(-1, links).astype(np.float64)
        drifted_XK = drifted(params, links_XK, moved_MP.ravel())
        obs_MPI[..., :links] = drifted_XK.reshape(*moved_MP.shape, links)
    obs_MPI[..., links] = split_points_P
    if params.chooses_codec:
        obs_MPI[..., links + 1] = params.codecs_P
    return obs_MPI


def arrival_rewards(
    params: LayerSplitParams, source: PPLSource, obs_XI: Float32Array
) -> FloatArray:
    """Return the reward of arriving in each observation, shape (X,), in one call of the source.

    Raises:
        UserError: If the source gives a value that no reward can be made of.
    """
    states_NI = obs_XI.reshape(-1, obs_XI.shape[-1])
    places_N = params.observed_places(states_NI)
    split_points_N, codecs_N = params.split_points_P[places_N], params.codecs_P[places_N]
    rewards_N = reward(params, source, split_points_N, _links(params, states_NI), codecs_N)
    return rewards_N.reshape(obs_XI.shape[:-1])


def moving_costs(params: LayerSplitParams, next_obs_MI: Float32Array) -> FloatArray:
    """Return what each action's move costs from each place, over the link that came next.

    Shape (M, P, A), or (1, 1, 1) where moving is free.
    """
    if not params.moving_PPX.size:
        return np.zeros((1, 1, 1))
    targets_PA = targets_of_actions(params).T
    places, actions = targets_PA.shape
    from_P = np.arange(places, dtype=np.int64)
    from_N: IntArray = np.tile(np.repeat(from_P, actions), len(next_obs_MI))
    to_N = np.tile(targets_PA.ravel(), len(next_obs_MI))
    links_NK = np.repeat(_links(params, next_obs_MI), targets_PA.size, axis=0)
    return moving_cost(params, from_N, to_N, links_NK).reshape(-1, places, actions)


def _links(params: LayerSplitParams, obs_NI: Float32Array) -> FloatArray:
    """Return observed link states; rounding to float32 may leave the range that a source covers."""
    links_NK = obs_NI[:, : len(params.link_names)].astype(np.float64)
    return np.clip(links_NK, params.link_low_K, params.link_high_K)


def steps_of_all_actions(
    params: LayerSplitParams, source: PPLSource, obs_MI: Float32Array, next_obs_MI: Float32Array
) -> tuple[Float32Array, Float32Array]:
    """Return where each action would have led over the link that came next, and its reward there.

    The mean over all places is taken off the rewards: it is the link's own, alike for every
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
    places_M = params.observed_places(obs_MI)
    targets_MA = targets_of_actions(params)[:, places_M].T
    next_obs_MPI = at_every_place(params, next_obs_MI)
    rewards_MP = arrival_rewards(params, source, next_obs_MPI)
    relative_MP = rewards_MP - rewards_MP.mean(axis=1, keepdims=True)
    rewards_MA = np.take_along_axis(relative_MP, targets_MA, axis=1)
    if params.moving_PPX.size:
        rewards_MA = (
            rewards_MA - moving_costs(params, next_obs_MI)[np.arange(len(obs_MI)), places_M]
        )
    return (
        np.take_along_axis(next_obs_MPI, targets_MA[..., None], axis=1),
        rewards_MA.astype(np.float32),
    )
