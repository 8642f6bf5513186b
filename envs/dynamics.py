"""The physics of the decision problem: pure functions over frozen parameters.

Both environments and the oracle call these; none has a copy. All is vectorised over episodes.

Shape suffixes: N episodes (or settings), K link coordinates, P split points (index 0 is
`min_split_point`), R rows of a trace. Actions 0, 1, 2 move the split point by -1, 0, +1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri  # pyright: ignore[reportMissingTypeStubs] - scipy is untyped

from envs.grid import FloatArray, IntArray
from envs.params import LayerSplitParams, params_from
from envs.ppl_source import QUANTITIES, MeasuredSource, PPLSource, SwitchingSource, ask
from raysplit.errors import UserError

__all__ = [
    "ACTIONS",
    "LayerSplitParams",
    "State",
    "check_source",
    "chosen_state",
    "drifted",
    "fingerprint",
    "initial_state",
    "moved",
    "observation",
    "observation_bounds",
    "params_from",
    "reward",
    "terminated",
    "transition",
]

ACTIONS = 3
_GAIN_WEIGHT = 10.0  # of the relative gain in the authors' reward


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """Where N episodes stand: split point, link state, steps taken, row of the trace (else 0)."""

    split_points_N: IntArray
    link_states_NK: FloatArray
    steps_N: IntArray
    rows_N: IntArray


def initial_state(params: LayerSplitParams, episodes: int, generator: np.random.Generator) -> State:
    """Draw the start of N episodes: split point and link state uniform on their ranges."""
    first, last = params.start_split_points
    split_points_N = generator.integers(first, last + 1, size=episodes)
    steps_N = np.zeros(episodes, dtype=np.int64)
    if params.link_dynamics == "trace":
        starts = len(params.trace_RK) - params.episode_steps
        rows_N = generator.integers(0, starts, size=episodes)
        return State(split_points_N, params.trace_RK[rows_N], steps_N, rows_N)
    return State(split_points_N, _uniform_links(params, episodes, generator), steps_N, steps_N)


def chosen_state(params: LayerSplitParams, drawn: State, options: Mapping[str, Any]) -> State:
    """Return a drawn start with its `split_point` or `link_state` replaced by the user's.

    Args:
        params: The problem.
        drawn: N drawn starts.
        options: `split_point`: an int or shape (N,); `link_state`: shape (K,) or (N, K).

    Raises:
        UserError: If an option is unknown, a value is outside the problem, or the link follows a
            trace.
    """
    unknown = sorted(options.keys() - {"split_point", "link_state"})
    if unknown:
        raise UserError(f"reset has no option '{unknown[0]}'; it has split_point and link_state")
    split_points_N, link_states_NK = drawn.split_points_N, drawn.link_states_NK
    if "split_point" in options:
        chosen = np.asarray(options["split_point"], dtype=np.int64)
        split_points_N = np.broadcast_to(chosen, split_points_N.shape)
    if "link_state" in options:
        if params.link_dynamics == "trace":
            raise UserError("a trace gives the link states: reset without the option link_state")
        chosen = np.asarray(options["link_state"], dtype=np.float64)
        link_states_NK = np.broadcast_to(chosen, link_states_NK.shape)
    beyond = (split_points_N < params.min_split_point) | (split_points_N > params.max_split_point)
    inside = (link_states_NK >= params.link_low_K) & (link_states_NK <= params.link_high_K)
    if beyond.any() or not inside.all():
        raise UserError(
            f"reset options leave the problem: split point within {params.min_split_point}.."
            f"{params.max_split_point}, link state within {params.link_low_K.tolist()}.."
            f"{params.link_high_K.tolist()}"
        )
    return State(split_points_N, link_states_NK, drawn.steps_N, drawn.rows_N)


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


def drifted(params: LayerSplitParams, link_states_NK: FloatArray, moved_N: IntArray) -> FloatArray:
    """Return constant link states after moves of the split point, in layers (up is positive)."""
    if params.drift_per_layer == 0.0:
        return link_states_NK
    factor_N = np.where(moved_N < 0, 1 + params.drift_per_layer, 1 - params.drift_per_layer)
    return link_states_NK * (factor_N ** np.abs(moved_N))[:, None]


def terminated(params: LayerSplitParams, state: State) -> NDArray[np.bool_]:
    """Return which episodes have ended: those that took `episode_steps` steps."""
    return state.steps_N >= params.episode_steps


def observation_bounds(params: LayerSplitParams) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the lowest and highest observation; drift may carry a link beyond its range."""
    most_up = (1 + params.drift_per_layer) ** params.episode_steps
    most_down = (1 - params.drift_per_layer) ** params.episode_steps
    low = [*(params.link_low_K * most_down), params.min_split_point]
    high = [*(params.link_high_K * most_up), params.max_split_point]
    if params.observe_step:
        low, high = [*low, 0], [*high, params.episode_steps]
    return np.array(low, dtype=np.float32), np.array(high, dtype=np.float32)


def observation(params: LayerSplitParams, state: State) -> NDArray[np.float32]:
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
        UserError: If the source gives a value that is not finite.
    """
    if params.drift_per_layer:
        # A source knows the stated range only; drift leaves it by a fraction of a per cent.
        link_states_NK = np.clip(link_states_NK, params.link_low_K, params.link_high_K)
    if params.reward == "objective":
        ppl_N = ask(source, split_points_N, link_states_NK)
        cost_N = params.cost_P[split_points_N - params.min_split_point]
        reward_N = -(ppl_N / params.ppl_scale + params.cost_weight * cost_N)
    else:
        gain_N = _relative_gain(params, source, split_points_N, link_states_NK)
        spared_N = (params.max_split_point - split_points_N) / params.max_split_point
        reward_N = _GAIN_WEIGHT * gain_N + spared_N
    if not np.isfinite(reward_N).all():
        raise _not_finite(params, split_points_N, link_states_NK, reward_N)
    return reward_N


def check_source(params: LayerSplitParams, source: PPLSource) -> None:
    """Refuse a source that cannot serve the problem's reward.

    Raises:
        UserError: If the source does not say what it gives, or the reward needs PPL and it gives
            relative gains.
    """
    quantity = getattr(source, "quantity", None)
    if quantity not in QUANTITIES:
        raise UserError(
            f"the source's quantity is {quantity!r}; wrap a callable of (split points, link "
            'states) with envs.ppl_source.as_source(f, quantity="ppl" or "relative_gain")'
        )
    if params.reward == "objective" and source.quantity != "ppl":
        raise UserError(
            f"reward: objective needs PPL and this source gives {source.quantity}; "
            "use reward: authors, or a source of PPL"
        )


def fingerprint(params: LayerSplitParams, source: PPLSource) -> str:
    """Return what tells one source from another: its answers at a handful of settings.

    Of a source whose answers have to be measured, only its kind.
    """
    if isinstance(source, MeasuredSource | SwitchingSource):
        return type(source).__name__
    ends_P = np.array([params.min_split_point, params.max_split_point])
    span_K = params.link_high_K - params.link_low_K
    links_LK = params.link_low_K + np.array([[0.0], [0.3], [0.8], [1.0]]) * span_K
    rows = len(ends_P) * len(links_LK)
    values_N = ask(source, np.repeat(ends_P, rows // 2), np.tile(links_LK, (2, 1)))
    return " ".join([source.quantity, *(f"{value:.5g}" for value in values_N)])


def _relative_gain(
    params: LayerSplitParams,
    source: PPLSource,
    split_points_N: IntArray,
    link_states_NK: FloatArray,
) -> FloatArray:
    """Return 1 - PPL(p, state) / PPL(p_min, state)."""
    if source.quantity == "relative_gain":
        return ask(source, split_points_N, link_states_NK)
    asked_N = len(split_points_N)
    first_N = np.full(asked_N, params.min_split_point)
    ppl_2N = ask(
        source,
        np.concatenate([split_points_N, first_N]),
        np.concatenate([link_states_NK, link_states_NK]),
    )
    if (ppl_2N <= 0).any():
        raise UserError(
            f"the source gave a perplexity of {ppl_2N.min():g}; it must be greater than 0"
        )
    return 1.0 - ppl_2N[:asked_N] / ppl_2N[asked_N:]


def _uniform_links(
    params: LayerSplitParams, episodes: int, generator: np.random.Generator
) -> FloatArray:
    unit_NK = generator.random((episodes, len(params.link_names)))
    return params.link_low_K + unit_NK * (params.link_high_K - params.link_low_K)


def _gauss_markov(
    params: LayerSplitParams, link_states_NK: FloatArray, generator: np.random.Generator
) -> FloatArray:
    span_K = params.link_high_K - params.link_low_K
    unit_NK = (link_states_NK - params.link_low_K) / span_K
    # The ends of the range are at infinity in z: step inside by less than a float32 can see.
    z_NK: FloatArray = ndtri(np.clip(unit_NK, 1e-12, 1 - 1e-12))
    noise_NK = generator.standard_normal(z_NK.shape)
    rho = params.correlation
    next_unit_NK: FloatArray = ndtr(rho * z_NK + np.sqrt(1 - rho**2) * noise_NK)
    return params.link_low_K + span_K * next_unit_NK


def _not_finite(
    params: LayerSplitParams,
    split_points_N: IntArray,
    link_states_NK: FloatArray,
    reward_N: FloatArray,
) -> UserError:
    n = int(np.flatnonzero(~np.isfinite(reward_N))[0])
    state = ", ".join(
        f"{name} {value:.6g}"
        for name, value in zip(params.link_names, link_states_NK[n], strict=True)
    )
    return UserError(
        f"the reward is {reward_N[n]} at split point {split_points_N[n]}, {state}: "
        "the PPL source must give finite values over the whole problem"
    )
