"""The radio: rates of the MCS table, the mean of a recorded trace, and transfers a second.

Transfers are timed by the process' own time on one thread, the drawing of the fading included: a
million of them, each the hidden state of a token (4,096 elements, 4.25 bits each), over Rayleigh
fading of a walk, with HARQ.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from bench.report import BenchReport, Options
from raysplit.radio import (
    ChannelConfig,
    ideal_mcs,
    load_cell,
    rate_mbit_s,
    read_trace_file,
    simulate_transfers,
    snr_path_db,
)

_ELEMENTS_PER_S = 15.5e6
_RATES_MBIT_S = {3: 7.6, 14: 33.0, 27: 82.0}
_TRACE_MBIT_S = 5.95
TARGETS = {
    "rate_mcs": ("<=", 0.03),
    "trace_error": ("<=", 0.005),
    "transfers_per_s": (">=", 1e5),
}
_TOKEN_BITS = 4096 * 4.25
_MEAN_SNR_DB, _SLOTS = 12.0, 200_000


def config(options: Options) -> dict[str, Any]:
    """Say what `add` simulates."""
    return {
        "transfers": _transfers_of(options),
        "bits": _TOKEN_BITS,
        "mean_snr_db": _MEAN_SNR_DB,
        "cell": "lte",
        "resource_elements_per_s": _ELEMENTS_PER_S,
    }


def add(report: BenchReport, options: Options) -> None:
    """Compute and time every figure."""
    _rates(report)
    _trace(report, options)
    _transfers(report, _transfers_of(options))


def _transfers_of(options: Options) -> int:
    return 50_000 if options.quick else 1_000_000


def _rates(report: BenchReport) -> None:
    """The greatest relative distance to the known rates, and the rates."""
    rates = {mcs: float(rate_mbit_s(_ELEMENTS_PER_S, mcs)) for mcs in _RATES_MBIT_S}
    report.add({"rate_mcs": max(abs(rates[m] / known - 1) for m, known in _RATES_MBIT_S.items())})
    report.add({f"rate_mcs_{mcs}_mbit_s": rate for mcs, rate in rates.items()})


def _trace(report: BenchReport, options: Options) -> None:
    if options.lte_trace is None:
        for name in ("trace_mean_mbit_s", "trace_error"):
            report.skip(name, "needs an LTE trace: RAYSPLIT_LTE_TRACE or --lte-trace")
        return
    mean = read_trace_file(options.lte_trace).mean()
    report.add({"trace_mean_mbit_s": mean, "trace_error": abs(mean / _TRACE_MBIT_S - 1)})


def _transfers(report: BenchReport, count: int) -> None:
    begin = time.process_time()
    cell, rng = load_cell("lte"), np.random.default_rng(0)
    snr_db_T = snr_path_db(ChannelConfig(), cell, _MEAN_SNR_DB, _SLOTS, rng)
    mcs_T = ideal_mcs(snr_db_T, cell.grid)
    starts_N = rng.integers(0, _SLOTS, count)
    sent = simulate_transfers(snr_db_T, mcs_T, starts_N, _TOKEN_BITS, cell, rng)
    spent_s = time.process_time() - begin
    report.add(
        {
            "transfers_per_s": count / spent_s,
            "transfer_p99_ms": float(sent.quantiles_ms(0.99)),
            "transfer_loss": float(np.mean(~sent.delivered_N)),
        }
    )
