"""The physics of the decision problem: pure functions over frozen parameters.

Both environments and the oracle call these; none has a copy. All is vectorised over episodes.

Shape suffixes: N episodes (or settings), K link coordinates, P places (`envs.params`), X link
states at which costs are known, R rows of a path. Actions are those of `envs.actions`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri  # pyright: ignore[reportMissingTypeStubs] - scipy is untyped

from envs.actions import arrived
from envs.checks import checked_answers, chosen_start
from envs.params import LayerSplitParams
from envs.sources import PPLSource
from raysplit.base.arrays import BoolArray, Float32Array, FloatArray, IntArray

GAIN_WEIGHT = 10.0
"""Of the relative gain in the authors' reward."""


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """Where N episodes stand.

    Attributes:
        split_points_N: Layers on the device.
        codecs_N: Index of the codec; 0 where the problem chooses none.
        link_states_NK: Link states.
        steps_N: Steps taken.
        rows_N: Row of the path, else 0.
    """

    split_points_N: IntArray
    codecs_N: IntArray
    link_states_NK: FloatArray
    steps_N: IntArray
    rows_N: IntArray

    def places_N(self, params: LayerSplitParams) -> IntArray:
        """Return the index of each episode's place."""
        return params.places(self.split_points_N, self.codecs_N)


def initial_state(
    params: LayerSplitParams,
    episodes: int,
    generator: np.random.Generator,
    options: Mapping[str, Any] | None = None,
) -> State:
    """Draw the start of N episodes: split point, codec and link state uniform on their ranges.

    Args:
        params: The problem.
        episodes: N.
        generator: What draws, whether or not the options replace what was drawn.
        options: The user's `split_point`, `codec` and `link_state` (`envs.checks.chosen_start`).

    Raises:
        UserError: If an option is outside the problem.
    """
    first, last = params.start_split_points
    split_points_N = generator.integers(first, last + 1, size=episodes)
    codecs_N = steps_N = rows_N = np.zeros(episodes, dtype=np.int64)
    if params.chooses_codec:
        codecs_N = generator.integers(0, len(params.codecs), size=episodes)
    if params.link_dynamics in ("trace", "fading"):
        starts = len(params.trace_RK) - params.episode_steps
        rows_N = generator.integers(0, starts, size=episodes)
        links_NK = np.zeros((episodes, params.coordinates))
    else:
        links_NK = _uniform_links(params, episodes, generator)
    if params.contexts:
        links_NK = np.concatenate([links_NK, _drawn_members(params, episodes, generator)], axis=1)
    if params.link_dynamics in ("trace", "fading"):
        links_NK = _on_path(params, rows_N, links_NK)
    if options:
        split_points_N, codecs_N, links_NK = chosen_start(
            params, split_points_N, codecs_N, links_NK, options
        )
    return State(split_points_N, codecs_N, links_NK, steps_N, rows_N)


def transition(
    params: LayerSplitParams, state: State, actions_N: IntArray, generator: np.random.Generator
) -> State:
    """Return the next state."""
    places_N = arrived(params, state.places_N(params), actions_N)
    rows_in_order_N, codecs_N = np.divmod(places_N, len(params.codecs))
    split_points_N = rows_in_order_N + params.min_split_point
    rows_N = state.rows_N
    match params.link_dynamics:
        case "constant":
            moved_N = split_points_N - state.split_points_N
            link_states_NK = drifted(params, state.link_states_NK, moved_N)
        case "iid":
            drawn_NK = _uniform_links(params, len(actions_N), generator)
            link_states_NK = _with_contexts(params, drawn_NK, state.link_states_NK)
        case "gauss_markov":
            link_states_NK = _gauss_markov(params, state.link_states_NK, generator)
        case "trace" | "fading":
            rows_N = rows_N + 1
            link_states_NK = _on_path(params, rows_N, state.link_states_NK)
    return State(split_points_N, codecs_N, link_states_NK, state.steps_N + 1, rows_N)


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
    furthest = params.max_split_point - params.min_split_point
    layers = params.episode_steps * (furthest if params.actions == "absolute" else 1)
    most_up = (1 + params.drift_per_layer) ** layers
    most_down = (1 - params.drift_per_layer) ** layers
    low = [*(params.link_low_K * most_down), params.min_split_point]
    high = [*(params.link_high_K * most_up), params.max_split_point]
    if params.chooses_codec:
        low, high = [*low, 0], [*high, len(params.codecs) - 1]
    if params.observe_step:
        low, high = [*low, 0], [*high, params.episode_steps]
    return np.array(low, dtype=np.float32), np.array(high, dtype=np.float32)


def observation(params: LayerSplitParams, state: State) -> Float32Array:
    """Return observations (N, I): link state, split point, maybe codec, maybe step."""
    links = len(params.link_names)
    columns = links + params.place_columns + params.observe_step
    out = np.empty((len(state.steps_N), columns), dtype=np.float32)
    out[:, :links] = state.link_states_NK
    out[:, links] = state.split_points_N
    if params.chooses_codec:
        out[:, links + 1] = state.codecs_N
    if params.observe_step:
        out[:, -1] = state.steps_N
    return out


def step_reward(
    params: LayerSplitParams, source: PPLSource, before: State, after: State
) -> FloatArray:
    """Return the reward of a step (N,): of where it arrived, less what moving cost.

    Raises:
        UserError: If the source gives a value that no reward can be made of.
    """
    reward_N = reward(params, source, after.split_points_N, after.link_states_NK, after.codecs_N)
    if not params.moving_PPX.size:
        return reward_N
    from_N, to_N = before.places_N(params), after.places_N(params)
    return reward_N - moving_cost(params, from_N, to_N, after.link_states_NK)


def moving_cost(
    params: LayerSplitParams, from_N: IntArray, to_N: IntArray, link_states_NK: FloatArray
) -> FloatArray:
    """Return what moves between places cost over the link that is met, in the reward's unit."""
    if not params.moving_PPX.size:
        return np.zeros(len(to_N))
    cost_NX = params.moving_PPX[from_N, to_N]
    if cost_NX.shape[1] == 1:
        return cost_NX[:, 0]
    return _along_link(params.cost_axis_X, cost_NX, link_states_NK)


def reward(
    params: LayerSplitParams,
    source: PPLSource,
    split_points_N: IntArray,
    link_states_NK: FloatArray,
    codecs_N: IntArray | None = None,
) -> FloatArray:
    """Return the reward of arriving at places over link states (Eq. 8), in one source call.

    `codecs_N` are read where the problem chooses the codec.

    Raises:
        UserError: If the source gives a value that is not finite, or a PPL that is not above 0.
    """
    if params.drift_per_layer:
        # A source covers the stated range only; drift leaves it by a fraction of a per cent.
        link_states_NK = np.clip(link_states_NK, params.link_low_K, params.link_high_K)
    asked_NK = link_states_NK[:, : params.coordinates]
    if params.reward != "authors":
        codecs_N = codecs_N if params.chooses_codec else None
        ppl_N = checked_answers(params, source, split_points_N, asked_NK, codecs_N)
        cost_N = _cost(params, params.places(split_points_N, codecs_N), link_states_NK)
        weight_N = params.context_N("lambda", link_states_NK)
        weight_N = params.cost_weight if weight_N is None else weight_N
        reward_N = -(ppl_N / params.ppl_scale + weight_N * cost_N)
    else:
        gain_N = _relative_gain(params, source, split_points_N, asked_NK)
        spared_N = (params.max_split_point - split_points_N) / params.max_split_point
        reward_N = GAIN_WEIGHT * gain_N + spared_N
    return reward_N


def _cost(params: LayerSplitParams, places_N: IntArray, link_states_NK: FloatArray) -> FloatArray:
    """Return what each place costs, at its link state where that counts."""
    if not len(params.cost_axis_X):
        return params.cost_P[places_N]
    return _along_link(params.cost_axis_X, params.cost_PX[places_N], link_states_NK)


def _along_link(
    axis_X: FloatArray, values_NX: FloatArray, link_states_NK: FloatArray
) -> FloatArray:
    """Interpolate each row's values at its first link coordinate; beyond the axis they stay."""
    x_N = np.clip(link_states_NK[:, 0], axis_X[0], axis_X[-1])
    right_N = np.searchsorted(axis_X[1:-1], x_N, side="right") + 1
    share_N = (x_N - axis_X[right_N - 1]) / (axis_X[right_N] - axis_X[right_N - 1])
    row_N = np.arange(len(x_N))
    return (1 - share_N) * values_NX[row_N, right_N - 1] + share_N * values_NX[row_N, right_N]


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
    low_K, high_K = (x[: params.coordinates] for x in (params.link_low_K, params.link_high_K))
    return low_K + generator.random((episodes, params.coordinates)) * (high_K - low_K)


def _drawn_members(
    params: LayerSplitParams, episodes: int, generator: np.random.Generator
) -> FloatArray:
    """Draw a member of the family for each episode, (N, F)."""
    return np.stack([one.drawn(generator.random(episodes)) for one in params.family], axis=1)


def _with_contexts(
    params: LayerSplitParams, moved_NK: FloatArray, link_states_NK: FloatArray
) -> FloatArray:
    """Return new link coordinates with the values of the member, which stay."""
    if not params.contexts:
        return moved_NK
    return np.concatenate([moved_NK, link_states_NK[:, params.coordinates :]], axis=1)


def _on_path(params: LayerSplitParams, rows_N: IntArray, link_states_NK: FloatArray) -> FloatArray:
    """Return the link states at rows of the path, at each episode's own mean SNR."""
    path_NK = params.trace_RK[rows_N]
    mean_N = params.context_N("mean_snr_db", link_states_NK)
    if mean_N is not None:
        path_NK = path_NK + (mean_N - params.mean_snr_db)[:, None]
    low_K, high_K = (x[: params.coordinates] for x in (params.link_low_K, params.link_high_K))
    return _with_contexts(params, np.clip(path_NK, low_K, high_K), link_states_NK)


def _gauss_markov(
    params: LayerSplitParams, link_states_NK: FloatArray, generator: np.random.Generator
) -> FloatArray:
    low_K, high_K = (x[: params.coordinates] for x in (params.link_low_K, params.link_high_K))
    unit_NK = (link_states_NK[:, : params.coordinates] - low_K) / (high_K - low_K)
    # The ends of the range are at infinity in z: step inside by less than a float32 resolves.
    z_NK: FloatArray = ndtri(np.clip(unit_NK, 1e-12, 1 - 1e-12))
    noise_NK = generator.standard_normal(z_NK.shape)
    rho_N = params.context_N("correlation", link_states_NK)
    rho = params.correlation if rho_N is None else rho_N[:, None]
    next_unit_NK: FloatArray = ndtr(rho * z_NK + np.sqrt(1 - rho**2) * noise_NK)
    moved_NK = low_K + next_unit_NK * (high_K - low_K)
    return _with_contexts(params, moved_NK, link_states_NK)
