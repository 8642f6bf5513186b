"""What the device computes: Eq. 2 of the paper as printed, and exact FLOPs of an architecture.

The exact numbers count two FLOPs for each multiply-add of a matrix product, as torch's
`FlopCounterMode` does, and nothing else (norms, activations, rotations and the embedding's table
look-up are not matrix products). Attention is counted in full, every query against every key: the
plain implementation computes the masked half too. Eq. 2 counts one for each multiply-add, so
even for the architecture that it has in mind it says half of what is counted here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from raysplit.base.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from raysplit.model.sizes import Sizes


def ue_flops_as_printed(p: int, d_in: int, d_mid: int) -> int:
    """Return C_UE(p) by Eq. 2: 12 d_in d_mid^2 + (p - 1) 12 d_mid^3.

    The second term's d_mid^3 is printed so, although every layer sees the same d_in tokens; it
    also leaves out attention scores, grouped-query attention and the gated feed-forward block.

    Args:
        p: Layers on the device, at least 1.
        d_in: Length of the input, in tokens.
        d_mid: Hidden size.

    Raises:
        UserError: p is below 1 (the equation has no such case).
    """
    if p < 1:
        raise UserError(f"Eq. 2 is defined from p = 1 on, got p = {p}")
    return 12 * d_in * d_mid**2 + (p - 1) * 12 * d_mid**3


def layer_flops(config: PreTrainedConfig | Sizes, tokens: int, keys: int | None = None) -> int:
    """Return the FLOPs of one decoder layer for `tokens` positions.

    Projections of query, key, value and output (key and value narrower under grouped-query
    attention), scores and their product with the values, and a gated feed-forward block.

    Args:
        config: The model's sizes.
        tokens: Positions that are computed.
        keys: Positions that each of them attends to; with a cache of keys and values more than
            `tokens`. None: `tokens`, a whole sequence.
    """
    sizes = cast("Any", config)
    head_size = getattr(config, "head_dim", None) or sizes.hidden_size // sizes.num_attention_heads
    query_size = sizes.num_attention_heads * head_size
    kv_size = sizes.num_key_value_heads * head_size
    projections = 2 * sizes.hidden_size * (query_size + kv_size)
    attention = 2 * (tokens if keys is None else keys) * query_size
    feed_forward = 3 * sizes.hidden_size * sizes.intermediate_size
    return int(2 * tokens * (projections + attention + feed_forward))


def head_flops(config: PreTrainedConfig | Sizes, tokens: int) -> int:
    """Return the FLOPs of the head that turns `tokens` hidden states into logits."""
    sizes = cast("Any", config)
    return int(2 * tokens * sizes.hidden_size * sizes.vocab_size)


def whole_flops(config: PreTrainedConfig, tokens: int) -> int:
    """Return the FLOPs of the whole model for a sequence of `tokens`."""
    layers = int(cast("Any", config).num_hidden_layers)
    return ue_flops(config, layers, tokens) + head_flops(config, tokens)


def ue_flops(config: PreTrainedConfig, p: int, tokens: int) -> int:
    """Return the FLOPs on the device: layers [0, p), since the embedding's look-up has none.

    Raises:
        UserError: p is not between 0 and the number of layers.
    """
    layers = int(cast("Any", config).num_hidden_layers)
    if not 0 <= p <= layers:
        raise UserError(f"split point {p} is not within this model; choose 0 <= p <= {layers}")
    return p * layer_flops(config, tokens)


def ue_share(config: PreTrainedConfig, p: int, tokens: int) -> float:
    """Return the device's share of the whole model's FLOPs, in [0, 1].

    The head stays at the edge, so even p = L is below 1.
    """
    return ue_flops(config, p, tokens) / whole_flops(config, tokens)
