"""A real LLaMA and its error bars: intervals, what anchors spare, time, memory, agents."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch

from bench import against_plain, anchors, smollm2, ue_memory
from bench.report import NEEDS_WIKITEXT2, BenchReport, Options

_TARGETS = {
    "speedup_vs_plain": (">=", 80.0),
    "anchor_saving": (">=", 4.0),
    "coverage_min": (">=", 0.93),
    "coverage_max": ("<=", 0.97),
    "bf16_speedup": (">=", 3.0),
    "bf16_log_ppl_error": ("<=", 0.01),
    "ue_gb": ("<=", 1.2),
    "demo_s": ("<=", 120.0),
    "smollm2_share_measured": (">=", 0.97),
}
_PLAN, _QUICK_PLAN, _QUICK_SENTENCES = 40, 8, 640


def run(options: Options) -> BenchReport:
    """Measure every figure; what is known is written after each part, as all take an hour."""
    torch.set_num_threads(1)
    config = {"quick": options.quick, **anchors.config(options)}
    report = BenchReport("real-models", _TARGETS, config)
    for part in (ue_memory.add, smollm2.add, _against_plain, anchors.add, _time_demo):
        part(report, options)
        report.write(options.reports)
    return report


def _against_plain(report: BenchReport, options: Options) -> None:
    if options.wikitext2 is None:
        report.skip("speedup_vs_plain", NEEDS_WIKITEXT2)
        return
    found = against_plain.figures(
        options.wikitext2,
        settings=_QUICK_PLAN if options.quick else _PLAN,
        sentences=_QUICK_SENTENCES if options.quick else None,
    )
    report.add(found)


def _time_demo(report: BenchReport, options: Options) -> None:
    """Run the README's first command as its reader does, into a fresh folder."""
    if options.quick:
        return
    folder = Path("runs/bench-demo")
    shutil.rmtree(folder, ignore_errors=True)
    environment = os.environ | {"WANDB_MODE": "offline"}
    command = [sys.executable, "-m", "raysplit.cli", "run", "demo", "--out", str(folder)]
    start = time.perf_counter()
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    report.add({"demo_s": time.perf_counter() - start})
