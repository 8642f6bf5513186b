"""Run benchmarks and write their reports: `python -m bench [NAME ...] [--quick]`.

Speed is measured as ratios within one run; leave the machine alone meanwhile. Takes more than half
an hour on two cores, `--quick` some minutes.
"""

from __future__ import annotations

import argparse
import importlib
import os
from pathlib import Path

from bench.report import REPORTS, Options

BENCHMARKS = {
    "measuring": "bench.measuring",
    "learning": "bench.learning",
    "motion": "bench.motion",
    "sweeps": "bench.sweeps",
    "real-models": "bench.real_models",
    "active": "bench.active",
    "fullsize-loading": "bench.fullsize_loading",
    "radio-budget": "bench.radio_budget",
    "users": "bench.users",
}
"""BenchReport -> the module whose `run(options)` returns it."""


def main() -> None:
    """Run what is asked for; exit code 1 where a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--quick", action="store_true", help="small sizes: does it run at all?")
    parser.add_argument(
        "--wikitext2",
        type=Path,
        default=os.environ.get("RAYSPLIT_WIKITEXT2"),
        help="WikiText-2's raw test text (default: the environment's RAYSPLIT_WIKITEXT2)",
    )
    parser.add_argument(
        "--lte-trace",
        type=Path,
        default=os.environ.get("RAYSPLIT_LTE_TRACE"),
        help="mahimahi's Verizon-LTE-short.up (default: the environment's RAYSPLIT_LTE_TRACE)",
    )
    parser.add_argument("--reports", type=Path, help="folder (default: bench/reports, quick: runs)")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(BENCHMARKS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(BENCHMARKS)}")
    reports = arguments.reports or (Path("runs") if arguments.quick else REPORTS)
    options = Options(arguments.quick, arguments.wikitext2, reports, arguments.lte_trace)
    met = True
    for name in arguments.names or BENCHMARKS:
        report = importlib.import_module(BENCHMARKS[name]).run(options)
        print(f"-> {report.write(options.reports)}", flush=True)
        met &= report.met()
    raise SystemExit(0 if met else 1)


if __name__ == "__main__":
    main()
