"""Hybrid ARQ with chase combining, in closed form.

Every attempt repeats the same bits and the receiver adds their SNRs, so a block that fails k
attempts at one SNR failed with probability p_k = BLER(k SNR): the chance of k failures in a row.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from raysplit.base.arrays import FloatArray, IntArray
from raysplit.base.config import Config
from raysplit.radio.bler import block_error_rate
from raysplit.radio.checks import checked


class HarqConfig(Config):
    """Retransmissions of a cell.

    Attributes:
        max_attempts: Attempts after which a block is given up; 1 sends every block once.
        round_trip_slots: Uplink slots from an attempt to its repetition. There are as many
            processes, so that new blocks fill the slots between (synchronous HARQ).
    """

    max_attempts: int = Field(default=4, ge=1, le=32)
    round_trip_slots: int = Field(default=8, ge=1, le=64)


def residual_error_rate(
    snr_db: ArrayLike, mcs: ArrayLike, bits: ArrayLike, attempts: ArrayLike
) -> FloatArray:
    """Return the probability that a block fails all its attempts at one SNR; arguments broadcast.

    One attempt gives the block error rate, none 1, infinitely many 0.

    Args:
        snr_db: SNR of each attempt in dB.
        mcs: MCS index.
        bits: Length of the transport block.
        attempts: Attempts, at least 0; may be infinite.

    Raises:
        UserError: If a value is outside its range.
    """
    attempts = checked("attempts", attempts, low=0)
    gain_db = 10 * np.log10(np.maximum(attempts, 1))
    error = block_error_rate(checked("snr_db", snr_db) + gain_db, mcs, bits)
    return np.where(attempts < 1, 1.0, error)


def failures(snr_db: ArrayLike, mcs: ArrayLike, bits: ArrayLike, max_attempts: int) -> FloatArray:
    """Return p_k for k = 0, 1 ... max_attempts on a new last axis: still failing after k attempts.

    Raises:
        UserError: If a value is outside its range.
    """
    snr_db, bits = checked("snr_db", snr_db)[..., None], np.asarray(bits)[..., None]
    attempts = np.arange(max_attempts + 1)
    return residual_error_rate(snr_db, np.asarray(mcs)[..., None], bits, attempts)


def mean_attempts(failures_K: FloatArray) -> FloatArray:
    """Return the mean number of attempts from `failures`: the sum of p_k over k < max_attempts."""
    return failures_K[..., :-1].sum(axis=-1)


def attempts_before(
    deadline_ms: ArrayLike, transmit_ms: ArrayLike, round_trip_ms: ArrayLike
) -> IntArray:
    """Return how many attempts a deadline leaves: 1 + floor((D - t_tx) / t_HARQ); broadcasts.

    Args:
        deadline_ms: Time D until which the data must have arrived.
        transmit_ms: Time t_tx on the air of all of it, once.
        round_trip_ms: Time t_HARQ from an attempt to its repetition.

    Returns:
        Attempts; 0 where the deadline is shorter than the transmission.

    Raises:
        UserError: If a value is outside its range.
    """
    deadline_ms = checked("deadline_ms", deadline_ms, above=0, high=1e15)
    transmit_ms = checked("transmit_ms", transmit_ms, low=0)
    round_trip_ms = checked("round_trip_ms", round_trip_ms, above=0)
    # A deadline that is met to the last bit counts as met: 3.0000000001 repetitions are 3.
    repetitions = np.floor((deadline_ms - transmit_ms) / round_trip_ms + 1e-9)
    return np.maximum(0, 1 + repetitions).astype(np.int64)


def packet_loss(residual: ArrayLike, blocks: ArrayLike) -> FloatArray:
    """Return the probability that a packet is lost: 1 - (1 - p_residual)^blocks; broadcasts.

    Args:
        residual: Probability p_residual that one block is given up.
        blocks: Blocks that all have to arrive: ceil(bits / block).

    Raises:
        UserError: If a value is outside its range.
    """
    residual = checked("residual", residual, low=0, high=1)
    with np.errstate(divide="ignore"):  # log(1 - 1): certain loss
        return -np.expm1(checked("blocks", blocks, low=1) * np.log1p(-residual))
