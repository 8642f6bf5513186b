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
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri  # pyright: ignore[reportMissingTypeStubs] - scipy is untyped

from envs.params import LayerSplitParams, params_from
from envs.sources import (
    MeasuredSource,
    PPLSource,
    Quantity,
    SwitchingSource,
    ask,
    quantity_of,
)
from raysplit.base.arrays import BoolArray, Float32Array, FloatArray, IntArray
from raysplit.base.errors import UserError, suggest

__all__ = [
    "ACTIONS",
    "LayerSplitParams",
    "State",
    "check_source",
    "checked_actions",
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
_ABOVE = {"ppl": 0.0, "relative_gain": -np.inf}  # what a source's values are greater than
_RESET_OPTIONS = {"split_point": "iu", "link_state": "iuf"}  # with the kinds of number they take


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
    for name in options.keys() - _RESET_OPTIONS.keys():
        hint = suggest(name, _RESET_OPTIONS)
        raise UserError(f"reset has no option '{name}', only {', '.join(_RESET_OPTIONS)}{hint}")
    split_points_N, link_states_NK = drawn.split_points_N, drawn.link_states_NK
    if "split_point" in options:
        split_points_N = _chosen("split_point", options, split_points_N)
    if "link_state" in options:
        if params.link_dynamics == "trace":
            raise UserError("a trace gives the link states: reset without the option link_state")
        link_states_NK = _chosen("link_state", options, link_states_NK)
    beyond = (split_points_N < params.min_split_point) | (split_points_N > params.max_split_point)
    inside = (link_states_NK >= params.link_low_K) & (link_states_NK <= params.link_high_K)
    if beyond.any() or not inside.all():
        raise UserError(
            f"reset options leave the problem: split point within {params.min_split_point}.."
            f"{params.max_split_point}, link state within {params.link_low_K.tolist()}.."
            f"{params.link_high_K.tolist()}"
        )
    return State(split_points_N, link_states_NK, drawn.steps_N, drawn.rows_N)


def _chosen(name: str, options: Mapping[str, Any], drawn: NDArray[Any]) -> NDArray[Any]:
    try:
        chosen = np.asarray(options[name])
        if chosen.dtype.kind not in _RESET_OPTIONS[name]:
            raise ValueError(f"a {chosen.dtype} is none")
        return np.broadcast_to(chosen, drawn.shape).astype(drawn.dtype)
    except ValueError as error:
        raise UserError(
            f"reset option {name} {options[name]!r} is not one for each of {len(drawn)} "
            f"episode(s), nor one for all ({error})"
        ) from None


def checked_actions(actions: ArrayLike, episodes: int) -> IntArray:
    """Return the actions of N episodes as an array.

    Raises:
        UserError: If they are not one integer 0, 1 or 2 for each episode.
    """
    actions_N = np.asarray(actions)
    if not (
        actions_N.shape == (episodes,)
        and actions_N.dtype.kind in "iu"
        # Taking the extreme at its index is several times as fast as `min` and `max`.
        and actions_N[actions_N.argmin()] >= 0
        and actions_N[actions_N.argmax()] < ACTIONS
    ):
        raise UserError(
            f"the actions are {np.array2string(actions_N, threshold=6)}; give one of the integers "
            f"0, 1, 2 for each of {episodes} episode(s)"
        )
    return actions_N


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
        # A source knows the stated range only; drift leaves it by a fraction of a per cent.
        link_states_NK = np.clip(link_states_NK, params.link_low_K, params.link_high_K)
    if params.reward == "objective":
        ppl_N = _ask(params, source, split_points_N, link_states_NK)
        cost_N = params.cost_P[split_points_N - params.min_split_point]
        reward_N = -(ppl_N / params.ppl_scale + params.cost_weight * cost_N)
    else:
        gain_N = _relative_gain(params, source, split_points_N, link_states_NK)
        spared_N = (params.max_split_point - split_points_N) / params.max_split_point
        reward_N = _GAIN_WEIGHT * gain_N + spared_N
    return reward_N


def check_source(params: LayerSplitParams, source: PPLSource) -> None:
    """Refuse a source that cannot serve the problem's reward.

    Raises:
        UserError: If the source does not say what it gives, or the reward needs PPL and it gives
            relative gains.
    """
    quantity = quantity_of(source)
    if params.reward == "objective" and quantity != "ppl":
        raise UserError(
            f"reward: objective needs PPL and this source gives {quantity}; "
            "use reward: authors, or a source of PPL"
        )


def fingerprint(params: LayerSplitParams, source: PPLSource) -> str:
    """Return what tells one source from another: its answers at eight settings.

    Of a source whose answers have to be measured, only its kind; of one that answers a question
    differently when it is asked again, only that it does.

    Raises:
        UserError: If the source cannot serve the problem's reward, or an answer is none.
    """
    check_source(params, source)
    if isinstance(source, MeasuredSource | SwitchingSource):
        return type(source).__name__
    # At the first split point every relative gain is 0, so it tells nothing.
    upper_N = np.linspace(params.min_split_point + 1, params.max_split_point, 8).astype(np.int64)
    links_NK = _uniform_links(params, len(upper_N), np.random.default_rng(0))
    again_N = np.append(np.arange(len(upper_N)), 0)
    *values, repeated = _ask(params, source, upper_N[again_N], links_NK[again_N]).tolist()
    if repeated != values[0]:
        return f"{source.quantity} at random"
    # Four digits are the same on every processor.
    return " ".join([source.quantity, *(f"{value:.4g}" for value in values)])


def _ask(
    params: LayerSplitParams,
    source: PPLSource,
    split_points_N: IntArray,
    link_states_NK: FloatArray,
) -> FloatArray:
    """Ask a source, and refuse what no reward can be made of."""
    values_N = ask(source, split_points_N, link_states_NK)
    # A NaN counts as the extreme. Taking it at its index is several times as fast as `min`.
    least, most = values_N[values_N.argmin()], values_N[values_N.argmax()]
    if not (least > _ABOVE[source.quantity] and most < np.inf):
        raise _refused(params, source.quantity, split_points_N, link_states_NK, values_N)
    return values_N


def _relative_gain(
    params: LayerSplitParams,
    source: PPLSource,
    split_points_N: IntArray,
    link_states_NK: FloatArray,
) -> FloatArray:
    """Return 1 - PPL(p, state) / PPL(p_min, state)."""
    if source.quantity == "relative_gain":
        return _ask(params, source, split_points_N, link_states_NK)
    asked_N = len(split_points_N)
    first_N = np.full(asked_N, params.min_split_point)
    ppl_2N = _ask(
        params,
        source,
        np.concatenate([split_points_N, first_N]),
        np.concatenate([link_states_NK, link_states_NK]),
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


def _refused(
    params: LayerSplitParams,
    quantity: Quantity,
    split_points_N: IntArray,
    link_states_NK: FloatArray,
    values_N: FloatArray,
) -> UserError:
    right_N = np.isfinite(values_N) & (values_N > _ABOVE[quantity])
    n = int(np.flatnonzero(~right_N)[0])
    state = ", ".join(
        f"{name} {value:.6g}"
        for name, value in zip(params.link_names, link_states_NK[n], strict=True)
    )
    rule = "finite and greater than 0" if quantity == "ppl" else "finite"
    return UserError(
        f"the PPL source gave a {quantity} of {values_N[n]} at split point {split_points_N[n]}, "
        f"{state}: it must be {rule} over the whole problem"
    )
