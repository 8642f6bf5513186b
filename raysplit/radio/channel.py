"""SNR over time: mean SNR of a place, shadowing on the way, fading slot by slot."""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field, model_validator

from raysplit.base.arrays import FloatArray
from raysplit.radio.adaptation import ideal_on_subcarriers
from raysplit.radio.cell import Cell
from raysplit.radio.checks import checked
from raysplit.radio.fading import FadingConfig, fading_gains
from raysplit.radio.place import Place
from raysplit.radio.tdl import TdlName, frequency_response, tdl_gains

_NOISE_DBM_HZ = -174.0  # thermal noise at 290 K
_SLOTS_AT_ONCE = 1024  # whose subcarriers are in memory together


class ChannelConfig(FadingConfig):
    """Fading of a channel over time and, with a delay profile, over subcarriers.

    Attributes:
        profile: One flat path, or a tapped delay line of TR 38.901.
        delay_spread_ns: Root mean square delay spread; the flat path has none.
    """

    profile: Literal["flat"] | TdlName = "flat"
    delay_spread_ns: float = Field(default=100.0, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.profile != "flat" and self.rician_k > 0:
            raise ValueError(
                f"rician_k={self.rician_k:g} needs a direct path, which {self.profile} lacks: "
                "set rician_k to 0, or profile to flat"
            )
        return self


def mean_snr_db(
    cell: Cell, place: Place, distance_m: ArrayLike, phone_height_m: float = 1.5
) -> FloatArray:
    """Return the uplink's mean SNR in dB without shadowing and interference.

    Power and noise are spread over all resource blocks of the cell.

    Args:
        cell: Powers, noise, carrier.
        place: Path loss.
        distance_m: Distance over ground, 10 m to 5 km.
        phone_height_m: 1.5 to 13 m.

    Raises:
        UserError: If a value is outside its range.
    """
    loss_db = place.path_loss_db(distance_m, cell.carrier_ghz, phone_height_m)
    noise_dbm = _NOISE_DBM_HZ + 10 * np.log10(cell.grid.bandwidth_hz) + cell.noise_figure_db
    return cell.phone_power_dbm + cell.antenna_gain_db - loss_db - noise_dbm


def rsrp_to_snr_db(rsrp_dbm: ArrayLike, cell: Cell) -> FloatArray:
    """Return the uplink's SNR in dB where the phone measures an RSRP in dBm.

    The path loss, antennas included, is what the base station's power per subcarrier has lost, and
    the same on the way back; interference is left out.

    Raises:
        UserError: If an RSRP is not below 0 dBm.
    """
    loss_db = cell.base_power_dbm - checked("rsrp_dbm", rsrp_dbm, high=0)  # times the subcarriers
    subcarrier_hz = cell.grid.subcarrier_spacing_khz * 1e3
    noise_dbm = _NOISE_DBM_HZ + 10 * np.log10(subcarrier_hz) + cell.noise_figure_db
    return cell.phone_power_dbm - loss_db - noise_dbm


def snr_path_db(
    channel: ChannelConfig,
    cell: Cell,
    mean_snr_db: ArrayLike,
    steps: int,
    rng: np.random.Generator,
    *,
    step_s: float | None = None,
) -> FloatArray:
    """Draw the SNR of consecutive uplink slots, or at other times, in dB, shape (steps,).

    Of a channel with a delay profile it is the effective SNR over the cell's resource blocks (one
    subcarrier of each), by EESM for the MCS of highest goodput.

    Args:
        channel: Fading.
        cell: Its carrier, grid and length of a slot.
        mean_snr_db: One mean, or one a slot (with path loss and shadowing).
        steps: Slots.
        rng: Where randomness is from.
        step_s: Seconds from one value to the next; None: an uplink slot of the cell.

    Raises:
        UserError: If a value is outside its range.
    """
    if step_s is None:
        step_s = cell.grid.uplink_slot_ms * 1e-3
    steps = int(checked("steps", steps, low=1))
    mean_T = np.broadcast_to(10 ** (checked("mean_snr_db", mean_snr_db) / 10), (steps,))
    if channel.profile == "flat":
        gains_T = fading_gains(channel, cell.carrier_ghz, step_s, steps, rng)[0]
        return 10 * np.log10(mean_T * np.abs(gains_T) ** 2)
    gains_LT = tdl_gains(channel.profile, channel, cell.carrier_ghz, step_s, steps, rng)[0]
    frequencies_F = cell.grid.subcarrier_frequencies_hz()
    snr_db_T = np.empty(steps)
    for begin in range(0, steps, _SLOTS_AT_ONCE):
        part = slice(begin, begin + _SLOTS_AT_ONCE)
        response_TF = frequency_response(
            gains_LT[:, part], channel.profile, channel.delay_spread_ns, frequencies_F
        )
        snr_TF = mean_T[part, None] * np.abs(response_TF) ** 2
        snr_db_T[part] = ideal_on_subcarriers(snr_TF, cell.grid)[1]
    return snr_db_T
