"""The physics of the decision problem: pure functions over frozen parameters.

Both environments and the oracle call these; none has a copy. All is vectorised over episodes.

Shape suffixes: N episodes (or settings), K link coordinates, A actions, P split points (index
0 is `min_split_point`), R rows of a trace. Actions 0, 1, 2 move the split point by -1, 0, +1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri  # pyright: ignore[reportMissingTypeStubs] - scipy is untyped

from envs.checks import checked_answers, chosen_start
from envs.params import ACTIONS, LayerSplitParams
from envs.sources import PPLSource
from raysplit.base.arrays import BoolArray, Float32Array, FloatArray, IntArray

_GAIN_WEIGHT = 10.0  # of the relative gain in the authors' reward


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """Where N episodes stand: split point, link state, steps taken, row of the trace (else 0)."""

    split_points_N: IntArray
    link_states_NK: FloatArray
    steps_N: IntArray
    rows_N: IntArray


def initial_state(
    params: LayerSplitParams,
    episodes: int,
    generator: np.random.Generator,
    options: Mapping[str, Any] | None = None,
) -> State:
    """Draw the start of N episodes: split point and link state uniform on their ranges.

    Args:
        params: The problem.
        episodes: N.
        generator: What draws, whether or not the options replace what was drawn.
        options: The user's `split_point` and `link_state` (`envs.checks.chosen_start`).

    Raises:
        UserError: If an option is outside the problem.
    """
    first, last = params.start_split_points
    split_points_N = generator.integers(first, last + 1, size=episodes)
    steps_N = rows_N = np.zeros(episodes, dtype=np.int64)
    if params.link_dynamics == "trace":
        starts = len(params.trace_RK) - params.episode_steps
        rows_N = generator.integers(0, starts, size=episodes)
        links_NK = params.trace_RK[rows_N]
    else:
        links_NK = _uniform_links(params, episodes, generator)
    if options:
        split_points_N, links_NK = chosen_start(params, split_points_N, links_NK, options)
    return State(split_points_N, links_NK, steps_N, rows_N)


def transition(
    params: LayerSplitParams, state: State, actions_N: IntArray, generator: np.random.Generator
) -> State:
    """Return the next state. A move beyond the first or last split point stays where it is."""
    split_points_N = moved(params, state.split_points_N, actions_N)
    rows_N = state.rows_N
    match params.link_dynamics:
        case "constant":
            moved_N = split_points_N - state.split_points_N
            link_states_NK = drifted(params, state.link_states_NK, moved_N)
        case "iid":
            link_states_NK = _uniform_links(params, len(actions_N), generator)
        case "gauss_markov":
            link_states_NK = _gauss_markov(params, state.link_states_NK, generator)
        case "trace":
            rows_N = rows_N + 1
            link_states_NK = params.trace_RK[rows_N]
    return State(split_points_N, link_states_NK, state.steps_N + 1, rows_N)


def moved(params: LayerSplitParams, split_points_N: IntArray, actions_N: IntArray) -> IntArray:
    """Return the split points after actions 0, 1, 2."""
    target_N = split_points_N + (actions_N - 1)
    return np.minimum(np.maximum(target_N, params.min_split_point), params.max_split_point)


def targets_of_actions(params: LayerSplitParams) -> IntArray:
    """Return the index of the split point that each action leads to, shape (A, P)."""
    actions_A1 = np.arange(ACTIONS)[:, None]
    return moved(params, params.split_points_P, actions_A1) - params.min_split_point


def drifted(params: LayerSplitParams, link_states_NK: FloatArray, moved_N: IntArray) -> FloatArray:
    """Return constant link states after moves of the split point, in layers (up is positive)."""
    if params.drift_per_layer == 0.0:
        return link_states_NK
    factor_N = np.where(moved_N < 0, 1 + params.drift_per_layer, 1 - params.drift_per_layer)
    return link_states_NK * (factor_N ** np.abs(moved_N))[:, None]


def terminated(params: LayerSplitParams, state: State) -> BoolArray:
    """Return which episodes have ended: those that took `episode_steps` steps."""
    return state.steps_N >= params.episode_steps


def observation_bounds(params: LayerSplitParams) -> tuple[Float32Array, Float32Array]:
    """Return the lowest and highest observation; drift may carry a link beyond its range."""
    most_up = (1 + params.drift_per_layer) ** params.episode_steps
    most_down = (1 - params.drift_per_layer) ** params.episode_steps
    low = [*(params.link_low_K * most_down), params.min_split_point]
    high = [*(params.link_high_K * most_up), params.max_split_point]
    if params.observe_step:
        low, high = [*low, 0], [*high, params.episode_steps]
    return np.array(low, dtype=np.float32), np.array(high, dtype=np.float32)


def observation(params: LayerSplitParams, state: State) -> Float32Array:
    """Return (N, K + 1) observations: link state, split point, then the step where observed."""
    links = len(params.link_names)
    out = np.empty((len(state.steps_N), links + 1 + params.observe_step), dtype=np.float32)
    out[:, :links] = state.link_states_NK
    out[:, links] = state.split_points_N
    if params.observe_step:
        out[:, links + 1] = state.steps_N
    return out


def reward(
    params: LayerSplitParams,
    source: PPLSource,
    split_points_N: IntArray,
    link_states_NK: FloatArray,
) -> FloatArray:
    """Return the reward of arriving at split points over link states (Eq. 8), in one source call.

    Raises:
        UserError: If the source gives a value that is not finite, or a PPL that is not above 0.
    """
    if params.drift_per_layer:
        # A source covers the stated range only; drift leaves it by a fraction of a per cent.
        link_states_NK = np.clip(link_states_NK, params.link_low_K, params.link_high_K)
    if params.reward != "authors":
        ppl_N = checked_answers(params, source, split_points_N, link_states_NK)
        cost_N = _cost(params, split_points_N, link_states_NK)
        reward_N = -(ppl_N / params.ppl_scale + params.cost_weight * cost_N)
    else:
        gain_N = _relative_gain(params, source, split_points_N, link_states_NK)
        spared_N = (params.max_split_point - split_points_N) / params.max_split_point
        reward_N = _GAIN_WEIGHT * gain_N + spared_N
    return reward_N


def _cost(
    params: LayerSplitParams, split_points_N: IntArray, link_states_NK: FloatArray
) -> FloatArray:
    """Return what each split point costs, at its link state where that counts."""
    row_N, axis_X = split_points_N - params.min_split_point, params.cost_axis_X
    if not len(axis_X):
        return params.cost_P[row_N]
    x_N = np.clip(link_states_NK[:, 0], axis_X[0], axis_X[-1])
    right_N = np.searchsorted(axis_X[1:-1], x_N, side="right") + 1
    share_N = (x_N - axis_X[right_N - 1]) / (axis_X[right_N] - axis_X[right_N - 1])
    left_cost_N, right_cost_N = params.cost_PX[row_N, right_N - 1], params.cost_PX[row_N, right_N]
    return (1 - share_N) * left_cost_N + share_N * right_cost_N


def _relative_gain(
    params: LayerSplitParams,
    source: PPLSource,
    split_points_N: IntArray,
    link_states_NK: FloatArray,
) -> FloatArray:
    """Return 1 - PPL(p, state) / PPL(p_min, state)."""
    if source.quantity == "relative_gain":
        return checked_answers(params, source, split_points_N, link_states_NK)
    asked_N = len(split_points_N)
    first_N = np.full(asked_N, params.min_split_point)
    ppl_2N = checked_answers(
        params,
        source,
        np.concatenate([split_points_N, first_N]),
        np.concatenate([link_states_NK, link_states_NK]),
    )
    return 1.0 - ppl_2N[:asked_N] / ppl_2N[asked_N:]


def _uniform_links(
    params: LayerSplitParams, episodes: int, generator: np.random.Generator
) -> FloatArray:
    return params.link_states_at(generator.random((episodes, len(params.link_names))))


def _gauss_markov(
    params: LayerSplitParams, link_states_NK: FloatArray, generator: np.random.Generator
) -> FloatArray:
    span_K = params.link_high_K - params.link_low_K
    unit_NK = (link_states_NK - params.link_low_K) / span_K
    # The ends of the range are at infinity in z: step inside by less than a float32 resolves.
    z_NK: FloatArray = ndtri(np.clip(unit_NK, 1e-12, 1 - 1e-12))
    noise_NK = generator.standard_normal(z_NK.shape)
    rho = params.correlation
    next_unit_NK: FloatArray = ndtr(rho * z_NK + np.sqrt(1 - rho**2) * noise_NK)
    return params.link_states_at(next_unit_NK)
