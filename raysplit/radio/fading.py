"""Fading in time: the complex gain of a path, one value a slot, with mean power 1.

A gain stays during a slot (block fading) and is correlated from slot to slot. Rayleigh, or Rician
with the ratio K of the direct path's power to that of the scattered ones:

    h = sqrt(K / (K + 1)) exp(i 2 pi 0.7 f_d t + i phase) + sqrt(1 / (K + 1)) g

The direct path's Doppler shift is 0.7 f_d (TR 38.901, 7.7.2). The scattered part g is, with
f_d = v f_c / c and J0 the Bessel function:

    jakes          64 plane waves from evenly spread directions with a random offset, with random
                   phases (Clarke 1968, Jakes 1974); E[g(t) g*(t + tau)] = J0(2 pi f_d tau)
    gauss_markov   first-order autoregressive, correlation J0(2 pi f_d step)^k at k steps

The marginal distribution is exactly complex normal for gauss_markov; of 64 waves E|g|^4 is
2 - 1/64 instead of 2. The closed forms of the outage for Eq. 4 are in `raysplit.link.fading`.

Shape suffixes: N paths, T slots, M plane waves.
"""

# scipy ships no type information:
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import math
from typing import Literal, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from raysplit.base.arrays import FloatArray
from raysplit.base.config import Config
from raysplit.radio.checks import checked
from raysplit.radio.correlated import autoregressive
from raysplit.radio.place import SPEED_OF_LIGHT_M_S

ComplexArray = NDArray[np.complex128]

PLANE_WAVES = 64
DIRECT_DOPPLER = 0.7  # of f_d


class FadingConfig(Config):
    """How the gain of one path changes.

    Attributes:
        correlation: Of the scattered part in time.
        rician_k: Direct over scattered power; 0 is Rayleigh.
        speed_m_s: Speed of the phone; at 0 the gain stays what it was drawn as.
    """

    correlation: Literal["jakes", "gauss_markov"] = "jakes"
    rician_k: float = Field(default=0.0, ge=0)
    speed_m_s: float = Field(default=1.0, ge=0)


def doppler_hz(speed_m_s: float, carrier_ghz: float) -> float:
    """Return the greatest Doppler shift f_d = v f_c / c; 1 m/s at 3.5 GHz give 11.7 Hz.

    Raises:
        UserError: If a value is outside its range.
    """
    speed = float(checked("speed_m_s", speed_m_s, low=0))
    return speed * float(checked("carrier_ghz", carrier_ghz, above=0)) * 1e9 / SPEED_OF_LIGHT_M_S


def jakes_correlation(delay_s: ArrayLike, doppler_hz: float) -> FloatArray:
    """Return J0(2 pi f_d tau), the correlation of a scattered gain with itself after tau."""
    from scipy.special import j0

    return cast(FloatArray, j0(2 * np.pi * doppler_hz * np.asarray(delay_s)))


def fading_gains(
    config: FadingConfig,
    carrier_ghz: float,
    step_s: float,
    steps: int,
    rng: np.random.Generator,
    paths: int = 1,
) -> ComplexArray:
    """Draw complex gains, shape (paths, steps), with E|h|^2 = 1.

    Args:
        config: Kind of fading.
        carrier_ghz: Carrier frequency.
        step_s: Seconds from one gain to the next.
        steps: Gains of a path.
        rng: Where randomness is from.
        paths: Paths, independent of each other.

    Raises:
        UserError: If a value is outside its range.
    """
    from scipy.special import j0

    step_s = float(checked("step_s", step_s, above=0))
    steps, paths = int(checked("steps", steps, low=1)), int(checked("paths", paths, low=1))
    turn = 2 * math.pi * doppler_hz(config.speed_m_s, carrier_ghz) * step_s  # of a step, in radians
    if config.correlation == "jakes":
        scattered_NT = _plane_waves(turn, steps, paths, rng)
    else:
        parts = rng.standard_normal((2, paths, steps)) * math.sqrt(0.5)
        scattered_NT = autoregressive(parts[0] + 1j * parts[1], float(j0(turn)))
    k = config.rician_k
    if k == 0:
        return scattered_NT
    phases_N1 = rng.uniform(0, 2 * np.pi, (paths, 1))
    direct_NT = np.exp(1j * (phases_N1 + DIRECT_DOPPLER * turn * np.arange(steps)))
    return math.sqrt(k / (k + 1)) * direct_NT + math.sqrt(1 / (k + 1)) * scattered_NT


def _plane_waves(turn: float, steps: int, paths: int, rng: np.random.Generator) -> ComplexArray:
    offsets_N1 = rng.random((paths, 1))
    angles_NM = 2 * np.pi * (np.arange(PLANE_WAVES) + offsets_N1) / PLANE_WAVES
    turns_NM = turn * np.cos(angles_NM)
    phases_NM = rng.uniform(0, 2 * np.pi, (paths, PLANE_WAVES))
    # exp(i w (a B + b)) = exp(i w a B) exp(i w b): the sum over waves is a product of matrices.
    inner = math.isqrt(steps - 1) + 1
    outer = -(-steps // inner)
    starts_NOM = np.exp(
        1j * (phases_NM[:, None] + turns_NM[:, None] * (inner * np.arange(outer))[:, None])
    )
    turned_NMI = np.exp(1j * turns_NM[:, :, None] * np.arange(inner))
    gains_NT = (starts_NOM @ turned_NMI).reshape(paths, outer * inner)[:, :steps]
    return np.multiply(gains_NT, PLANE_WAVES**-0.5)
