"""How long a transfer of N bits takes over an SNR path: slots, HARQ, block by block.

A transfer sends one transport block a slot, as long as the slot's MCS allows; the last one is
padded to that length. Slot t belongs to HARQ process t mod H: a block that failed is repeated H
slots later in its own slot, by the same MCS, before anything new is sent there; the SNRs of its
attempts add up (chase combining). A block that fails its last attempt is lost, and the transfer
with it.

Shape suffixes: N transfers, T slots of the path, H processes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from raysplit.base.arrays import BoolArray, FloatArray, IntArray
from raysplit.base.errors import UserError
from raysplit.radio.bler import MIDPOINT_DB, log_success
from raysplit.radio.cell import Cell
from raysplit.radio.checks import checked
from raysplit.radio.mcs import checked_mcs

_AT_ONCE = 1 << 15  # transfers, whose state stays in the processor's cache


@dataclass(frozen=True, slots=True, eq=False)
class Transfers:
    """Outcome of N transfers.

    Attributes:
        delay_ms_N: From the start of the first slot to the end of the slot that decided the last
            block.
        delivered_N: Whether every block was received.
        attempts_N: Slots that were used.
        blocks_N: Blocks that were sent.
    """

    delay_ms_N: FloatArray
    delivered_N: BoolArray
    attempts_N: IntArray
    blocks_N: IntArray

    def quantiles_ms(self, shares: ArrayLike) -> FloatArray:
        """Return delays below which shares of all transfers arrive; inf where too few arrive.

        Raises:
            UserError: If a share is outside [0, 1].
        """
        delay_ms = np.where(self.delivered_N, self.delay_ms_N, np.inf)
        shares = checked("share", shares, low=0, high=1)
        return np.quantile(delay_ms, shares, method="inverted_cdf")

    def missed(self, deadline_ms: float) -> float:
        """Return the share of transfers that were lost or came after the deadline."""
        return float(np.mean(~self.delivered_N | (self.delay_ms_N > deadline_ms)))


def simulate_transfers(
    snr_db_T: FloatArray,
    mcs_T: IntArray,
    starts_N: IntArray,
    bits: ArrayLike,
    cell: Cell,
    rng: np.random.Generator,
) -> Transfers:
    """Send N transfers over one SNR path, each by itself and from its own slot.

    The path goes on from its beginning after its end.

    Args:
        snr_db_T: SNR in dB (effective, with fading over subcarriers) of each uplink slot.
        mcs_T: MCS of each slot: from `ideal_mcs`, or a user of `outer_loop`.
        starts_N: First slot of each transfer.
        bits: Bits of each transfer, or of all.
        cell: Its grid and its HARQ.
        rng: Decides which blocks fail.

    Raises:
        UserError: If the path is empty or not of one length, or a value is outside its range.
    """
    snr_db_T, mcs_T = checked("snr_db", snr_db_T), checked_mcs(mcs_T)
    if snr_db_T.ndim != 1 or snr_db_T.shape != mcs_T.shape or snr_db_T.size == 0:
        raise UserError(
            f"an SNR path of shape {snr_db_T.shape} does not go with MCS of shape {mcs_T.shape}: "
            "give one of each for every slot, at least one slot"
        )
    starts_N = checked("start", starts_N, low=0).astype(np.int64)
    bits_N = np.broadcast_to(np.ceil(checked("bits", bits, low=1, high=1e12)), starts_N.shape)
    snr_T = np.maximum(10 ** (snr_db_T / 10), np.finfo(np.float64).tiny)  # no signal: no log of 0
    path = _Path(snr_T, mcs_T, cell.grid.transport_block_bits().astype(np.float64))
    parts = [
        _Sending(path, starts_N[i : i + _AT_ONCE], bits_N[i : i + _AT_ONCE], cell, rng).run()
        for i in range(0, len(starts_N), _AT_ONCE)
    ]
    slots, lost, attempts, blocks = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Transfers(slots * cell.grid.uplink_slot_ms, ~lost, attempts, blocks)


@dataclass(frozen=True, slots=True, eq=False)
class _Path:
    snr_T: FloatArray  # linear
    mcs_T: IntArray
    block_bits_M: FloatArray  # of each MCS


class _Sending:
    """The state of some transfers, slot by slot."""

    def __init__(
        self, path: _Path, starts_N: IntArray, bits_N: FloatArray, cell: Cell,
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        self._path, self._starts_N, self._harq, self._rng = path, starts_N, cell.harq, rng
        count, processes = len(starts_N), cell.harq.round_trip_slots
        self._unsent_N = bits_N.copy()
        self._waiting_N = np.zeros(count, np.int64)  # blocks that will be repeated
        self._lost_N = np.zeros(count, bool)
        self._slots_N, self._attempts_N, self._blocks_N = np.zeros((3, count), np.int64)
        # Of the block in each process: its attempts so far (0: none), MCS, sum of SNRs, and the
        # logarithm of a uniform draw, which decides whether an attempt succeeds.
        self._tries_HN, self._mcs_HN = np.zeros((2, processes, count), np.int64)
        self._snr_HN, self._log_draw_HN = np.zeros((2, processes, count))

    def run(self) -> tuple[IntArray, BoolArray, IntArray, IntArray]:
        """Send everything; return slots, lost, attempts and blocks, shape (N,)."""
        active, slot = np.arange(len(self._starts_N)), 0
        while active.size:
            process = slot % self._harq.round_trip_slots
            self._send(active, slot, process)
            active = active[(self._unsent_N[active] > 0) | (self._waiting_N[active] > 0)]
            slot += 1
        return self._slots_N, self._lost_N, self._attempts_N, self._blocks_N

    def _send(self, active: IntArray, slot: int, process: int) -> None:
        tries_N, snr_N = self._tries_HN[process], self._snr_HN[process]
        repeats = tries_N[active] > 0
        fresh = active[~repeats & (self._unsent_N[active] > 0)]
        self._fill(fresh, slot, process)
        now = np.concatenate([active[repeats], fresh])
        self._waiting_N[active[repeats]] -= 1
        tries_N[now] += 1
        snr_N[now] += self._path.snr_T[self._place(now, slot)]
        # Received where ln u < ln P(received): one draw decides all attempts of a block, so that it
        # fails k of them with the probability of the k-th alone.
        mcs = self._mcs_HN[process, now]
        snr_db = 10 * np.log10(snr_N[now])
        received = log_success(snr_db, MIDPOINT_DB[mcs], self._path.block_bits_M[mcs])
        failed = self._log_draw_HN[process, now] > received
        last = tries_N[now] >= self._harq.max_attempts
        self._waiting_N[now[failed & ~last]] += 1
        self._lost_N[now[failed & last]] = True
        tries_N[now[~failed | last]] = 0
        self._attempts_N[now] += 1
        self._slots_N[now] = slot + 1

    def _fill(self, fresh: IntArray, slot: int, process: int) -> None:
        place = self._place(fresh, slot)
        mcs = self._path.mcs_T[place]
        self._unsent_N[fresh] -= self._path.block_bits_M[mcs]
        self._mcs_HN[process, fresh] = mcs
        self._snr_HN[process, fresh] = 0.0
        self._log_draw_HN[process, fresh] = -self._rng.standard_exponential(len(fresh))
        self._blocks_N[fresh] += 1

    def _place(self, transfers: IntArray, slot: int) -> IntArray:
        return (self._starts_N[transfers] + slot) % len(self._path.snr_T)
