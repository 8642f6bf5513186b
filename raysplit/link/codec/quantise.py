"""Quantisers: an element becomes a whole number of a few bits, or an 8-bit float, times a scale.

A scale is the largest magnitude of its group over the largest code, as bfloat16: it is sent, so
codes are made for the scale that arrives. No element is off by more than half a scale (fp8: by more
than 1/16 of itself, or 2^-10 of a scale where it is that small).

Shape suffixes: B sequences, T positions, D hidden size, G groups of a token, E elements of a group.
"""

# torch types some of its functions in part only:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from raysplit.link.codec.agreed import dither
from raysplit.link.codec.codec import Codec
from raysplit.link.codec.rotation import rotate, step_of, unrotate

LARGEST_CODE = {"fp8": 448, "int8": 127, "int4": 7, "int3": 3}
"""`fp8` is E4M3, which has no infinity."""


@dataclass(frozen=True, slots=True, eq=False)
class Quantised:
    """What goes on the air for hidden states, one token after the other.

    Attributes:
        codes_BTGE: Codes, in float32 (whole numbers) or float8_e4m3fn.
        scales_BTG1: Their scales, float32 that bfloat16 can hold.
    """

    codes_BTGE: Tensor
    scales_BTG1: Tensor


def code_range(codec: Codec) -> tuple[int, int]:
    """Return the lowest and the largest code."""
    largest = LARGEST_CODE[codec.kind]
    return -largest - codec.halfway, largest


def quantise(hidden_BTD: Tensor, codec: Codec) -> Quantised:
    """Return the codes of hidden states; a token's depend on itself and its position alone."""
    values_BTD = hidden_BTD.float()
    if codec.rotated:
        values_BTD = rotate(values_BTD)
    values_BTGE = values_BTD.unflatten(-1, (-1, codec.group or values_BTD.shape[-1]))
    largest = LARGEST_CODE[codec.kind]
    # A dither takes up to half a step of its own; a code halfway stands half a step further out.
    steps = largest - 0.5 * codec.unbiased + 0.5 * codec.halfway
    scales_BTG1 = step_of(values_BTGE, steps).bfloat16().float()
    codes_BTGE = values_BTGE / scales_BTG1
    if codec.kind == "fp8":
        return Quantised(codes_BTGE.to(torch.float8_e4m3fn), scales_BTG1)
    if codec.halfway:
        return Quantised(codes_BTGE.floor_().clamp_(*code_range(codec)), scales_BTG1)
    if codec.unbiased:
        codes_BTGE += _dither_like(codes_BTGE)
    return Quantised(codes_BTGE.round_().clamp_(*code_range(codec)), scales_BTG1)


def dequantise(sent: Quantised, codec: Codec) -> Tensor:
    """Return the hidden states that the edge makes of codes, float32, (B, T, D)."""
    codes_BTGE = sent.codes_BTGE.float()
    if codec.halfway:
        codes_BTGE = codes_BTGE + 0.5
    if codec.unbiased:
        codes_BTGE = codes_BTGE - _dither_like(codes_BTGE)
    values_BTD = (codes_BTGE * sent.scales_BTG1).flatten(-2)
    return unrotate(values_BTD) if codec.rotated else values_BTD


def _dither_like(codes_BTGE: Tensor) -> Tensor:
    """Return the dither (T, G, E): taken away again by the edge, it leaves an error of mean zero.

    Subtractive dither (Schuchman 1964): round(x + u) - u - x is uniform over a step, whatever x.
    """
    positions, groups, group = codes_BTGE.shape[-3:]
    table_TD = dither(positions, groups * group, codes_BTGE.device)
    return table_TD.unflatten(-1, (groups, group))
