"""Exponential effective SINR mapping: one SNR that stands for many subcarriers.

SNR_eff = -beta ln mean_f exp(-SNR_f / beta): the flat channel on which a code block fails as often.
"""

from __future__ import annotations

import numpy as np

from raysplit.base.arrays import FloatArray
from raysplit.radio.checks import checked
from raysplit.radio.mcs import checked_mcs

BETA: FloatArray = np.array([
    1.60, 1.61, 1.63, 1.65, 1.67, 1.70, 1.73, 1.76, 1.79, 1.82,
    3.97, 4.27, 4.71, 5.16, 5.66, 6.16, 6.50,
    9.95, 10.97, 12.92, 14.96, 17.06, 19.33, 21.85, 24.51, 27.14, 29.94, 32.05, 34.28,
])  # fmt: skip
"""Beta of each MCS: Lagen et al., "New Radio Physical Layer Abstraction for System-Level
Simulations of 5G Networks", IEEE ICC 2020, as in the tables of 5G-LENA and Sionna."""


def effective_snr_db(snr_F: FloatArray, mcs: int) -> FloatArray:
    """Return the effective SNR in dB over the last axis.

    Args:
        snr_F: SNR of each subcarrier, linear, at least 0; any axes before.
        mcs: MCS index, which decides beta.

    Raises:
        UserError: If a value is outside its range.
    """
    beta = BETA[checked_mcs(mcs)]
    scaled = checked("snr", snr_F, low=0) / beta
    # The least exponent is taken out, so that the mean cannot underflow.
    least = scaled.min(axis=-1)
    mean = np.mean(np.exp(least[..., None] - scaled), axis=-1)
    with np.errstate(divide="ignore"):  # no signal at all: -inf dB
        return 10 * np.log10(beta * (least - np.log(mean)))
