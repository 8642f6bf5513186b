"""Sweeps and nodes: how long Fig. 8 takes, what a kill costs, what a second node brings."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from bench.fig8 import fig8
from bench.report import BenchReport, Options
from bench.sweep_kills import killed_sweep
from bench.two_nodes import two_node_speedup

_TARGETS = {
    "fig8_minutes": ("<=", 20.0),
    "overhead_s_per_trial": ("<=", 2.0),
    "resume_lost_trials": ("<=", 0.0),
    "resume_same_best_setting": (">=", 1.0),
    "two_node_speedup": (">=", 1.8),
}


def run(options: Options) -> BenchReport:
    """Measure every figure."""
    report = BenchReport("sweeps", _TARGETS, {"quick": options.quick})
    home = Path(tempfile.mkdtemp(prefix="raysplit-sweeps-"))
    try:
        report.add(two_node_speedup(options.quick))
        report.add(killed_sweep(home, options.quick))
        report.add(fig8(home, options.quick))
    finally:
        shutil.rmtree(home)
    return report
