"""How often a transport block is received in error, against SNR.

A code block of K bits fails with probability Q((SNR - m) / s(K)), SNR and m in dB: m is the MCS'
midpoint, s the width of the waterfall, s(K) = 0.32 dB sqrt(1000 / K). That the width goes with
1 / sqrt(K) and the midpoint stays is the normal approximation of finite block lengths (Polyanskiy,
Poor, Verdu, IEEE Trans. Inf. Theory 56(5), 2010).

Midpoints of MCS 3-27 and the width: maximum likelihood on the PUSCH table of Sionna 2.2 (LDPC of
5G NR in AWGN, blocks of 500, 1,000 and 2,000 bits, SNR in steps of 1.79 dB), read 2026-11. One
width for all MCS keeps the curves of two MCS from crossing; fitted one by one it is 0.25 dB for
QPSK and 0.4 dB for 64-QAM. Outside the table (MCS 0-2 and 28) the distance to Shannon's limit of
the nearest entry is kept.

A transport block is cut into C code blocks of at most 8,448 bits (LDPC base graph 1, TS 38.212,
5.2.2), and fails where one of them does.
"""

# scipy ships no type information:
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import ArrayLike

from raysplit.base.arrays import FloatArray
from raysplit.radio.checks import checked
from raysplit.radio.mcs import EFFICIENCY, checked_mcs

MAX_CODE_BLOCK_BITS = 8448
_WIDTH_DB_1000 = 0.32
_FITTED_MIDPOINTS_DB = (
    *(-2.90, -2.02, -0.64, 0.14, 1.22, 2.08, 3.00),  # MCS 3-9, QPSK
    *(3.18, 3.90, 4.86, 5.76, 6.76, 7.74, 8.42),  # 10-16, 16-QAM
    *(9.38, 10.42, 11.36, 12.38, 13.24, 14.24, 15.12, 16.18, 17.20, 18.06, 18.84),  # 17-27, 64-QAM
)


def _midpoints_db() -> FloatArray:
    shannon_db = 10 * np.log10(2**EFFICIENCY - 1)
    fitted = np.array(_FITTED_MIDPOINTS_DB)
    below = shannon_db[:3] + fitted[0] - shannon_db[3]
    above = shannon_db[28:] + fitted[-1] - shannon_db[27]
    return np.concatenate([below, fitted, above])


MIDPOINT_DB: FloatArray = _midpoints_db()
"""SNR at which half of the code blocks fail, by MCS."""


def block_error_rate(snr_db: ArrayLike, mcs: ArrayLike, bits: ArrayLike) -> FloatArray:
    """Return the probability that a transport block is received in error; arguments broadcast.

    Falls with SNR, rises with the MCS at equal SNR and length.

    Args:
        snr_db: SNR in dB; with fading the effective one (`raysplit.radio.eesm`).
        mcs: MCS index.
        bits: Length of the block, at least 1.

    Raises:
        UserError: If a value is outside its range.
    """
    midpoint_db, bits = MIDPOINT_DB[checked_mcs(mcs)], checked("bits", bits, low=1)
    # 1 - (1 - Q(x))^C, without losing small values.
    return -np.expm1(log_success(checked("snr_db", snr_db), midpoint_db, bits))


def log_success(snr_db: FloatArray, midpoint_db: FloatArray, bits: FloatArray) -> FloatArray:
    """Return the logarithm of the probability that a block is received; for inner loops."""
    from scipy.special import log_ndtr

    code_blocks = np.ceil(bits / MAX_CODE_BLOCK_BITS)
    x = (snr_db - midpoint_db) / _width_db(bits / code_blocks)
    return cast(FloatArray, code_blocks * log_ndtr(x))


def snr_db_at(target: ArrayLike, mcs: ArrayLike, bits: ArrayLike) -> FloatArray:
    """Return the SNR in dB at which a transport block fails with a given probability.

    Args:
        target: The probability, inside (0, 1).
        mcs: MCS index.
        bits: Length of the block, at least 1.

    Raises:
        UserError: If a value is outside its range.
    """
    from scipy.special import ndtri

    wanted = checked("target", target, above=0, high=1 - 1e-12)
    lengths = checked("bits", bits, low=1)
    code_blocks = np.ceil(lengths / MAX_CODE_BLOCK_BITS)
    received_each = (1 - wanted) ** (1 / code_blocks)
    width_db = _width_db(lengths / code_blocks)
    return cast(FloatArray, MIDPOINT_DB[checked_mcs(mcs)] + width_db * ndtri(received_each))


def _width_db(code_block_bits: FloatArray) -> FloatArray:
    return _WIDTH_DB_1000 * np.sqrt(1000 / code_block_bits)
