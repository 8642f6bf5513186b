"""What each split point costs: seconds, joules, bits and memory, for prompt and answer.

    TTFT = t_UE(prompt) + T b / R + RTT + t_edge(prompt)
    TPOT = t_UE(1 token) + b / R + RTT + t_edge(1 token), the mean over the answer
    E_UE = P_compute t_UE + (P_0 + a R) t_air + P_wait (RTT + t_edge)

b bits a token (`bits`), T tokens of prompt, R the uplink's rate; t by the roofline (`compute`).
The phone has the embedding and layers [0, p), the edge layers [p, L) and the head; the edge's
answer, one token's number, is part of the round trip. Phone, air and edge work one after another.

Shape suffixes: P split points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raysplit.base.arrays import BoolArray, FloatArray, IntArray
from raysplit.base.errors import UserError
from raysplit.budget.bits import bits_per_token
from raysplit.budget.compute import memory_bytes, pass_s
from raysplit.budget.setup import Setup
from raysplit.model.sizes import Sizes


@dataclass(frozen=True, slots=True, eq=False)
class Passes:
    """One or more passes from phone to edge, for each split point (P,).

    Attributes:
        ue_s_P: The phone computes, in s.
        air_s_P: The uplink carries bits, in s.
        rtt_s_P: Round trips, in s.
        edge_s_P: The edge computes, in s.
        ue_energy_j_P: Energy of the phone over all four, in J.
        bits_P: Bits on the air.
    """

    ue_s_P: FloatArray
    air_s_P: FloatArray
    rtt_s_P: FloatArray
    edge_s_P: FloatArray
    ue_energy_j_P: FloatArray
    bits_P: FloatArray

    @property
    def total_s_P(self) -> FloatArray:
        """Seconds in all."""
        return self.ue_s_P + self.air_s_P + self.rtt_s_P + self.edge_s_P

    def then(self, other: Passes, times: int) -> Passes:
        """Return these passes and another's `times` over."""
        return Passes(
            self.ue_s_P + times * other.ue_s_P,
            self.air_s_P + times * other.air_s_P,
            self.rtt_s_P + times * other.rtt_s_P,
            self.edge_s_P + times * other.edge_s_P,
            self.ue_energy_j_P + times * other.ue_energy_j_P,
            self.bits_P + times * other.bits_P,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Costs:
    """What a request costs under one codec, for each split point (P,).

    Attributes:
        codec: The codec's name.
        output_tokens: Tokens of the answer.
        split_points_P: Layers on the phone.
        prefill: The prompt, up to the first token.
        decode: One more token, the mean over the answer. (Of an answer of one token, what a second
            one would take.)
        ue_memory_bytes_P: What the phone keeps: embedding, weights and cache of its layers.
        edge_memory_bytes_P: What the edge keeps: weights and cache of its layers, and the head.
        fits_P: Whether both have the memory.
    """

    codec: str
    output_tokens: int
    split_points_P: IntArray
    prefill: Passes
    decode: Passes
    ue_memory_bytes_P: FloatArray
    edge_memory_bytes_P: FloatArray
    fits_P: BoolArray

    @property
    def ttft_s_P(self) -> FloatArray:
        """Time to first token, in s."""
        return self.prefill.total_s_P

    @property
    def tpot_s_P(self) -> FloatArray:
        """Time per output token after the first, in s."""
        return self.decode.total_s_P

    @property
    def request(self) -> Passes:
        """The whole request: the prompt, and a pass for each token after the first."""
        return self.prefill.then(self.decode, self.output_tokens - 1)

    @property
    def ue_energy_j_P(self) -> FloatArray:
        """Energy of the phone over the whole request, in J."""
        return self.request.ue_energy_j_P

    @property
    def bits_P(self) -> FloatArray:
        """Bits on the air over the whole request."""
        return self.request.bits_P


def split_costs(
    sizes: Sizes, setup: Setup, codec: str, split_points: Sequence[int] | None = None
) -> Costs:
    """Return what each split point costs; one that does not fit is computed too, and marked.

    Args:
        sizes: The model's.
        setup: Phone, edge, network and request.
        codec: What hidden states are sent as; a name of `raysplit.link.codec`.
        split_points: Layers on the phone; None: 1 to L.

    Raises:
        UserError: The codec is unknown or cannot serve the hidden size, or a split point is not
            within the model.
    """
    layers = sizes.num_hidden_layers
    split_points_P = np.array(range(1, layers + 1) if split_points is None else split_points)
    for p in split_points_P[(split_points_P < 1) | (split_points_P > layers)][:1]:
        raise UserError(f"split point {p} is not within {sizes.name}; choose 1 <= p <= {layers}")
    prompt, output = setup.request.prompt_tokens, setup.request.output_tokens
    decoded = np.arange(1, max(output, 2))
    bits = bits_per_token(codec, sizes.hidden_size)
    ue_P, edge_P = split_points_P, layers - split_points_P
    phone, edge = setup.phone, setup.edge
    context = prompt + output
    ue_memory_P = memory_bytes(sizes, phone, ue_P, 1, context)
    edge_memory_P = memory_bytes(sizes, edge, edge_P, 1, context)
    return Costs(
        codec=codec,
        output_tokens=output,
        split_points_P=split_points_P,
        prefill=_passes(sizes, setup, ue_P, prompt, np.array([prompt]), prompt * bits),
        decode=_passes(sizes, setup, ue_P, 1, prompt + decoded, bits),
        ue_memory_bytes_P=ue_memory_P,
        edge_memory_bytes_P=edge_memory_P,
        fits_P=(ue_memory_P <= phone.memory_gb * 1e9) & (edge_memory_P <= edge.memory_gb * 1e9),
    )


def _passes(
    sizes: Sizes, setup: Setup, ue_P: IntArray, tokens: int, keys_S: IntArray, bits: float
) -> Passes:
    """The mean pass of `tokens` positions over steps that attend to `keys_S`."""
    phone, network = setup.phone, setup.network
    edge_P = sizes.num_hidden_layers - ue_P
    ue_s_P = pass_s(sizes, phone, ue_P, tokens, keys_S, head=False).mean(axis=1)
    edge_s_P = pass_s(sizes, setup.edge, edge_P, tokens, keys_S, head=True).mean(axis=1)
    air_s_P = np.full(ue_s_P.shape, network.air_s(bits))
    rtt_s_P = np.full(ue_s_P.shape, network.rtt_ms * 1e-3)
    energy_j_P = (
        phone.compute_power_w * ue_s_P
        + network.radio_power_w * air_s_P
        + phone.wait_power_w * (rtt_s_P + edge_s_P)
    )
    bits_P = np.full_like(ue_s_P, bits)
    return Passes(ue_s_P, air_s_P, rtt_s_P, edge_s_P, energy_j_P, bits_P)


def refuse_unless_some_fit(sizes: Sizes, setup: Setup, costs: Costs) -> None:
    """Refuse a phone and an edge whose memory no split point suits.

    Raises:
        UserError: With what the smallest part takes, and the remedy.
    """
    if costs.fits_P.any():
        return
    parts = (("phone", costs.ue_memory_bytes_P), ("edge", costs.edge_memory_bytes_P))
    for name, bytes_P in parts:
        has_gb = getattr(setup, name).memory_gb
        least = int(bytes_P.argmin())
        if bytes_P[least] > has_gb * 1e9:
            raise UserError(
                f"the {name} is too small for {sizes.name}: even p = {costs.split_points_P[least]} "
                f"takes {bytes_P[least] / 1e9:.3g} GB and {name}.memory_gb is {has_gb:g}; take "
                f"more memory, a lower {name}.weight_bits, fewer tokens or a smaller model"
            )
    raise UserError(
        f"no split of {sizes.name} fits: what phone.memory_gb = {setup.phone.memory_gb:g} leaves "
        f"over is more than edge.memory_gb = {setup.edge.memory_gb:g} holds; take more of either"
    )
