"""What moving the split costs in the middle of a request.

The next token needs the keys and values of all earlier ones in the layers that change sides.

p -> p + m: the phone computes those layers over the whole context, from the hidden states h_p that
    it kept; nothing crosses the air.
p -> p - m: the edge needs them: sent as they are, m times, or as the hidden states h_(p-m), once,
    from which it computes the layers. What takes fewer bits is sent, keys and values where both
    take as many, either in the codec of the hidden states. No round trip is counted: the next token
    waits for one anyway.

Decoder layers are alike, so the costs are the same for every p.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from raysplit.base.errors import UserError
from raysplit.budget.bits import bits_per_token
from raysplit.budget.compute import pass_s
from raysplit.budget.setup import Device, Setup
from raysplit.model.sizes import Sizes


@dataclass(frozen=True, slots=True)
class Move:
    """One move of the split point.

    Attributes:
        sends: What crosses the air.
        seconds: How long the request waits for it.
        ue_energy_j: Energy of the phone, in J.
        bits: Bits on the air.
    """

    sends: Literal["nothing", "hidden states", "keys and values"]
    seconds: float
    ue_energy_j: float
    bits: float


@dataclass(frozen=True, slots=True)
class MovingCosts:
    """A move in either direction.

    Attributes:
        up: p -> p + m, which must fit into the phone.
        down: p -> p - m.
    """

    up: Move
    down: Move


def moving_costs(
    sizes: Sizes, setup: Setup, codec: str, context_tokens: int, layers: int = 1
) -> MovingCosts:
    """Return what moving the split point by so many layers costs.

    Args:
        sizes: The model's.
        setup: Phone, edge and network.
        codec: What hidden states, or keys and values, are sent as.
        context_tokens: Tokens whose keys and values are needed, at least 1.
        layers: m, at least 1.

    Raises:
        UserError: The codec is unknown or cannot serve what is sent, or there is no context, or no
            layer.
    """
    if context_tokens < 1:
        raise UserError(f"a context of {context_tokens} tokens has no cache to move; at least 1")
    if layers < 1:
        raise UserError(f"a move of {layers} layers is none; at least 1")
    up_s = _layers_s(sizes, setup.phone, context_tokens, layers)
    up = Move("nothing", up_s, up_s * setup.phone.compute_power_w, 0.0)
    return MovingCosts(up=up, down=_down(sizes, setup, codec, context_tokens, layers))


def _down(sizes: Sizes, setup: Setup, codec: str, tokens: int, layers: int) -> Move:
    network = setup.network
    hidden_bits = bits_per_token(codec, sizes.hidden_size)
    kv_bits = layers * bits_per_token(codec, sizes.kv_elements)
    bits = float(tokens * min(hidden_bits, kv_bits))
    air_s = network.air_s(bits)
    energy_j = network.radio_power_w * air_s
    if kv_bits <= hidden_bits:
        return Move("keys and values", air_s, energy_j, bits)
    edge_s = _layers_s(sizes, setup.edge, tokens, layers)
    energy_j += setup.phone.wait_power_w * edge_s
    return Move("hidden states", air_s + edge_s, energy_j, bits)


def _layers_s(sizes: Sizes, device: Device, tokens: int, layers: int) -> float:
    """Seconds of some layers over a whole context."""
    some = np.array([layers])
    return float(pass_s(sizes, device, some, tokens, np.array([tokens]), head=False)[0, 0])
