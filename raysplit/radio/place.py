"""Places: path loss and shadowing of TR 38.901, and the mean SNR that they leave.

Table 7.4.1-1: urban macro (UMa) and urban micro, street canyon (UMi), for carriers of 0.5-100 GHz.
With d the distance to the antenna in space in m, f the carrier in GHz, h heights in m:

    UMa LOS    28.0 + 22 lg d + 20 lg f                      up to the break point
               28.0 + 40 lg d + 20 lg f - 9 lg(d_BP^2 + (h_BS - h_UT)^2)              beyond
    UMa NLOS   13.54 + 39.08 lg d + 20 lg f - 0.6 (h_UT - 1.5)       or LOS where that is more
    UMi LOS    32.4 + 21 lg d + 20 lg f
               32.4 + 40 lg d + 20 lg f - 9.5 lg(d_BP^2 + (h_BS - h_UT)^2)
    UMi NLOS   22.4 + 35.3 lg d + 21.3 lg f - 0.3 (h_UT - 1.5)       or LOS where that is more
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from raysplit.base.arrays import FloatArray
from raysplit.base.config import Config
from raysplit.radio.checks import checked
from raysplit.radio.correlated import autoregressive

SPEED_OF_LIGHT_M_S = 299_792_458.0
_ENVIRONMENT_HEIGHT_M = 1.0  # h_E of the break point (note 1), for phones below 13 m
_NEAREST_M, _FARTHEST_M = 10.0, 5000.0  # where the formulas hold


class Place(Config):
    """Where the phone is, as far as the path is concerned.

    Attributes:
        formula: Urban macro or urban micro.
        line_of_sight: Whether the base station is seen.
        base_height_m: Height of its antenna.
        shadowing_std_db: Standard deviation of the shadowing.
        decorrelation_m: Distance over which the shadowing's correlation falls to 1/e.
        source: Where the constants are from.
        date: When they were looked up, year and month.
    """

    formula: Literal["uma", "umi"]
    line_of_sight: bool
    base_height_m: float = Field(gt=1)
    shadowing_std_db: float = Field(ge=0)
    decorrelation_m: float = Field(gt=0)
    source: str = ""
    date: str = ""

    def path_loss_db(
        self, distance_m: ArrayLike, carrier_ghz: float, phone_height_m: float = 1.5
    ) -> FloatArray:
        """Return the mean path loss in dB.

        Args:
            distance_m: Distance over ground, 10 m to 5 km.
            carrier_ghz: Carrier frequency, 0.5 to 100 GHz.
            phone_height_m: 1.5 to 13 m.

        Raises:
            UserError: If a value is outside its range.
        """
        distance_m = checked("distance_m", distance_m, low=_NEAREST_M, high=_FARTHEST_M)
        carrier = checked("carrier_ghz", carrier_ghz, low=0.5, high=100)
        height = checked("phone_height_m", phone_height_m, low=1.5, high=13)
        climb_m = self.base_height_m - height
        lg_distance = np.log10(np.hypot(distance_m, climb_m))
        constant, slope, break_factor = (
            (28.0, 22.0, 9.0) if self.formula == "uma" else (32.4, 21.0, 9.5)
        )
        break_m = (
            4 * (self.base_height_m - _ENVIRONMENT_HEIGHT_M) * (height - _ENVIRONMENT_HEIGHT_M)
            * carrier * 1e9 / SPEED_OF_LIGHT_M_S
        )  # fmt: skip
        sight_db = constant + 20 * np.log10(carrier) + np.where(
            distance_m <= break_m,
            slope * lg_distance,
            40 * lg_distance - break_factor * np.log10(break_m**2 + climb_m**2),
        )  # fmt: skip
        if self.line_of_sight:
            return sight_db
        if self.formula == "uma":
            hidden_db = 13.54 + 39.08 * lg_distance + 20 * np.log10(carrier) - 0.6 * (height - 1.5)
        else:
            hidden_db = 22.4 + 35.3 * lg_distance + 21.3 * np.log10(carrier) - 0.3 * (height - 1.5)
        return np.maximum(sight_db, hidden_db)

    def shadowing_db(
        self, steps: int, step_m: float, rng: np.random.Generator, paths: int = 1
    ) -> FloatArray:
        """Draw the shadowing in dB along ways, shape (paths, steps): an offset to the mean SNR.

        Normal, with the correlation exp(-distance / decorrelation_m) (TR 38.901, 7.4.4).

        Args:
            steps: Points of a way, at least 1.
            step_m: Metres from one to the next, at least 0.
            rng: Where randomness is from.
            paths: Ways, independent of each other.

        Raises:
            UserError: If a value is outside its range.
        """
        step_m = float(checked("step_m", step_m, low=0))
        correlation = float(np.exp(-step_m / self.decorrelation_m))
        shape = (int(checked("paths", paths, low=1)), int(checked("steps", steps, low=1)))
        return self.shadowing_std_db * autoregressive(rng.standard_normal(shape), correlation)
