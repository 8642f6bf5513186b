"""Hidden states through a codec: encoded by the phone, decoded by the edge.

Shape suffixes: B sequences, T positions, D hidden size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from raysplit.link.codec.codec import Codec
from raysplit.link.codec.quantise import dequantise, quantise


def roundtrip(hidden_BTD: Tensor, codec: Codec) -> Tensor:
    """Return what the edge decodes where nothing is lost.

    Args:
        hidden_BTD: Hidden states of any floating dtype; never modified. A position's result depends
            on that position alone.
        codec: The codec; `Codec.check_hidden_size` says whether it serves.

    Returns:
        Hidden states of the same shape, dtype and device; the tensor itself where the codec changes
        nothing. NaN stays NaN, and what fp16 cannot hold becomes infinite.
    """
    match codec.kind:
        case "identity":
            return hidden_BTD
        case "bf16":
            return hidden_BTD.to(torch.bfloat16).to(hidden_BTD.dtype)
        case "fp16":
            return hidden_BTD.to(torch.float16).to(hidden_BTD.dtype)
        case "top":
            return _largest_alone(hidden_BTD, codec.kept(hidden_BTD.shape[-1]))
        case _:
            return dequantise(quantise(hidden_BTD, codec), codec).to(hidden_BTD.dtype)


def _largest_alone(hidden_BTD: Tensor, kept: int) -> Tensor:
    """Keep so many elements of each token, those of the largest magnitude, as bfloat16.

    Of equal ones the first are kept, so that it does not depend on how a device sorts.
    """
    magnitude_BTD = hidden_BTD.abs()
    smallest_BT1 = magnitude_BTD.topk(kept, dim=-1).values[..., -1:]
    equal_BTD = magnitude_BTD == smallest_BT1
    room_BT1 = kept - (magnitude_BTD > smallest_BT1).sum(dim=-1, keepdim=True)
    dropped_BTD = (magnitude_BTD < smallest_BT1) | (equal_BTD & (equal_BTD.cumsum(-1) > room_BT1))
    return hidden_BTD.to(torch.bfloat16).to(hidden_BTD.dtype).masked_fill(dropped_BTD, 0.0)
