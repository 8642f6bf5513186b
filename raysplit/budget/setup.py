"""Phone, edge, network and request: the numbers that a budget is made of, each with its unit."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from raysplit.base.config import Config

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(gt=0, le=1)]
Bits = Annotated[float, Field(ge=1, le=32)]


class Device(Config):
    """What computes layers: its roofline, its memory, and how it keeps weights.

    Attributes:
        compute_tflops: Peak of matrix products, in 10^12 FLOP/s.
        compute_utilisation: Share of that peak which a long prompt reaches, in (0, 1].
        bandwidth_gb_s: Peak of reading weights from memory, in 10^9 bytes/s.
        bandwidth_utilisation: Share of that peak which decoding reaches, in (0, 1].
        memory_gb: What the model may take, in 10^9 bytes.
        weight_bits: Bits that a stored weight takes, scales included.
        kv_bits: Bits of an element of the cache of keys and values.
    """

    compute_tflops: Positive
    compute_utilisation: Share
    bandwidth_gb_s: Positive
    bandwidth_utilisation: Share
    memory_gb: Positive
    weight_bits: Bits
    kv_bits: Bits

    @property
    def flops_per_s(self) -> float:
        """FLOP/s that are reached."""
        return self.compute_tflops * 1e12 * self.compute_utilisation

    @property
    def bytes_per_s(self) -> float:
        """Bytes/s that are reached."""
        return self.bandwidth_gb_s * 1e9 * self.bandwidth_utilisation


class Phone(Device):
    """The user's device (UE).

    Attributes:
        compute_power_w: Power of the whole phone while it computes, in W.
        wait_power_w: Power of the whole phone while it waits for the edge, connected, in W.
    """

    compute_power_w: NotNegative
    wait_power_w: NotNegative


class Edge(Device):
    """The edge server, which serves this one request."""


class Network(Config):
    """The mobile network between the two.

    Attributes:
        uplink_mbit_s: Rate R from phone to edge that the application sees, in 10^6 bit/s.
        rtt_ms: Round trip to the edge and back, of a small packet, in ms.
        radio_base_w: P_0 of the radio's power P_0 + a R while it sends, in W.
        radio_mw_per_mbit_s: a of it, in mW per Mbit/s.
    """

    uplink_mbit_s: Positive
    rtt_ms: NotNegative
    radio_base_w: NotNegative
    radio_mw_per_mbit_s: NotNegative

    @property
    def radio_power_w(self) -> float:
        """P_0 + a R, in W: grows linearly with the rate (Narayanan et al., SIGCOMM 2021)."""
        return self.radio_base_w + 1e-3 * self.radio_mw_per_mbit_s * self.uplink_mbit_s

    def air_s(self, bits: float) -> float:
        """Return how long a number of bits takes from phone to edge."""
        return bits / (self.uplink_mbit_s * 1e6)


class Request(Config):
    """One request.

    Attributes:
        prompt_tokens: Tokens T of the prompt.
        output_tokens: Tokens N of the answer, the first one included.
    """

    prompt_tokens: Annotated[int, Field(ge=1, le=10_000_000)] = 512
    output_tokens: Annotated[int, Field(ge=1, le=100_000)] = 128


class Setup(Config):
    """Where a request runs."""

    phone: Phone
    edge: Edge
    network: Network
    request: Request = Request()
