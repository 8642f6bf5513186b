"""Seconds of one pass through layers on a device, by its roofline, and the bytes that they keep.

Shape suffixes: P split points, S decoding steps.
"""

from __future__ import annotations

import numpy as np

from raysplit.base.arrays import FloatArray, IntArray
from raysplit.budget.setup import Device
from raysplit.model.flops import head_flops, layer_flops
from raysplit.model.sizes import Sizes


def pass_s(
    sizes: Sizes, device: Device, layers_P: IntArray, tokens: int, keys_S: IntArray, *, head: bool
) -> FloatArray:
    """Return the seconds of one pass of `tokens` positions, (P, S).

        FLOPs = layers * FLOPs of a layer + FLOPs of the head for the last position
        bytes = weights * bits / 8 + layers * keys * bytes of a token's keys and values
        seconds = max(FLOPs / rate, bytes / bandwidth)

    Weights are read once a pass. The cache is read or written once a position: a prompt writes all
    of it, a decoding step reads what came before and writes one.

    Args:
        sizes: The model's.
        device: Where the layers run.
        layers_P: How many.
        tokens: Positions that are computed: the prompt's, or 1.
        keys_S: Positions that each attends to.
        head: Whether the head runs there too.
    """
    per_key = layer_flops(sizes, tokens, keys=1) - layer_flops(sizes, tokens, keys=0)
    layer_flops_S = layer_flops(sizes, tokens, keys=0) + float(per_key) * keys_S
    flops_PS = np.multiply.outer(layers_P, layer_flops_S) + head * head_flops(sizes, 1)
    weights_P = layers_P * sizes.layer_weights + head * sizes.embedding_weights
    bytes_PS = weights_P[:, None] * device.weight_bits / 8 + np.multiply.outer(
        layers_P * kv_bytes(sizes, device), keys_S
    )
    return np.maximum(flops_PS / device.flops_per_s, bytes_PS / device.bytes_per_s)


def kv_bytes(sizes: Sizes, device: Device) -> float:
    """Return the bytes of one token's keys and values in one layer."""
    return sizes.kv_elements * device.kv_bits / 8


def memory_bytes(
    sizes: Sizes, device: Device, layers_P: IntArray, matrices: int, context_tokens: int
) -> FloatArray:
    """Return the bytes that a device keeps: weights, and the cache of the longest context, (P,).

    Args:
        sizes: The model's.
        device: Where the layers lie.
        layers_P: How many.
        matrices: Embedding and head: how many of the two lie there.
        context_tokens: Positions in the cache.
    """
    weights_P = layers_P * sizes.layer_weights + matrices * sizes.embedding_weights
    return weights_P * device.weight_bits / 8 + layers_P * kv_bytes(sizes, device) * context_tokens
