"""What a mean SNR means to a token's packet and to a whole prompt.

The problem observes a mean SNR; every attempt of a block sees it times a gain of its own, Gamma
distributed with mean 1 and shape m (Nakagami-m fading of the amplitude; m = 1 is Rayleigh, and
independent antennas or subcarriers multiply it). Chase combining adds up the SNRs, and k gains add
up to a Gamma variable of shape k m, so a block still fails after k attempts with

    p_k = E[BLER(SNR G / m)],  G ~ Gamma(k m)

The MCS is the one of the highest goodput, efficiency x (1 - p_1): it knows the mean alone. A packet
of B blocks is lost with 1 - (1 - p_A)^B, A the attempts that its deadline leaves.

A prompt is long: while a block waits for its repetition there is another to send, so the uplink
never idles and a transfer takes as many slots as its B blocks take attempts (the last round trip
is left out).

    rate     bits of a block / (slot * (p_0 + ... + p_{A-1}))
    P(late)  P(sum of B blocks' attempts > floor(time that is left / slot)): a block takes k < A
             attempts with probability p_{k-1} - p_k and A with p_{A-1}, and the sum's distribution
             is the B-fold convolution of that, by its Fourier transform

Shape suffixes: X SNRs, K attempts (0 first), M MCS, Q quantiles of the gain, P split points.
"""

# scipy ships no type information:
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from pydantic import Field, model_validator

from raysplit.base.arrays import FloatArray, IntArray
from raysplit.base.config import Config
from raysplit.radio.adaptation import ideal_mcs
from raysplit.radio.bler import block_error_rate
from raysplit.radio.cell import Cell, load_cell
from raysplit.radio.harq import attempts_before, failures, packet_loss
from raysplit.radio.mcs import EFFICIENCY

_STEP_DB = 0.25  # of the table; between its SNRs everything is linear
_LEAST_LOSS = 0.01  # that is measured up to: a surrogate needs a range
_QUANTILES = 128  # of the gain


class RadioConfig(Config):
    """The `radio` section of an experiment: what carries the bits in `link.mode: digital`.

    Attributes:
        cell: A cell of the presets.
        overrides: Its fields that differ, such as {harq: {max_attempts: 1}}.
        nakagami_m: Shape m of the fading from attempt to attempt; null: the SNR stays as it is.
        packet_deadline_ms: A token's packet that comes later is lost; null: HARQ alone gives up.
    """

    cell: str = "lte"
    overrides: dict[str, Any] = Field(default_factory=dict)
    nakagami_m: float | None = Field(default=2.0, ge=0.5, le=1000)
    packet_deadline_ms: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _known(self) -> Self:
        self.load()
        return self

    def load(self) -> Cell:
        """Return the cell.

        Raises:
            UserError: It has no such name, or an override is wrong.
        """
        return load_cell(self.cell, **self.overrides)


@dataclass(frozen=True, slots=True, eq=False)
class TokenLoss:
    """The loss of a token's packet over a range of SNRs.

    Attributes:
        snr_db_X: Mean SNRs in dB, ascending.
        loss_X: Probability that the packet is given up or late.
    """

    snr_db_X: FloatArray
    loss_X: FloatArray

    @property
    def measured_up_to(self) -> float:
        """A loss that no SNR of the range exceeds, in whole per cent and at least one."""
        return max(_LEAST_LOSS, float(np.ceil(100 * self.loss_X.max() - 1e-9)) / 100)

    def at(self, snr_db_N: FloatArray) -> FloatArray:
        """Return the loss at SNRs of the range."""
        return np.interp(snr_db_N, self.snr_db_X, self.loss_X)


def token_loss(config: RadioConfig, bits: float, low_db: float, high_db: float) -> TokenLoss:
    """Return the loss of a packet of so many bits at SNRs from `low_db` to `high_db`."""
    cell = config.load()
    points = 1 + int(np.ceil((high_db - low_db) / _STEP_DB))
    snr_db_X = np.linspace(low_db, high_db, points)
    bits_X, failures_XK = block_failures(config, snr_db_X)
    blocks_X, slot_ms = np.ceil(bits / bits_X), cell.grid.uplink_slot_ms
    attempts_X = np.full(points, cell.harq.max_attempts)
    if config.packet_deadline_ms is not None:
        round_trip_ms = cell.harq.round_trip_slots * slot_ms
        left_X = attempts_before(config.packet_deadline_ms, blocks_X * slot_ms, round_trip_ms)
        attempts_X = np.minimum(attempts_X, left_X)
    residual_X = np.take_along_axis(failures_XK, attempts_X[:, None], axis=1)[:, 0]
    return TokenLoss(snr_db_X, packet_loss(residual_X, blocks_X))


def block_failures(config: RadioConfig, snr_db_X: FloatArray) -> tuple[IntArray, FloatArray]:
    """Return a block's bits (X,), and p_k for k = 0, 1 ... max_attempts (X, K)."""
    cell = config.load()
    attempts = cell.harq.max_attempts
    bits_M = cell.grid.transport_block_bits()
    m = config.nakagami_m
    if m is None:
        mcs_X = ideal_mcs(snr_db_X, cell.grid)
        return bits_M[mcs_X], failures(snr_db_X, mcs_X, bits_M[mcs_X], attempts)
    mcs_M = np.arange(len(bits_M))
    first_XM = np.stack(
        [_faded_error_rate(snr_db_X, np.full(len(snr_db_X), i), bits_M, m, 1) for i in mcs_M],
        axis=1,
    )
    mcs_X = (EFFICIENCY * (1 - first_XM)).argmax(axis=1)
    failures_XK = np.ones((len(snr_db_X), attempts + 1))
    for k in range(1, attempts + 1):
        failures_XK[:, k] = _faded_error_rate(snr_db_X, mcs_X, bits_M, m, k)
    return bits_M[mcs_X], failures_XK


def _faded_error_rate(
    snr_db_X: FloatArray, mcs_X: IntArray, bits_M: IntArray, m: float, attempts: int
) -> FloatArray:
    """Return p_k at each mean SNR."""
    from scipy.special import gammaincinv

    # The mean over u in (0, 1) of what is lost at the gain's u-quantile, with u = v^3: deep fades
    # decide, and evenly spaced quantiles would not see those below 1 in 1,000.
    v_Q = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    gain_db_Q = 10 * np.log10(gammaincinv(attempts * m, v_Q**3) / m)
    error_XQ = block_error_rate(
        snr_db_X[:, None] + gain_db_Q, mcs_X[:, None], bits_M[mcs_X][:, None]
    )
    weight_Q = v_Q**2 / (v_Q**2).sum()
    return error_XQ @ weight_Q


def sustained_rate_mbit_s(config: RadioConfig, snr_db: float) -> float:
    """Return the mean rate of a long transfer, repetitions counted."""
    bits, attempts_K = attempt_probabilities(config, snr_db)
    mean = float(np.arange(len(attempts_K)) @ attempts_K)
    return bits / (mean * config.load().grid.uplink_slot_ms * 1e-3) * 1e-6


def late_probability(
    config: RadioConfig, snr_db: float, bits: float, left_s_P: FloatArray
) -> FloatArray:
    """Return the probability (P,) that a long transfer takes longer than the time that is left.

    Args:
        config: What carries it.
        snr_db: Mean SNR in dB.
        bits: Bits of the transfer.
        left_s_P: Seconds for it; negative ones are too late already.
    """
    block_bits, attempts_K = attempt_probabilities(config, snr_db)
    blocks = int(np.ceil(bits / block_bits))
    size = blocks * (len(attempts_K) - 1) + 1
    spectrum = np.fft.rfft(attempts_K, size) ** blocks
    within = np.clip(np.cumsum(np.fft.irfft(spectrum, size)), 0.0, 1.0)
    # A deadline that is met to the last bit counts as met.
    slots_P = np.floor(left_s_P / (config.load().grid.uplink_slot_ms * 1e-3) + 1e-9)
    at_P = np.clip(slots_P, 0, size - 1).astype(np.int64)
    return np.where(slots_P < 0, 1.0, 1.0 - within[at_P])


def attempt_probabilities(config: RadioConfig, snr_db: float) -> tuple[int, FloatArray]:
    """Return a block's bits, and the probability of k = 0, 1 ... attempts of it."""
    bits_X, failures_XK = block_failures(config, np.array([snr_db]))
    failures_K = failures_XK[0]
    attempts_K = np.zeros(len(failures_K))
    attempts_K[1:] = failures_K[:-1] - failures_K[1:]
    attempts_K[-1] = failures_K[-2]  # the last attempt decides, either way
    return int(bits_X[0]), attempts_K
