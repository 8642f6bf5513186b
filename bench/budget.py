"""`raysplit budget` as a user waits for it, and what a prompt of 512 tokens takes on the air.

The whole command counts, from starting Python to its last line; leave the machine alone meanwhile.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from raysplit.budget import load_setup, split_costs
from raysplit.model.sizes import sizes_of

TARGETS = {"budget_s": ("<=", 1.0)}
_RUNS = 5
_RATES_MBIT_S = (0.83, 13.3, 165.0)
_CODECS = ("identity", "int4/64")


def fields() -> dict[str, float]:
    """Return this part's figures of the report `radio-budget`.

    `budget_s` is the median of five runs of the command; `ttft_transfer_s` stands once for each
    codec and rate in Mbit/s.
    """
    figures = {"budget_s": statistics.median(_command_s() for _ in range(_RUNS))}
    sizes = sizes_of("llama2-7b")
    for codec in _CODECS:
        for rate in _RATES_MBIT_S:
            rate_is = f"network.uplink_mbit_s={rate}"
            setup = load_setup("flagship", "h100", "lte", overrides=[rate_is])
            air_s = split_costs(sizes, setup, codec, [1]).prefill.air_s_P[0]
            figures[f"ttft_transfer_s.{codec}.{rate:g}"] = float(air_s)
    return figures


def _command_s() -> float:
    """Seconds of one whole command."""
    command = [sys.executable, "-m", "raysplit.cli", "budget", "llama2-7b"]
    begun = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun
