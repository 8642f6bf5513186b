"""Random signs and a block-Hadamard rotation: they spread an outlier over its block's elements.

A quantiser's step follows the largest element. Hidden states of language models have a few channels
that are far larger than the rest; after the rotation none is, so the same bits resolve more. It is
orthogonal: an error has the same norm before and after.

Shape suffixes: B sequences, T positions, D hidden size, R blocks, E elements of a block.
"""

# torch types some of its functions in part only:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import torch
from torch import Tensor

from raysplit.link.codec.agreed import hadamard, signs
from raysplit.link.codec.codec import rotation_block

# Of a token's largest element. Sums of 64 whole numbers up to this size are exact in float32, so a
# token's code is the same in whatever order a device adds, and whatever it is batched with.
_STEPS = 2.0**17
_SMALLEST_STEP = torch.finfo(torch.float32).tiny


def rotate(values_BTD: Tensor) -> Tensor:
    """Flip signs, then rotate each block; float32, exact to 2^-18 of a token's largest element."""
    return _mixed(values_BTD * signs(values_BTD.shape[-1], values_BTD.device))


def unrotate(values_BTD: Tensor) -> Tensor:
    """Undo `rotate`."""
    return _mixed(values_BTD).mul_(signs(values_BTD.shape[-1], values_BTD.device))


def step_of(values: Tensor, steps: float) -> Tensor:
    """Return the largest magnitude of the last dimension, kept with size 1, over so many steps.

    It is above 0 for zeros too, and NaN where an element is.
    """
    # On a CPU some ten times as fast as torch's infinity norm or aminmax.
    largest = values.abs().amax(dim=-1, keepdim=True)
    return largest.div_(steps).clamp_(min=_SMALLEST_STEP)


def _mixed(values_BTD: Tensor) -> Tensor:
    """Multiply each block by the Hadamard matrix over its root: symmetric, its own inverse."""
    block = rotation_block(values_BTD.shape[-1])
    step_BT1 = step_of(values_BTD, _STEPS)
    whole_BTRE = (values_BTD / step_BT1).round_().unflatten(-1, (-1, block))
    mixed_BTRE = whole_BTRE @ hadamard(block, values_BTD.device)
    return mixed_BTRE.flatten(-2).mul_(step_BT1 / block**0.5)
