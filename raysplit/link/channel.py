"""What the link does to hidden states: y_hat = h*y + n (Eq. 3), lost packets (Eq. 4), concealment.

The numbers drawn depend on the generator, the tensor's shape and the kind of link, never on the
link's state: gains first, then erasures, the noise last. So under one seed two states differ by
their physics alone (common random numbers): noise only grows, and packets lost at a small
probability stay lost at a larger one.

Shape suffixes: B sequences, T positions, D hidden size; P stands for the shape of the packets,
(B, T, 1), (B, 1, 1) or (B, T, D); b and p are some of the sequences.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from raysplit.base.halving import in_halves
from raysplit.link.codec import IDENTITY, Codec
from raysplit.link.codec.roundtrip import roundtrip
from raysplit.link.config import LinkConfig
from raysplit.link.gains import draw_gains
from raysplit.link.state import LinkState


@dataclass(frozen=True, slots=True, eq=False)
class Received:
    """What arrives at the edge.

    Attributes:
        hidden_BTD: Hidden states, in the shape, dtype and device of those sent.
        touched_B: True where the link changed a real, transmitted position of the sequence. The
            rest arrived as it was sent and needs no new computation.
    """

    hidden_BTD: Tensor
    touched_B: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """What chance decides of a transmission; neither the signal nor the noise's strength is in it.

    Attributes:
        gain_P: Gains h of the packets.
        erasure_P: Uniform on [0, 1): a packet is erased where it lies below `loss_probability`.
        normal_BTD: Standard normal numbers for the noise; None where the state has no noise.
    """

    gain_P: Tensor
    erasure_P: Tensor
    normal_BTD: Tensor | None


def draw(
    shape: tuple[int, int, int], state: LinkState, config: LinkConfig, generator: torch.Generator
) -> Draws:
    """Draw for hidden states of shape (B, T, D), on the generator's device."""
    packets = _packet_shape(shape, config)
    gain_P = draw_gains(config, state.fading_scale, packets, generator)
    erasure_P = torch.rand(packets, generator=generator, device=generator.device)
    if state.snr_db is None and not state.noise_std:
        return Draws(gain_P, erasure_P, None)
    normal_BTD = torch.randn(shape, generator=generator, device=generator.device)
    return Draws(gain_P, erasure_P, normal_BTD)


def batch_generator(
    seed: int, batch_index: int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Return the generator of one (seed, batch): the order of execution never changes a value."""
    digest = hashlib.sha256(f"{seed}:{batch_index}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big"))


def transmitted_positions(lengths_B: Tensor, positions: int, config: LinkConfig) -> Tensor:
    """Return the (B, T) mask of positions that cross the link: neither padding nor exempt."""
    position_T = torch.arange(positions, device=lengths_B.device)
    sent_BT = position_T < lengths_B[:, None]
    if config.exempt_prefix:
        sent_BT[:, :1] = False
    return sent_BT


def transmit(
    hidden_BTD: Tensor,
    lengths_B: Tensor,
    state: LinkState,
    config: LinkConfig,
    chance: torch.Generator | Draws,
    *,
    codec: Codec = IDENTITY,
    signal_rms: float | None = None,
    corpus_mean_D: Tensor | None = None,
) -> Received:
    """Send hidden states across the link: encoded by the UE, decoded and concealed by the edge.

    All randomness is that of the whole tensor. Where the memory does not suffice for the rest, it
    is done in halves, with the same values.

    Args:
        hidden_BTD: Clean hidden states at the split point, right-padded; never modified.
        lengths_B: Real positions of each sequence, on the same device; what lies beyond is padding
            and arrives as it is.
        state: The link's state.
        config: The kind of link.
        chance: What `draw` gave for these hidden states and this kind of link, or the generator
            that it is drawn from (see `batch_generator`); on the tensor's device.
        codec: What hidden states are encoded with. Noise lands on what the edge decodes.
        signal_rms: Root mean square of the transmitted hidden states over the corpus, the signal
            that `snr_db` refers to (see `raysplit.link.signal`). None takes that of this very
            tensor, so the noise then differs from batch to batch.
        corpus_mean_D: Mean of the transmitted hidden states over the corpus; needed by
            `concealment="corpus_mean"`.

    Raises:
        UserError: If the state sets what this kind of link ignores.
        ValueError: If `corpus_mean_D` is needed and missing.
    """
    _check(state, config, corpus_mean_D)
    sent_BT = transmitted_positions(lengths_B, hidden_BTD.shape[1], config)
    shape = (len(hidden_BTD), hidden_BTD.shape[1], hidden_BTD.shape[2])
    draws = chance if isinstance(chance, Draws) else draw(shape, state, config, chance)
    gain_P, normal_BTD = draws.gain_P, draws.normal_BTD
    lost_P = (gain_P < config.gain_threshold) | (draws.erasure_P < state.loss_probability)
    noise_std = _noise_std(hidden_BTD, sent_BT, state, signal_rms)

    def receive(rows: slice) -> Received:
        sent_bTD, sent_bT, lost_p = hidden_BTD[rows], sent_BT[rows], lost_P[rows]
        received_bTD = _propagate(roundtrip(sent_bTD, codec), gain_P[rows], config)
        if normal_BTD is not None:
            per_normal = noise_std / gain_P[rows] if _equalised(config) else noise_std
            received_bTD = received_bTD + normal_BTD[rows] * per_normal
        all_changed = received_bTD is not sent_bTD
        if _can_lose(state, config):
            received_bTD = _conceal(received_bTD, lost_p, sent_bT, config, corpus_mean_D)
        if received_bTD is not sent_bTD:
            received_bTD = received_bTD.to(sent_bTD.dtype)
            received_bTD = torch.where(sent_bT[:, :, None], received_bTD, sent_bTD)
        changed_p = sent_bT[:, :, None] if all_changed else sent_bT[:, :, None] & lost_p
        return Received(received_bTD, changed_p.flatten(1).any(dim=1))

    return in_halves(receive, slice(0, len(hidden_BTD)), _joined)


def _joined(one: Received, other: Received) -> Received:
    return Received(
        torch.cat([one.hidden_BTD, other.hidden_BTD]), torch.cat([one.touched_B, other.touched_B])
    )


def _check(state: LinkState, config: LinkConfig, corpus_mean_D: Tensor | None) -> None:
    config.check_coordinates(tuple(state.as_dict()))
    if config.concealment == "corpus_mean" and corpus_mean_D is None and _can_lose(state, config):
        raise ValueError("concealment=corpus_mean needs corpus_mean_D: pass the corpus' mean")


def _can_lose(state: LinkState, config: LinkConfig) -> bool:
    return state.loss_probability > 0 or config.gain_threshold > 0


def _packet_shape(shape: tuple[int, int, int], config: LinkConfig) -> tuple[int, int, int]:
    sequences, positions, size = shape
    match config.packet:
        case "token":
            return sequences, positions, 1
        case "sentence":
            return sequences, 1, 1
        case "element":
            return sequences, positions, size


def _noise_std(
    hidden_BTD: Tensor, sent_BT: Tensor, state: LinkState, signal_rms: float | None
) -> float | Tensor:
    """Return sigma of Eq. 3."""
    if state.snr_db is None:
        return state.noise_std
    per_signal = 10 ** (-state.snr_db / 20)
    if signal_rms is not None:
        return signal_rms * per_signal
    square_BT = hidden_BTD.float().square().mean(dim=2)
    mean_square = (square_BT * sent_BT).sum() / sent_BT.sum().clamp(min=1)
    return mean_square.sqrt() * per_signal


def _equalised(config: LinkConfig) -> bool:
    return config.equaliser == "zero_forcing"


def _propagate(hidden_BTD: Tensor, gain_P: Tensor, config: LinkConfig) -> Tensor:
    """Apply Eq. 3 but for the noise, and the equaliser; the tensor itself where nothing changes.

    Zero forcing is (h*y + n) / h = y + n/h, in this form exact also where there is no noise.
    """
    return hidden_BTD if config.fading == "none" or _equalised(config) else hidden_BTD * gain_P


def _conceal(
    received_BTD: Tensor,
    lost_P: Tensor,
    sent_BT: Tensor,
    config: LinkConfig,
    corpus_mean_D: Tensor | None,
) -> Tensor:
    match config.concealment:
        case "zeros":
            return received_BTD.masked_fill(lost_P, 0.0)
        case "corpus_mean":
            assert corpus_mean_D is not None
            mean_D = corpus_mean_D.to(received_BTD)
            return torch.where(lost_P, mean_D, received_BTD)
        case "hold_last":
            held_BTD = _last_received(received_BTD, ~lost_P & sent_BT[:, :, None])
            return torch.where(lost_P, held_BTD, received_BTD)


def _last_received(received_BTD: Tensor, arrived_P: Tensor) -> Tensor:
    """Return, for every position, what arrived last up to there (zeros before the first)."""
    position_T1 = torch.arange(received_BTD.shape[1], device=received_BTD.device)[:, None]
    last_P = torch.where(arrived_P, position_T1, -1).cummax(dim=1).values
    held_BTD = received_BTD.gather(1, last_P.clamp(min=0).expand_as(received_BTD))
    return held_BTD.masked_fill(last_P < 0, 0.0)
