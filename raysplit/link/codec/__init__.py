"""Codecs: how hidden states become bits for the air, and what the edge makes of those bits.

`Codec` knows names and sizes and needs no torch; `roundtrip` does the work, on tensors.
"""

from raysplit.link.codec.codec import CODEC_FORMAT, IDENTITY, Codec

__all__ = ["CODEC_FORMAT", "IDENTITY", "Codec"]
