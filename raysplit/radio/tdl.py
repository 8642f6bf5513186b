"""Tapped delay lines TDL-A, -B and -C (TR 38.901, tables 7.7.2-1 to -3): channels without sight.

Each tap fades by itself (Rayleigh) with its share of the power; the response of a subcarrier at
frequency f is H(f) = sum of a_l exp(-i 2 pi f tau_l), and E|H|^2 = 1.

Shape suffixes: N paths, T slots, L taps, F subcarriers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from raysplit.base.arrays import FloatArray
from raysplit.base.errors import UserError, suggest
from raysplit.radio.checks import checked
from raysplit.radio.fading import ComplexArray, FadingConfig, fading_gains

TdlName = Literal["TDL-A", "TDL-B", "TDL-C"]


@dataclass(frozen=True, slots=True, eq=False)
class PowerDelayProfile:
    """Where the power of a channel arrives.

    Attributes:
        delays_L: Delays in units of the delay spread.
        powers_L: Shares of the power; they add up to 1.
    """

    delays_L: FloatArray
    powers_L: FloatArray

    @classmethod
    def of(cls, delays: tuple[float, ...], powers_db: tuple[float, ...]) -> PowerDelayProfile:
        """Build a profile from relative powers in dB."""
        powers_L = 10 ** (np.array(powers_db) / 10)
        return cls(np.array(delays), powers_L / powers_L.sum())

    def delay_spread(self) -> float:
        """Return the root mean square of the delays about their mean; 1 but for rounding."""
        mean = self.powers_L @ self.delays_L
        return float(np.sqrt(self.powers_L @ (self.delays_L - mean) ** 2))


PROFILES: dict[str, PowerDelayProfile] = {
    "TDL-A": PowerDelayProfile.of(
        (0, .3819, .4025, .5868, .461, .5375, .6708, .575, .7618, 1.5375, 1.8978, 2.2242, 2.1718,
         2.4942, 2.5119, 3.0582, 4.081, 4.4579, 4.5695, 4.7966, 5.0066, 5.3043, 9.6586),
        (-13.4, 0, -2.2, -4, -6, -8.2, -9.9, -10.5, -7.5, -15.9, -6.6, -16.7, -12.4, -15.2, -10.8,
         -11.3, -12.7, -16.2, -18.3, -18.9, -16.6, -19.9, -29.7),
    ),
    "TDL-B": PowerDelayProfile.of(
        (0, .1072, .2155, .2095, .287, .2986, .3752, .5055, .3681, .3697, .57, .5283, 1.1021,
         1.2756, 1.5474, 1.7842, 2.0169, 2.8294, 3.0219, 3.6187, 4.1067, 4.279, 4.7834),
        (0, -2.2, -4, -3.2, -9.8, -1.2, -3.4, -5.2, -7.6, -3, -8.9, -9, -4.8, -5.7, -7.5, -1.9,
         -7.6, -12.2, -9.8, -11.4, -14.9, -9.2, -11.3),
    ),
    "TDL-C": PowerDelayProfile.of(
        (0, .2099, .2219, .2329, .2176, .6366, .6448, .656, .6584, .7935, .8213, .9336, 1.2285,
         1.3083, 2.1704, 2.7105, 4.2589, 4.6003, 5.4902, 5.6077, 6.3065, 6.6374, 7.0427, 8.6523),
        (-4.4, -1.2, -3.5, -5.2, -2.5, 0, -2.2, -3.9, -7.4, -7.1, -10.7, -11.1, -5.1, -6.8, -8.7,
         -13.2, -13.9, -13.9, -15.8, -17.1, -16, -15.7, -21.6, -22.8),
    ),
}  # fmt: skip


def profile(name: str) -> PowerDelayProfile:
    """Return a profile by name.

    Raises:
        UserError: If it is unknown.
    """
    if name not in PROFILES:
        raise UserError(
            f"unknown delay profile '{name}'; known: {', '.join(PROFILES)}{suggest(name, PROFILES)}"
        )
    return PROFILES[name]


def tdl_gains(
    name: str,
    fading: FadingConfig,
    carrier_ghz: float,
    step_s: float,
    steps: int,
    rng: np.random.Generator,
    paths: int = 1,
) -> ComplexArray:
    """Draw the taps' complex gains, shape (paths, taps, steps); arguments as of `fading_gains`.

    Raises:
        UserError: If the profile is unknown, the fading has a direct path, which these profiles
            lack, or a value is outside its range.
    """
    powers_L = profile(name).powers_L
    if fading.rician_k > 0:
        raise UserError(
            f"rician_k = {fading.rician_k:g} does not go with {name}, which has no direct path: "
            "set it to 0, or take one flat path"
        )
    drawn = fading_gains(fading, carrier_ghz, step_s, steps, rng, paths * len(powers_L))
    return drawn.reshape(paths, len(powers_L), -1) * np.sqrt(powers_L)[:, None]


def frequency_response(
    gains_NLT: ComplexArray, name: str, delay_spread_ns: float, frequencies_F: FloatArray
) -> ComplexArray:
    """Return the response of every subcarrier, shape (N, T, F).

    Args:
        gains_NLT: Of the taps.
        name: Their profile.
        delay_spread_ns: Root mean square delay spread, which multiplies the profile's delays.
        frequencies_F: Subcarriers relative to the carrier, in Hz.

    Raises:
        UserError: If a value is outside its range.
    """
    spread_s = float(checked("delay_spread_ns", delay_spread_ns, low=0)) * 1e-9
    delays_L = profile(name).delays_L * spread_s
    phases_LF = np.exp(-2j * np.pi * delays_L[:, None] * frequencies_F)
    return np.swapaxes(gains_NLT, -1, -2) @ phases_LF
