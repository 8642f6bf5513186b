"""What is refused before it is computed with: a user's actions, starts, sources and their answers.

Shape suffixes: N episodes (or settings), K link coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.params import LayerSplitParams
from envs.sources import PPLSource, Quantity, ask, codecs_of, link_names_of, quantity_of
from raysplit.base.arrays import FloatArray, IntArray
from raysplit.base.errors import UserError, suggest

_INT64 = np.dtype(np.int64)
_ABOVE = {"ppl": 0.0, "relative_gain": -np.inf}  # what a source's values are greater than
# With the kinds of number they take.
_RESET_OPTIONS = {"split_point": "iu", "codec": "iu", "link_state": "iuf"}
_SPLIT_ACTIONS = 3


def checked_actions(
    actions: ArrayLike, episodes: int, number_of_actions: int = _SPLIT_ACTIONS
) -> IntArray:
    """Return the actions of N episodes as int64, in which a step down cannot wrap around.

    Raises:
        UserError: If they are not one of so many actions, counted from 0, for each episode.
    """
    actions_N = np.asarray(actions)
    if not (
        actions_N.shape == (episodes,)
        and actions_N.dtype.kind in "iu"
        # Taking the extreme at its index is several times as fast as `min` and `max`.
        and actions_N[actions_N.argmin()] >= 0
        and actions_N[actions_N.argmax()] < number_of_actions
    ):
        known = (
            "0, 1, 2" if number_of_actions == _SPLIT_ACTIONS else f"0 to {number_of_actions - 1}"
        )
        raise UserError(
            f"the actions are {np.array2string(actions_N, threshold=6)}; give one of the integers "
            f"{known} for each of {episodes} episode(s)"
        )
    return actions_N if actions_N.dtype is _INT64 else actions_N.astype(np.int64)


def chosen_start(
    params: LayerSplitParams,
    split_points_N: IntArray,
    codecs_N: IntArray,
    link_states_NK: FloatArray,
    options: Mapping[str, Any],
) -> tuple[IntArray, IntArray, FloatArray]:
    """Return drawn starts with `split_point`, `codec` or `link_state` replaced by the user's.

    Args:
        params: The problem.
        split_points_N: As drawn.
        codecs_N: As drawn, as indices.
        link_states_NK: As drawn.
        options: `split_point`, `codec` (its index): an int or shape (N,); `link_state`: shape (K,)
            or (N, K).

    Raises:
        UserError: If an option is unknown, a value is outside the problem, or the link follows a
            path.
    """
    for name in options.keys() - _RESET_OPTIONS.keys():
        hint = suggest(name, _RESET_OPTIONS)
        raise UserError(f"reset has no option '{name}', only {', '.join(_RESET_OPTIONS)}{hint}")
    if "split_point" in options:
        split_points_N = _chosen("split_point", options, split_points_N)
    if "codec" in options:
        codecs_N = _chosen("codec", options, codecs_N)
        if codecs_N.min() < 0 or codecs_N.max() >= len(params.codecs):
            raise UserError(
                f"reset option codec {options['codec']!r} is no index of the problem's codecs "
                f"({', '.join(params.codecs)}): 0 to {len(params.codecs) - 1}"
            )
    if "link_state" in options:
        if params.link_dynamics in ("trace", "fading"):
            kind = "trace" if params.link_dynamics == "trace" else "path"
            raise UserError(f"a {kind} gives the link states: reset without the option link_state")
        link_states_NK = _chosen("link_state", options, link_states_NK)
    beyond = (split_points_N < params.min_split_point) | (split_points_N > params.max_split_point)
    inside = (link_states_NK >= params.link_low_K) & (link_states_NK <= params.link_high_K)
    if beyond.any() or not inside.all():
        raise UserError(
            f"reset options leave the problem: split point within {params.min_split_point}.."
            f"{params.max_split_point}, link state within {params.link_low_K.tolist()}.."
            f"{params.link_high_K.tolist()}"
        )
    return split_points_N, codecs_N, link_states_NK


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


def check_source(params: LayerSplitParams, source: PPLSource) -> None:
    """Refuse a source that cannot serve the problem's reward.

    Raises:
        UserError: If the source does not say what it gives, the reward needs PPL and it gives
            relative gains, it expects other link coordinates, or the same in another order, or
            other codecs.
    """
    quantity = quantity_of(source)
    if params.reward != "authors" and quantity != "ppl":
        raise UserError(
            f"reward: {params.reward} needs PPL and this source gives {quantity}; "
            "use reward: authors, or a source of PPL"
        )
    names, own = link_names_of(source), params.link_names[: params.coordinates]
    if names is not None and names != own:
        raise UserError(
            f"this source of PPL expects the link coordinates {', '.join(names)} and the problem "
            f"has {', '.join(own)}: list them alike, as the order decides which "
            "column is which"
        )
    codecs = codecs_of(source)
    if params.chooses_codec and codecs != params.codecs:
        knows = f"knows {', '.join(codecs)}" if codecs else "tells no codecs apart"
        raise UserError(
            f"this problem chooses among the codecs {', '.join(params.codecs)} and the source of "
            f"PPL {knows}: give one source a codec with envs.sources.PerCodecSource"
        )


def fingerprint(params: LayerSplitParams, source: PPLSource) -> str:
    """Return a text that differs between sources: the quantity and the answers at eight settings.

    Of a source that measures its answers, only its class; of one that gives two answers
    to one setting, only that it is random.

    Raises:
        UserError: If the source cannot serve the problem's reward, or an answer is none.
    """
    check_source(params, source)
    if getattr(source, "measures", False):
        return type(source).__name__
    # At the first split point every relative gain is 0, whatever the source.
    upper_N = np.linspace(params.min_split_point + 1, params.max_split_point, 8).astype(np.int64)
    shares_NK = np.random.default_rng(0).random((len(upper_N), len(params.link_names)))
    links_NK = params.link_states_at(shares_NK)[:, : params.coordinates]
    again_N = np.append(np.arange(len(upper_N)), 0)
    codecs_N = again_N % len(params.codecs) if params.chooses_codec else None
    answers_N = checked_answers(params, source, upper_N[again_N], links_NK[again_N], codecs_N)
    *values, repeated = answers_N.tolist()
    if repeated != values[0]:
        return f"{source.quantity} at random"
    # Four digits are the same on every processor.
    return " ".join([source.quantity, *(f"{value:.4g}" for value in values)])


def checked_answers(
    params: LayerSplitParams,
    source: PPLSource,
    split_points_N: IntArray,
    link_states_NK: FloatArray,
    codecs_N: IntArray | None = None,
) -> FloatArray:
    """Ask a source for PPL or gains, shape (N,), and refuse what no reward can be made of.

    Raises:
        UserError: If a value is not finite, or a PPL not above 0.
    """
    values_N = ask(source, split_points_N, link_states_NK, codecs_N)
    # A NaN counts as the extreme. Taking it at its index is several times as fast as `min`.
    least, most = values_N[values_N.argmin()], values_N[values_N.argmax()]
    if not (least > _ABOVE[source.quantity] and most < np.inf):
        raise _refused(params, source.quantity, split_points_N, link_states_NK, values_N)
    return values_N


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
        for name, value in zip(
            params.link_names[: params.coordinates], link_states_NK[n], strict=True
        )
    )
    rule = "finite and greater than 0" if quantity == "ppl" else "finite"
    return UserError(
        f"the PPL source gave a {quantity} of {values_N[n]} at split point {split_points_N[n]}, "
        f"{state}: it must be {rule} over the whole problem"
    )
