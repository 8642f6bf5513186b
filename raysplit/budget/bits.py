"""Bits that one token takes on the air, by the codec's name.

name                   what is sent of each token
identity, bf16, fp16   every element in 16 bits
fp8, int8, int4, int3  so many bits an element, and one 16-bit scale
int4/64                one 16-bit scale for each group of 64 elements instead: 4.25 bits
int4-rotated/64        signs and a rotation first, known to both ends, so the same bits
int4-unbiased/64       a dither known to both ends, so the same bits
top25%                 the quarter of the elements with the largest magnitude in 16 bits, and where
                       they stand: a mask of all elements, or the index of each, what is shorter

Headers of the protocols below and entropy coding are not counted.
"""

from __future__ import annotations

import math
import re

from raysplit.base.errors import UserError, suggest

SCALE_BITS = 16
UNQUANTISED_BITS = 16
GROUP = 64
"""Elements that share a scale, where the hidden size allows it."""

_SMALLEST_ROTATION = 8
_PLAIN = ("identity", "bf16", "fp16")
_QUANTISED_BITS = {"fp8": 8, "int8": 8, "int4": 4, "int3": 3}
_QUANTISED = re.compile(r"(fp8|int8|int4|int3)(-rotated)?(-unbiased)?(?:/([1-9]\d*))?")
_TOP = re.compile(r"top([1-9]\d?)%")


def bits_per_token(codec: str, elements: int) -> int:
    """Return the bits of one token's vector, scales and positions included.

    Args:
        codec: A name, as above.
        elements: Elements of the vector: the hidden size d, or a token's keys and values.

    Raises:
        UserError: No codec has that name, or its group does not divide the vector.
    """
    if codec in _PLAIN:
        return elements * UNQUANTISED_BITS
    if top := _TOP.fullmatch(codec):
        kept = math.ceil(elements * int(top[1]) / 100)
        index_bits = max(1, math.ceil(math.log2(elements)))
        return kept * UNQUANTISED_BITS + min(elements, kept * index_bits)
    named = _QUANTISED.fullmatch(codec)
    if named is None:
        raise UserError(
            f"unknown codec {codec!r}; known: {', '.join((*_PLAIN, *_QUANTISED_BITS))} (with "
            f"-rotated, -unbiased, groups: int4-rotated/{GROUP}), top25%"
            f"{suggest(codec, usual_codecs(GROUP))}"
        )
    group = int(named[4] or elements)
    if elements % group:
        raise UserError(
            f"codec {codec} cannot serve a vector of {elements} elements, which {group} does not "
            f"divide: take groups of {math.gcd(elements, GROUP)}"
        )
    return elements * _QUANTISED_BITS[named[1]] + elements // group * SCALE_BITS


def usual_codecs(hidden_size: int) -> tuple[str, ...]:
    """Return the codecs that a first look compares, in groups that divide the hidden size."""
    group = math.gcd(hidden_size, GROUP)
    if group < _SMALLEST_ROTATION:
        return ("identity", "int8")
    return ("identity", "int8", f"int4-rotated/{group}", f"int3-rotated/{group}")
