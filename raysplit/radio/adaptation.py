"""Link adaptation: which MCS a slot is sent with.

Ideal: the SNR of the slot is known and the goodput, efficiency x (1 - BLER), is maximised. Outer
loop (OLLA; Sampath, Kumar, Holtzman, IEEE VTC 1997): the SNR is reported some slots ago and maybe
with a bias, and an offset that moves with every acknowledgement holds the share of errors at a
target. After an error the offset falls by a step, after a success it rises by
step x target / (1 - target); at the target the two cancel.

Shape suffixes: N users, T slots.
"""

# scipy ships no type information:
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from raysplit.base.arrays import BoolArray, FloatArray, IntArray
from raysplit.base.config import Config
from raysplit.base.errors import UserError
from raysplit.radio.bler import MIDPOINT_DB, log_success, snr_db_at
from raysplit.radio.checks import checked
from raysplit.radio.eesm import effective_snr_db
from raysplit.radio.mcs import EFFICIENCY, MCS_COUNT, ResourceGrid


class OuterLoopConfig(Config):
    """The outer loop.

    Attributes:
        target: Share of blocks that shall fail at their first attempt.
        step_db: How far the offset falls after an error.
        feedback_delay_slots: Age of the SNR report and of the acknowledgements, in uplink slots.
        max_offset_db: Bound of the offset on either side.
    """

    target: float = Field(default=0.1, gt=0, lt=1)
    step_db: float = Field(default=1.0, gt=0)
    feedback_delay_slots: int = Field(default=8, ge=1)
    max_offset_db: float = Field(default=20.0, gt=0)


@dataclass(frozen=True, slots=True, eq=False)
class OuterLoopRun:
    """What the outer loop did.

    Attributes:
        mcs_NT: The MCS of each slot.
        failed_NT: Whether its block failed at the first attempt.
        offset_db_NT: What was added to the reported SNR.
    """

    mcs_NT: IntArray
    failed_NT: BoolArray
    offset_db_NT: FloatArray


def ideal_mcs(snr_db: ArrayLike, grid: ResourceGrid) -> IntArray:
    """Return the MCS with the highest goodput at each SNR in dB, of any shape.

    Raises:
        UserError: If an SNR is no number.
    """
    schemes, from_db = _staircase(tuple(grid.transport_block_bits().tolist()))
    steps = np.searchsorted(from_db, checked("snr_db", snr_db), side="right")
    return np.array(schemes)[steps]


@functools.lru_cache(maxsize=64)
def _staircase(block_bits: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Return the MCS that are best somewhere, ascending, and the SNR from which each but the first.

    The ratio of a higher MCS' goodput to a lower one's rises with SNR, so each takes over at one
    SNR. One that takes over from its forerunner below where that one began makes it superfluous.
    """
    bits = np.array(block_bits, np.float64)
    schemes, from_db = [0], list[float]()
    for mcs in range(1, MCS_COUNT):
        if EFFICIENCY[mcs] <= EFFICIENCY[schemes[-1]]:
            continue  # more SNR for fewer bits
        crossing_db = _crossing_db(bits, schemes[-1], mcs)
        while from_db and crossing_db <= from_db[-1]:
            schemes.pop()
            from_db.pop()
            crossing_db = _crossing_db(bits, schemes[-1], mcs)
        schemes.append(mcs)
        from_db.append(crossing_db)
    return tuple(schemes), tuple(from_db)


def _crossing_db(bits: FloatArray, lower: int, upper: int) -> float:
    def advantage(snr_db: float) -> float:
        received = log_success(np.array(snr_db), MIDPOINT_DB[[lower, upper]], bits[[lower, upper]])
        return float(np.log(EFFICIENCY[upper] / EFFICIENCY[lower]) + received[1] - received[0])

    from scipy.optimize import brentq  # loads for half a second, which a refusal has not

    span_db = 10.0  # far beyond the width of any waterfall
    lowest_db, highest_db = MIDPOINT_DB[lower] - span_db, MIDPOINT_DB[upper] + span_db
    return cast(float, brentq(advantage, lowest_db, highest_db))


def ideal_on_subcarriers(snr_F: FloatArray, grid: ResourceGrid) -> tuple[IntArray, FloatArray]:
    """Return the MCS with the highest goodput over subcarriers, and the effective SNR with it.

    Args:
        snr_F: Linear SNR of each subcarrier on the last axis.
        grid: Decides the length of a block.

    Returns:
        MCS and effective SNR in dB, of the shape of the axes before.

    Raises:
        UserError: If an SNR is negative or no number.
    """
    bits = grid.transport_block_bits().astype(np.float64)
    best_mcs, best_snr_db = np.zeros(snr_F.shape[:-1], np.int64), np.zeros(snr_F.shape[:-1])
    best = np.full(snr_F.shape[:-1], -1.0)
    for mcs in range(MCS_COUNT):
        snr_db = effective_snr_db(snr_F, mcs)
        goodput = EFFICIENCY[mcs] * np.exp(log_success(snr_db, MIDPOINT_DB[mcs], bits[mcs]))
        better = goodput > best
        best_mcs[better], best_snr_db[better], best[better] = mcs, snr_db[better], goodput[better]
    return best_mcs, best_snr_db


def mcs_at_target(snr_db: ArrayLike, grid: ResourceGrid, target: float) -> IntArray:
    """Return the highest MCS whose blocks fail at most as often as the target; 0 where none does.

    Raises:
        UserError: If an SNR is no number, or the target not inside (0, 1).
    """
    return _highest(_needed_db(grid, target), checked("snr_db", snr_db))


def _needed_db(grid: ResourceGrid, target: float) -> FloatArray:
    needed_db = snr_db_at(target, np.arange(MCS_COUNT), grid.transport_block_bits())
    # An MCS that needs more than one above it is never the highest.
    return np.minimum.accumulate(needed_db[::-1])[::-1]


def _highest(needed_db: FloatArray, snr_db: FloatArray) -> IntArray:
    return np.maximum(np.searchsorted(needed_db, snr_db, side="right") - 1, 0)


def outer_loop(
    snr_db_NT: FloatArray,
    grid: ResourceGrid,
    config: OuterLoopConfig,
    rng: np.random.Generator,
    bias_db: float = 0.0,
) -> OuterLoopRun:
    """Run the outer loop over SNR paths with a block in every slot.

    The reports before the first slot are those of the first slot.

    Args:
        snr_db_NT: SNR in dB of N users, who are adapted independently.
        grid: Decides the length of a block.
        config: The loop.
        rng: Decides which blocks fail.
        bias_db: What the reports are too high by; the loop takes it back.

    Raises:
        UserError: If the paths have no slots, or an SNR is no number.
    """
    snr_db_NT = checked("snr_db", snr_db_NT)
    if snr_db_NT.ndim != 2 or snr_db_NT.shape[1] == 0:
        raise UserError(f"SNR paths have shape {snr_db_NT.shape}: give (users, slots)")
    delay, bits = config.feedback_delay_slots, grid.transport_block_bits().astype(np.float64)
    needed_db = _needed_db(grid, config.target)
    up_db = config.step_db * config.target / (1 - config.target)
    users, slots = snr_db_NT.shape
    log_draws_NT = -rng.standard_exponential((users, slots))
    mcs_NT, failed_NT = np.zeros((users, slots), np.int64), np.zeros((users, slots), bool)
    offset_db_NT, offset_db_N = np.zeros((users, slots)), np.zeros(users)
    for t in range(slots):
        if t >= delay:
            change_N = np.where(failed_NT[:, t - delay], -config.step_db, up_db)
            bound = config.max_offset_db
            offset_db_N = np.clip(offset_db_N + change_N, -bound, bound)
        offset_db_NT[:, t] = offset_db_N
        reported_N = snr_db_NT[:, max(t - delay, 0)] + bias_db
        mcs_NT[:, t] = mcs_N = _highest(needed_db, reported_N + offset_db_N)
        received_N = log_success(snr_db_NT[:, t], MIDPOINT_DB[mcs_N], bits[mcs_N])
        failed_NT[:, t] = log_draws_NT[:, t] > received_N
    return OuterLoopRun(mcs_NT, failed_NT, offset_db_NT)
