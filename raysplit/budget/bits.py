"""Bits that one token takes on the air, by the codec's name (`raysplit.link.codec`).

Headers of the protocols below and entropy coding are not counted.
"""

from __future__ import annotations

import math

from raysplit.link.codec import Codec
from raysplit.link.codec.codec import SMALLEST_ROTATION

GROUP = 64
"""Elements that share a scale, where the hidden size allows it."""


def bits_per_token(codec: str, elements: int) -> int:
    """Return the bits of one token's vector, scales and positions included.

    Args:
        codec: A name; `identity` sends 16 bits an element.
        elements: Elements of the vector: the hidden size d, or a token's keys and values.

    Raises:
        UserError: No codec has that name, or it cannot serve the vector.
    """
    return Codec(codec).bits_per_token(elements)


def usual_codecs(hidden_size: int) -> tuple[str, ...]:
    """Return the codecs that a first look compares, in groups that divide the hidden size."""
    group = math.gcd(hidden_size, GROUP)
    if group < SMALLEST_ROTATION:
        return ("identity", "int8")
    return ("identity", "int8", f"int4-rotated/{group}", f"int3-rotated/{group}")
