"""What SNR means for a digital link: rate, loss and delay of a packet, in closed form.

A packet of some bits is cut into B blocks of one slot (the last is padded), sent with the MCS of
highest goodput and repeated by HARQ with chase combining (`raysplit.radio.harq`); the SNR stays
what it is meanwhile. With p_k the probability that a block still fails after k attempts, A the
attempts allowed, H the slots from an attempt to its repetition:

    rate     resource elements/s x efficiency x (1 - p_1)
    loss     1 - (1 - p_A)^B;   A at most 1 + floor((D - B slots) / H slots) before a deadline D
    delay    given that it arrives: the last block is sent first in slot
             B + (m - 1) max(B - H, 0), m the mean number of attempts, as repetitions take slots
             from new blocks; what it then takes until every block has arrived follows from
             P(at most x slots) = product over the o-th last block of P(at most
             1 + floor((x + o) / H) attempts)

`raysplit.radio.transfer` simulates the same block by block, over any SNR path.

Shape suffixes: S SNRs, K attempts (0 first).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from raysplit.base.arrays import FloatArray, IntArray
from raysplit.radio.adaptation import ideal_mcs
from raysplit.radio.cell import Cell
from raysplit.radio.checks import checked
from raysplit.radio.harq import attempts_before, failures, mean_attempts, packet_loss
from raysplit.radio.mcs import rate_mbit_s


@dataclass(frozen=True, slots=True, eq=False)
class DigitalLink:
    """A packet over a digital link, every field of the SNRs' shape.

    Attributes:
        mcs: The MCS.
        rate_mbit_s: Rate of a long transfer, net of blocks that fail at their first attempt.
        loss_probability: That the packet is given up, or would come after the deadline.
        mean_delay_ms: From the first slot's start to the last block's arrival, of packets that
            arrive; inf where none does.
        mean_attempts: Of a block, whatever the deadline.
    """

    mcs: IntArray
    rate_mbit_s: FloatArray
    loss_probability: FloatArray
    mean_delay_ms: FloatArray
    mean_attempts: FloatArray


def digital_link(
    snr_db: ArrayLike, bits: float, cell: Cell, deadline_ms: float | None = None
) -> DigitalLink:
    """Return rate, loss and delay of a packet at each SNR.

    Args:
        snr_db: SNR in dB, any shape.
        bits: Length of the packet, at least 1.
        cell: Its grid and its HARQ.
        deadline_ms: When the packet is of no use any more; None: only HARQ's own limit counts.

    Raises:
        UserError: If a value is outside its range.
    """
    snr_db = checked("snr_db", snr_db)
    bits = float(np.ceil(checked("bits", bits, low=1, high=1e12)))
    harq, slot_ms = cell.harq, cell.grid.uplink_slot_ms
    mcs = ideal_mcs(snr_db, cell.grid)
    block_bits = cell.grid.transport_block_bits()[mcs]
    blocks = np.ceil(bits / block_bits)
    failures_SK = failures(snr_db, mcs, block_bits, harq.max_attempts)
    first_error, mean = failures_SK[..., 1], mean_attempts(failures_SK)
    if deadline_ms is not None:
        in_time = attempts_before(deadline_ms, blocks * slot_ms, harq.round_trip_slots * slot_ms)
        # What is repeated after the deadline leaves things as they are.
        counted_SK = np.minimum(np.arange(harq.max_attempts + 1), in_time[..., None])
        failures_SK = np.take_along_axis(failures_SK, counted_SK, axis=-1)
    loss = packet_loss(failures_SK[..., -1], blocks)
    displaced = (mean - 1) * np.maximum(blocks - harq.round_trip_slots, 0)
    slots = blocks + displaced + _mean_excess(failures_SK, blocks, harq.round_trip_slots)
    return DigitalLink(
        mcs,
        rate_mbit_s(cell.grid.resource_elements_per_s, mcs, first_error),
        loss,
        np.where(loss < 1, slots * slot_ms, np.inf),
        mean,
    )


def _mean_excess(failures_SK: FloatArray, blocks: FloatArray, round_trip: int) -> FloatArray:
    """Return the mean slots from the last block's first attempt until all have arrived.

    The mean of a variable on 0, 1 ... is the sum over x of P(more than x).
    """
    arriving_S1 = 1 - failures_SK[..., -1:]
    # P(at most k attempts | it arrives); where none arrives nothing is asked for.
    within_SK = np.divide(
        1 - failures_SK, arriving_S1, out=np.ones_like(failures_SK), where=arriving_S1 > 0
    )
    last = failures_SK.shape[-1] - 1
    horizon = (last - 1) * round_trip  # beyond it every block has had its last attempt
    excess = np.zeros(blocks.shape)
    for x in range(horizon):
        all_within = np.ones(blocks.shape)
        for nth_last in range(horizon - x):
            k = 1 + (x + nth_last) // round_trip
            all_within *= np.where(nth_last < blocks, within_SK[..., k], 1.0)
        excess += 1 - all_within
    return excess
