"""Surrogate parity: held-out predictions against what was measured."""

# matplotlib leaves keyword arguments without a type:
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from raysplit.base.arrays import FloatArray
from raysplit.figures.style import INK, MUTED, colour_of, grid_of_axes, styled
from raysplit.surrogate.quality import ErrorStatistics, FitReport

_RASTERISE_FROM = 500  # points; more would make the vector formats heavy


@styled
def surrogate_parity(report: FitReport) -> Figure:
    """Draw log PPL and, where link states have partners at p_min, the relative gain."""
    columns = 1 if report.gain is None else 2
    figure, axes = grid_of_axes(1, columns, 3.1)
    _parity(axes[0], report.measured_log_ppl_N, report.predicted_log_ppl_N, "log perplexity (nats)")
    _statistics(axes[0], report.log_ppl)
    if report.gain is not None:
        _parity(axes[1], report.measured_gain_G, report.predicted_gain_G, "relative gain g")
        _statistics(axes[1], report.gain)
    return figure


def _parity(axes: Axes, measured_N: FloatArray, predicted_N: FloatArray, what: str) -> None:
    low = min(measured_N.min(), predicted_N.min())
    high = max(measured_N.max(), predicted_N.max())
    pad = 0.04 * (high - low or 1.0)
    limits = (float(low - pad), float(high + pad))
    axes.plot(limits, limits, color=MUTED, linewidth=1)
    axes.scatter(
        measured_N,
        predicted_N,
        s=float(np.clip(4000 / len(measured_N), 3, 16)),
        color=colour_of("ppo"),
        alpha=0.5,
        linewidth=0,
        rasterized=len(measured_N) > _RASTERISE_FROM,
    )
    axes.set(xlim=limits, ylim=limits, aspect="equal")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(f"measured {what}")
    axes.set_ylabel("predicted, held out")


def _statistics(axes: Axes, statistics: ErrorStatistics) -> None:
    text = (
        f"{statistics.count:,} rows\nMSE {statistics.mse:.2g}\nMAE {statistics.mae:.2g}\n"
        f"R² {statistics.r2:.3f}\nrank corr. {statistics.rank_correlation:.3f}"
    )
    axes.text(0.04, 0.96, text, transform=axes.transAxes, va="top", fontsize=9, color=INK)
