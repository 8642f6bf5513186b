"""What lm-eval's model arguments say: which experiment, where it is cut, and over which link."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from raysplit.base.errors import UserError, suggest
from raysplit.link.codec import Codec
from raysplit.link.coordinates import link_state
from raysplit.link.state import LINK_COORDINATES, LinkState
from raysplit.measure.setting import Setting
from raysplit.pipeline.experiment import Experiment, load_experiment

_INTEGER = TypeAdapter(Annotated[int, Field(ge=0)])
_NUMBER = TypeAdapter(Annotated[float, Field(allow_inf_nan=False)])
_OWN = ("experiment", "overrides", "split_point", "codec", "seed", "add_bos_token", "max_length")


@dataclass(frozen=True, slots=True)
class SplitArguments:
    """A language model cut at one place, over one state of the link.

    Attributes:
        experiment: Model, kind of link, radio and corpus.
        setting: Split point, state of the link, seed and codec. In `link.mode: digital` the
            state's `snr_db` is the radio's, and what the channel gets is the loss at it.
        add_bos_token: As lm-eval's `hf` has it; None leaves it to the tokenizer.
        max_length: Most tokens that are fed at once; None takes the model's own.
    """

    experiment: Experiment
    setting: Setting
    add_bos_token: bool | None = None
    max_length: int | None = None


def read_arguments(given: dict[str, Any]) -> SplitArguments:
    """Read model arguments.

    Args:
        given: `experiment` (a preset or a file), `overrides` (list of `a.b=c`), `split_point`,
            `codec`, `seed`, the coordinates of the link, `add_bos_token` and `max_length`.

    Raises:
        UserError: One is unknown, missing or impossible.
    """
    known = (*_OWN, *LINK_COORDINATES)
    for name in given:
        if name not in known:
            raise UserError(
                f"unknown model argument '{name}'; known: {', '.join(known)}{suggest(name, known)}"
            )
    one_or_more: str | list[object] = given.get("overrides") or []
    overrides = [one_or_more] if isinstance(one_or_more, str) else list(map(str, one_or_more))
    experiment = load_experiment(str(given.get("experiment", "demo")), overrides)
    add_bos_token = given.get("add_bos_token")
    if add_bos_token not in (None, True, False):
        raise UserError(f"add_bos_token={add_bos_token!r} is not possible: take true or false")
    length = given.get("max_length")
    codec = experiment.problem.codec if given.get("codec") is None else Codec(str(given["codec"]))
    state = _state(given, experiment, codec)
    return SplitArguments(
        experiment,
        Setting(
            _split_point(given, experiment, state, codec),
            state,
            _whole("seed", given.get("seed", 0), "a whole number from 0"),
            codec,
        ),
        add_bos_token,
        None if length is None else _whole("max_length", length, "a whole number of tokens"),
    )


def _split_point(
    given: dict[str, Any], experiment: Experiment, state: LinkState, codec: Codec
) -> int:
    first, last = experiment.problem.min_split_point, experiment.problem.max_split_point
    if "split_point" not in given:
        if state == LinkState() and codec.kind == "identity":
            return first  # over a perfect link all are the same
        raise UserError(
            f"split_point is missing: name one from {first} to {last}, such as "
            f"--model_args split_point={first}"
        )
    value = _whole("split_point", given["split_point"], f"a whole number from {first} to {last}")
    if not first <= value <= last:
        raise UserError(
            f"split_point={value} is not possible: the experiment's problem has {first} to {last}"
        )
    return value


def _state(given: dict[str, Any], experiment: Experiment, codec: Codec) -> LinkState:
    names = [name for name in LINK_COORDINATES if given.get(name) is not None]
    values = [_number(name, given[name]) for name in names]
    if experiment.radio is None:
        state = link_state(names, values, experiment.link)
        experiment.link.check_coordinates(tuple(state.as_dict()))
        return state
    return _over_radio(dict(zip(names, values, strict=True)), experiment, codec)


def _over_radio(given: dict[str, float], experiment: Experiment, codec: Codec) -> LinkState:
    """Return the loss at the radio's SNR."""
    if not given:
        return LinkState()
    if set(given) != {"snr_db"}:
        raise UserError(
            f"link.mode: digital takes snr_db alone, not {', '.join(sorted(given))}: its loss "
            "follows from the radio"
        )
    loss = experiment.token_loss(codec)
    assert loss is not None, "an experiment with a radio has a loss"
    snr_db, low, high = given["snr_db"], loss.snr_db_X[0], loss.snr_db_X[-1]
    if not low <= snr_db <= high:
        raise UserError(
            f"snr_db={snr_db:g} is not possible: the experiment's problem.link.snr_db has "
            f"{low:g} to {high:g}"
        )
    return LinkState(loss_probability=float(loss.at(np.array([snr_db]))[0]))


def _whole(name: str, value: object, rule: str) -> int:
    try:
        return _INTEGER.validate_python(value)
    except ValidationError:
        raise UserError(f"{name}={value!r} is not possible: it must be {rule}") from None


def _number(name: str, value: object) -> float:
    try:
        return _NUMBER.validate_python(value)
    except ValidationError:
        raise UserError(f"{name}={value!r} is not possible: it must be a number") from None


def link_words(setting: Setting) -> Sequence[str]:
    """Return the setting in words, for one line of the terminal."""
    state = [f"{name}={value:g}" for name, value in setting.link.as_dict().items()]
    return [
        f"split point {setting.split_point}",
        f"codec {setting.codec}",
        *(state or ["a perfect link"]),
        f"seed {setting.seed}",
    ]
