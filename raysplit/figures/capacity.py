"""What a trace of a link offers: its value over time, and how often it is how much."""

# matplotlib leaves keyword arguments without a type:
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from raysplit.base.arrays import FloatArray
from raysplit.figures.style import INK, colour_of, grid_of_axes, styled
from raysplit.radio.trace import Steps

_LABELS = {
    "capacity_mbit_s": "capacity (Mbit/s)",
    "snr_db": "SNR (dB)",
    "rsrp_dbm": "RSRP (dBm)",
}
_QUANTILES = (0.05, 0.5, 0.95)


@styled
def link_trace(steps: Steps) -> Figure:
    """Draw a trace's steps over time, and their distribution with three quantiles."""
    figure, (over_time, distribution) = grid_of_axes(2, 1, 5.2)
    label = _LABELS[steps.quantity]
    edges_s = np.append(0.0, np.cumsum(steps.lengths_S))
    over_time.stairs(steps.values_S, edges_s, baseline=None, color=colour_of("ppo"), linewidth=1.2)
    over_time.set_xlim(0, edges_s[-1])
    over_time.set_xlabel("time (s)")
    over_time.set_ylabel(label)
    over_time.set_title(f"Means over {steps.step_s:g} s")
    _draw_distribution(distribution, steps)
    distribution.set_xlabel(label)
    for axes, limit in ((over_time, over_time.set_ylim), (distribution, distribution.set_xlim)):
        if steps.quantity == "capacity_mbit_s":
            limit(0, None)
        axes.margins(0.03)
    return figure


def _draw_distribution(axes: Axes, steps: Steps) -> None:
    values, shares = _distribution(steps)
    axes.step(np.append(values[:1], values), np.append(0.0, shares), color=colour_of("ppo"))
    marks = [float(values[np.searchsorted(shares, share - 1e-12)]) for share in _QUANTILES]
    axes.scatter(marks, _QUANTILES, color=INK, zorder=3, s=18)
    axes.set_ylim(0, 1.02)
    axes.set_ylabel("share of the time below")
    quantiles = ", ".join(f"{q:.0%} below {v:.3g}" for q, v in zip(_QUANTILES, marks, strict=True))
    axes.set_title(f"Distribution: {quantiles}")


def _distribution(steps: Steps) -> tuple[FloatArray, FloatArray]:
    """Return the values, ascending, and the share of the time at or below each."""
    order = np.argsort(steps.values_S, kind="stable")
    time_s = np.cumsum(steps.lengths_S[order])
    return steps.values_S[order], time_s / time_s[-1]
