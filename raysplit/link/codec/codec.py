"""A codec by its name: what it does to a hidden state, and the bits that a token takes on the air.

name                   what is sent of each token
identity               its hidden state as it was computed
bf16, fp16             the same in 16 bits an element
fp8, int8, int4, int3  so many bits an element, and one 16-bit scale
int4/64                one 16-bit scale for each group of 64 elements instead
int4-rotated/64        random signs and a Hadamard rotation first (`raysplit.link.codec.rotation`)
int4-unbiased/64       a dither known to both ends: the mean error of an element is zero
top25%                 the quarter of the elements with the largest magnitude, bf16, and where
                       they stand
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Literal

from raysplit.base.errors import UserError, suggest

CODEC_FORMAT = 2
"""Raised by hand when a codec other than `identity` gives other values than before."""
SCALE_BITS = 16
"""A scale travels as bfloat16."""

Kind = Literal["identity", "bf16", "fp16", "fp8", "int8", "int4", "int3", "top"]

_PLAIN: dict[str, Kind] = {"identity": "identity", "bf16": "bf16", "fp16": "fp16"}
_QUANTISED: dict[str, Kind] = {"fp8": "fp8", "int8": "int8", "int4": "int4", "int3": "int3"}
_QUANTISED_NAME = re.compile(r"([a-z]+\d)(-rotated)?(-unbiased)?(?:/([1-9]\d*))?")
_TOP_NAME = re.compile(r"top([1-9]\d?)%")
_HEADS = (
    *_PLAIN,
    *(f"{kind}{form}" for kind in _QUANTISED for form in ("", "-rotated", "-unbiased")),
    "top10%", "top25%", "top50%",
)  # fmt: skip
LARGEST_ROTATION, SMALLEST_ROTATION = 64, 8
"""Elements that are rotated together: so many at most, and at least."""


@dataclass(frozen=True, slots=True)
class Codec:
    """One codec; equal names are equal codecs.

    Attributes:
        name: As users write it.
        kind: What an element becomes.
        rotated: Whether signs and a Hadamard rotation come before the quantiser.
        unbiased: Whether the quantiser dithers.
        group: Elements that share a scale; None where the whole token does, or nothing is scaled.
        kept_percent: Share of the elements that `top` keeps, in percent; 100 for the others.

    Raises:
        UserError: If no codec has that name.
    """

    name: str
    kind: Kind = field(init=False, repr=False, compare=False)
    rotated: bool = field(init=False, repr=False, compare=False, default=False)
    unbiased: bool = field(init=False, repr=False, compare=False, default=False)
    group: int | None = field(init=False, repr=False, compare=False, default=None)
    kept_percent: int = field(init=False, repr=False, compare=False, default=100)

    def __post_init__(self) -> None:
        for name, value in _parsed(self.name).items():
            object.__setattr__(self, name, value)

    def __str__(self) -> str:
        return self.name

    @property
    def quantised(self) -> bool:
        """Whether an element becomes a code of few bits, with a scale."""
        return self.kind in _QUANTISED

    @property
    def halfway(self) -> bool:
        """Whether codes stand for the values halfway between whole numbers.

        All 2^bits of them are then used, and none is zero. After a rotation few elements are near
        zero, and the finer step takes an eighth off the squared error of 4 bits, a quarter of 3.
        The outermost are the largest element itself: a channel far above the others makes all of
        its block nearly so, and must not shrink. Without a rotation most elements are small beside
        such a channel, and zero serves them best.
        """
        return self.rotated and not self.unbiased and self.kind in ("int4", "int3")

    @property
    def element_bits(self) -> int | None:
        """Bits of an element that is sent; None where that depends on what computes it."""
        return None if self.kind == "identity" else 16 if not self.quantised else int(self.kind[-1])

    def bits_per_token(self, hidden_size: int, *, computed_bits: int = 16) -> int:
        """Return the exact bits that a token takes on the air, scales and positions included.

        Args:
            hidden_size: Elements of a hidden state.
            computed_bits: Bits of an element as the phone computes it: what `identity` sends.

        Raises:
            UserError: If the codec cannot serve the hidden size.
        """
        self.check_hidden_size(hidden_size)
        elements = self.kept(hidden_size) * (self.element_bits or computed_bits)
        if self.kind == "top":
            return elements + self._position_bits(hidden_size)
        return elements + self.scales(hidden_size) * SCALE_BITS

    def kept(self, hidden_size: int) -> int:
        """Return how many elements of a token are sent."""
        return -(-hidden_size * self.kept_percent // 100)

    def scales(self, hidden_size: int) -> int:
        """Return how many scales a token has."""
        return hidden_size // (self.group or hidden_size) if self.quantised else 0

    def check_hidden_size(self, hidden_size: int) -> None:
        """Refuse a hidden size that the codec cannot serve.

        Raises:
            UserError: With the value, the rule and the remedy.
        """
        if self.group is not None and hidden_size % self.group:
            near = _divisors_near(hidden_size, self.group)
            raise UserError(
                f"codec {self.name} cannot serve a vector of {hidden_size} elements, which "
                f"{self.group} does not divide: take a group of {near}"
            )
        if self.rotated and rotation_block(hidden_size) < SMALLEST_ROTATION:
            raise UserError(
                f"codec {self.name} cannot serve a vector of {hidden_size} elements, which "
                f"{SMALLEST_ROTATION} does not divide: leave -rotated out"
            )

    def _position_bits(self, hidden_size: int) -> int:
        """A mask of all elements, or the index of each that is kept, whichever is shorter."""
        index_bits = max(1, math.ceil(math.log2(hidden_size)))
        return min(hidden_size, self.kept(hidden_size) * index_bits)


def rotation_block(hidden_size: int) -> int:
    """Return the elements that are rotated together: a power of two that divides the size."""
    return math.gcd(hidden_size, LARGEST_ROTATION)


def _parsed(name: str) -> dict[str, Kind | bool | int | None]:
    """Return the fields of a codec's name."""
    if name in _PLAIN:
        return {"kind": _PLAIN[name]}
    if kept := _TOP_NAME.fullmatch(name):
        return {"kind": "top", "kept_percent": int(kept[1])}
    found = _QUANTISED_NAME.fullmatch(name)
    if found is None or found[1] not in _QUANTISED:
        raise _unknown(name)
    kind, rotated, unbiased, group = found.groups()
    if kind == "fp8" and unbiased:
        raise UserError(f"codec {name}: fp8 steps are uneven, so no dither makes it unbiased")
    if group == "1":
        raise UserError(f"codec {name}: a scale for each element saves nothing; take a group of 2+")
    return {
        "kind": _QUANTISED[kind],
        "rotated": rotated is not None,
        "unbiased": unbiased is not None,
        "group": int(group) if group else None,
    }


def _unknown(name: str) -> UserError:
    head, slash, group = name.partition("/")
    near = suggest(head.lower(), _HEADS)
    if near and slash and "top" not in near:
        near = f"{near[:-2]}/{group if re.fullmatch('[1-9][0-9]+', group) else 64}'?"
    return UserError(
        f"unknown codec '{name}'; known: {', '.join(_PLAIN)}, {', '.join(_QUANTISED)} (with "
        f"-rotated, -unbiased, groups: int4-rotated/64), top25%{near}"
    )


def _divisors_near(hidden_size: int, group: int) -> str:
    """Return the divisors just below and above a group, in words."""
    divisors = [d for d in range(2, hidden_size + 1) if hidden_size % d == 0]
    below = [d for d in divisors if d < group][-1:]
    above = [d for d in divisors if d > group][:1]
    return " or ".join(map(str, below + above))


IDENTITY = Codec("identity")
"""Sends hidden states as they were computed."""
