"""Bits, seconds and joules: the radio, the budget and the codecs, in one report."""

from __future__ import annotations

import torch

from bench import budget, codecs, radio
from bench.report import BenchReport, Options


def run(options: Options) -> BenchReport:
    """Measure every figure."""
    torch.set_num_threads(1)
    targets = radio.TARGETS | budget.TARGETS | codecs.TARGETS
    config = {"quick": options.quick, **radio.config(options)}
    report = BenchReport("radio-budget", targets, config)
    radio.add(report, options)
    report.add(budget.fields())
    codecs.add(report, options)
    return report
