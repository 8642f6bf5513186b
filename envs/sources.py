"""Where the environments get perplexities from: a callable or a surrogate.

A source answers (split points, link states) with one number per setting, for all settings of a
step at once. Those that hold a grid of values are in `envs.grid_sources`. Shape suffixes: N
settings, K link coordinates.

Columns have no names of their own, so a source that was made of named ones carries `link_names`,
and is refused where a problem has its coordinates in another order. A callable has none, unless
they are given with it: it must take the coordinates as the problem lists them.

Any callable serves:

    >>> source = as_source(lambda p, link: 16.0 * np.exp(link[:, 0] / p), quantity="ppl")
    >>> source(np.array([1, 2]), np.array([[0.0], [0.0]])).tolist()
    [16.0, 16.0]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast, get_args

import numpy as np

from raysplit.base.arrays import FloatArray, IntArray
from raysplit.base.errors import UserError

Quantity = Literal["ppl", "relative_gain"]
QUANTITIES = get_args(Quantity)
_INT64, _FLOAT64 = np.dtype(np.int64), np.dtype(np.float64)
Answer = Callable[[IntArray, FloatArray], FloatArray]


class PPLSource(Protocol):
    """What the environments and the oracle ask for perplexities."""

    @property
    def quantity(self) -> Quantity:
        """`ppl`, or `relative_gain`: 1 - PPL(p, state) / PPL(p_min, state)."""
        ...

    def __call__(self, split_points_N: IntArray, link_states_NK: FloatArray) -> FloatArray:
        """Return one value per setting, shape (N,)."""
        ...


@dataclass(frozen=True, slots=True)
class CallableSource:
    """A source from any callable; `as_source` makes it."""

    answer: Answer
    quantity: Quantity
    link_names: tuple[str, ...] | None = None

    def __call__(self, split_points_N: IntArray, link_states_NK: FloatArray) -> FloatArray:
        """Ask the callable."""
        return self.answer(split_points_N, link_states_NK)


@dataclass(frozen=True, slots=True)
class PerCodecSource:
    """A source for each codec, for problems that choose among them.

    Attributes:
        codecs: Their names, in the problem's order.
        sources: One each, of the same quantity and link coordinates.
    """

    codecs: tuple[str, ...]
    sources: tuple[PPLSource, ...]

    @property
    def quantity(self) -> Quantity:
        """That of the first."""
        return self.sources[0].quantity

    @property
    def link_names(self) -> tuple[str, ...] | None:
        """Those of the first."""
        return link_names_of(self.sources[0])

    @property
    def measures(self) -> bool:
        """Whether each new answer is a measurement."""
        return getattr(self.sources[0], "measures", False)

    def __call__(
        self,
        split_points_N: IntArray,
        link_states_NK: FloatArray,
        codecs_N: IntArray | None = None,
    ) -> FloatArray:
        """Ask each codec's source for its settings.

        `codecs_N` are indices into `codecs`; None asks for the first everywhere.
        """
        if codecs_N is None:
            return self.sources[0](split_points_N, link_states_NK)
        values_N = np.empty(len(split_points_N))
        for codec, source in enumerate(self.sources):
            its_N = codecs_N == codec
            if its_N.any():
                values_N[its_N] = ask(source, split_points_N[its_N], link_states_NK[its_N])
        return values_N


def codecs_of(source: PPLSource) -> tuple[str, ...]:
    """Return the codecs that a source tells apart; none of most."""
    return getattr(source, "codecs", ())


def ask(
    source: PPLSource,
    split_points_N: IntArray,
    link_states_NK: FloatArray,
    codecs_N: IntArray | None = None,
) -> FloatArray:
    """Return a source's answers as float64, shape (N,).

    `codecs_N` goes to a `PerCodecSource`, and to no other. The source gets copies: it may write
    into them. Split points are int64 there, so that its arithmetic cannot wrap around.

    Raises:
        UserError: If it does not give one number per setting.
    """
    is_int64 = split_points_N.dtype is _INT64  # a copy is quicker than a conversion
    points_N = split_points_N.copy() if is_int64 else split_points_N.astype(np.int64)
    if codecs_N is None:
        answer: Any = source(points_N, link_states_NK.copy())
    else:
        answer = cast(PerCodecSource, source)(points_N, link_states_NK, codecs_N)
    plain = type(answer) is np.ndarray and answer.dtype is _FLOAT64  # most are, and it is quick
    values_N = answer if plain else _numbers(answer)
    if values_N.shape != split_points_N.shape:
        raise UserError(
            f"the PPL source gave shape {values_N.shape} for {len(split_points_N)} settings; "
            f"it must return one number per setting, shape ({len(split_points_N)},)"
        )
    return values_N


def _numbers(answer: Any) -> FloatArray:  # noqa: ANN401 - whatever the source returned
    if hasattr(answer, "detach"):  # a torch tensor, maybe with a gradient, maybe on a GPU
        answer = answer.detach().cpu()
    try:
        values = np.asarray(answer)
        if values.dtype.kind not in "iufO":  # NumPy would read text and drop imaginary parts
            raise TypeError(f"they are of type {values.dtype}")
        return values.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"the PPL source gave no array of real numbers ({error}); it must return one number "
            "per setting"
        ) from None


def quantity_of(source: PPLSource) -> Quantity:
    """Return what a source gives.

    Raises:
        UserError: If it does not say so, as a bare function cannot.
    """
    return checked_quantity(getattr(source, "quantity", None))


def checked_quantity(quantity: object) -> Quantity:
    """Return a quantity that the environments can use.

    Raises:
        UserError: If it is another.
    """
    if quantity not in QUANTITIES:
        raise UserError(
            f"the source's quantity is {quantity!r}, not 'ppl' or 'relative_gain'; wrap a function "
            "of (split points, link states) with envs.sources.as_source(f, quantity=...)"
        )
    return cast(Quantity, quantity)


def link_names_of(source: PPLSource) -> tuple[str, ...] | None:
    """Return the link coordinates that a source expects, in column order; None if unknown."""
    return getattr(source, "link_names", None)


def as_source(
    answer: Answer, *, quantity: Quantity, link_names: tuple[str, ...] | None = None
) -> CallableSource:
    """Make a source of any callable (split_points_N, link_states_NK) -> values_N.

    Args:
        answer: Gets split points, shape (N,), int64, and link states, shape (N, K), float64, with
            the coordinates in the problem's order and units.
        quantity: What it returns: `ppl`, greater than 0, or `relative_gain`:
            1 - PPL(p, state) / PPL(p_min, state).
        link_names: The coordinates that it expects, in column order. A problem with others, or in
            another order, then refuses it.

    Raises:
        UserError: If the quantity is unknown.
    """
    return CallableSource(answer, checked_quantity(quantity), link_names)


class LogPPLModel(Protocol):
    """A surrogate of log PPL, such as `raysplit.surrogate.Surrogate`.

    Its `link_names`, where it has them, are the source's.
    """

    def predict_log_ppl(
        self,
        split_points_N: IntArray,
        link_states_NK: FloatArray,
        codecs_N: IntArray | None = None,
    ) -> tuple[FloatArray, FloatArray]:
        """Return mean and standard deviation of log PPL, shape (N,) each.

        It gets `codecs_N`, each setting's index of a codec, where that is not the first of several.
        """
        ...


@dataclass(frozen=True, slots=True)
class SurrogateSource:
    """PPL as a surrogate predicts it, for one of its codecs."""

    surrogate: LogPPLModel
    quantity: Quantity = "ppl"
    codec: int = 0

    @property
    def link_names(self) -> tuple[str, ...] | None:
        """The coordinates that the surrogate was fitted on."""
        return getattr(self.surrogate, "link_names", None)

    def __call__(self, split_points_N: IntArray, link_states_NK: FloatArray) -> FloatArray:
        """Return the exponential of the predicted mean of log PPL."""
        codecs_N = () if self.codec == 0 else (np.full(len(split_points_N), self.codec),)
        return np.exp(self.surrogate.predict_log_ppl(split_points_N, link_states_NK, *codecs_N)[0])
