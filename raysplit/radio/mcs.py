"""Modulation and coding schemes (MCS), and the rate that a grid of resource elements gives them.

TS 38.214, table 5.1.3.1-1 (index 0-28; up to 64-QAM): of PDSCH, and of PUSCH with CP-OFDM
(TS 38.214, 6.1.4.1). rate = resource elements/s x bits per symbol x code rate x (1 - BLER).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from raysplit.base.arrays import FloatArray, IntArray
from raysplit.base.config import Config
from raysplit.base.errors import UserError
from raysplit.radio.checks import checked

MODULATION_BITS: IntArray = np.repeat([2, 4, 6], [10, 7, 12])
"""Bits per symbol of each MCS: QPSK, 16-QAM, 64-QAM."""

_CODE_RATES_X1024 = (
    *(120, 157, 193, 251, 308, 379, 449, 526, 602, 679),
    *(340, 378, 434, 490, 553, 616, 658),
    *(438, 466, 517, 567, 616, 666, 719, 772, 822, 873, 910, 948),
)
CODE_RATES: FloatArray = np.array(_CODE_RATES_X1024) / 1024
EFFICIENCY: FloatArray = MODULATION_BITS * CODE_RATES
"""Information bits per resource element of each MCS; 16 and 17 differ by 0.5 % and swap places."""

MCS_COUNT = len(EFFICIENCY)
_SUBCARRIERS, _SYMBOLS = 12, 14  # of a resource block; of a slot (TS 38.211, 4.4.4.1 and 4.3.2)


class ResourceGrid(Config):
    """The resource elements that one uplink user has for data.

    Attributes:
        resource_blocks: Resource blocks of 12 subcarriers.
        subcarrier_spacing_khz: Decides the length of a slot: 1 ms at 15 kHz (TS 38.211, 4.3.2).
        uplink_share: Share of the slots that are uplink: 1 with frequency division duplex.
        data_symbols: OFDM symbols of a slot, of 14, that carry data; the others carry reference
            signals.
    """

    resource_blocks: int = Field(ge=1, le=275)
    subcarrier_spacing_khz: Literal[15, 30, 60, 120] = 15
    uplink_share: float = Field(default=1.0, gt=0, le=1)
    data_symbols: int = Field(default=12, ge=1, le=_SYMBOLS)

    @property
    def resource_elements(self) -> int:
        """Resource elements for data in one uplink slot."""
        return self.resource_blocks * _SUBCARRIERS * self.data_symbols

    @property
    def uplink_slot_ms(self) -> float:
        """Mean time from one uplink slot to the next, in ms."""
        return 15 / self.subcarrier_spacing_khz / self.uplink_share

    @property
    def resource_elements_per_s(self) -> float:
        """Resource elements for data in a second."""
        return self.resource_elements / self.uplink_slot_ms * 1e3

    @property
    def bandwidth_hz(self) -> float:
        """Width of the occupied subcarriers."""
        return self.resource_blocks * _SUBCARRIERS * self.subcarrier_spacing_khz * 1e3

    def subcarrier_frequencies_hz(self) -> FloatArray:
        """Return the middle of each resource block relative to the carrier, shape (F,)."""
        block_hz = _SUBCARRIERS * self.subcarrier_spacing_khz * 1e3
        half_hz = block_hz * (self.resource_blocks - 1) / 2
        return np.linspace(-half_hz, half_hz, self.resource_blocks)

    def transport_block_bits(self) -> IntArray:
        """Return the information bits that a slot carries with each MCS, shape (29,).

        The quantised intermediate sizes of TS 38.214, 5.1.3.2 are left out (about 2 %).
        """
        return np.floor(self.resource_elements * EFFICIENCY).astype(np.int64)


def rate_mbit_s(
    resource_elements_per_s: ArrayLike, mcs: ArrayLike, block_error_rate: ArrayLike = 0.0
) -> FloatArray:
    """Return the information rate in Mbit/s; arguments broadcast.

    Args:
        resource_elements_per_s: Of the grid, for data.
        mcs: MCS index.
        block_error_rate: Share of the blocks that are lost, in [0, 1]; 0 gives the gross rate.

    Raises:
        UserError: If a value is outside its range.
    """
    elements_per_s = checked("resource_elements_per_s", resource_elements_per_s, low=0)
    error_rate = checked("block_error_rate", block_error_rate, low=0, high=1)
    return elements_per_s * EFFICIENCY[checked_mcs(mcs)] * (1 - error_rate) * 1e-6


def checked_mcs(mcs: ArrayLike) -> IntArray:
    """Return MCS indices as whole numbers.

    Raises:
        UserError: If one is not in the table.
    """
    values = np.asarray(mcs)
    wrong = ~np.isin(values, np.arange(MCS_COUNT))
    if wrong.any():
        raise UserError(
            f"MCS {values[wrong].flat[0]:g} is not in the table: take a whole number from 0 to "
            f"{MCS_COUNT - 1} (TS 38.214, table 5.1.3.1-1)"
        )
    return values.astype(np.int64)
