"""The split points that an agent chooses as the link gets worse: the paper's Fig. 7."""

# matplotlib leaves keyword arguments without a type, statsmodels everything:
# pyright: reportUnknownMemberType=false, reportMissingTypeStubs=false
# pyright: reportUnknownVariableType=false

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from raysplit.base.arrays import FloatArray, IntArray
from raysplit.figures.style import (
    colour_of,
    coordinate_label,
    coordinate_unit,
    draw_optimum,
    grid_of_axes,
    label_below,
    split_point_ticks,
    styled,
)

_FRACTION = 0.4  # of the points that count in each local regression
_JITTER = 0.16  # layers, so that equal choices do not hide each other


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trend:
    """A LOWESS trend line and its summary.

    Attributes:
        x: Ascending abscissae (N,).
        y: The line (N,).
        slope: Slope of the least-squares straight line, layers a unit of x.
        r2: Share of the points' variance that the LOWESS line explains.
    """

    x: FloatArray
    y: FloatArray
    slope: float
    r2: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Decisions:
    """Split points that an agent chose.

    Attributes:
        coordinate: The link coordinate that they are drawn over.
        agent: Its name.
        seeds: How many of its seeds took turns.
        x_N: The coordinate at each decision.
        split_points_N: The split point chosen there.
        split_points: Smallest and largest split point of the problem.
        optimum: The exact optimum's line, where there is one: coordinate and split point.
    """

    coordinate: str
    agent: str
    seeds: int
    x_N: FloatArray
    split_points_N: IntArray
    split_points: tuple[int, int]
    optimum: tuple[FloatArray, FloatArray] | None = None


def trend(x_N: FloatArray, split_points_N: FloatArray | IntArray) -> Trend:
    """Fit a LOWESS line: local linear regression.

    Without its robustifying passes: choices are bounded, so there are no outliers, and where most
    choices are equal these passes would drop all others.
    """
    from statsmodels.nonparametric.smoothers_lowess import lowess

    order = np.argsort(x_N, kind="stable")
    x, y = np.asarray(x_N, dtype=np.float64)[order], np.asarray(split_points_N, float)[order]
    line = np.asarray(lowess(y, x, frac=_FRACTION, it=0, return_sorted=False), dtype=np.float64)
    variance = float(np.var(y))
    return Trend(
        x=x,
        y=line,
        slope=float(np.polyfit(x, y, 1)[0]),
        r2=1 - float(np.mean((y - line) ** 2)) / variance if variance > 0 else 0.0,
    )


@styled
def split_point_trend(decisions: Decisions) -> Figure:
    """Draw chosen split points against a link coordinate, the trend, and the optimum behind."""
    line = trend(decisions.x_N, decisions.split_points_N)
    colour = colour_of(decisions.agent)
    label, unit = coordinate_unit(decisions.coordinate)
    figure, (axes,) = grid_of_axes(1, 1, 3.8)
    if decisions.optimum is not None:
        draw_optimum(axes, *decisions.optimum, steps=True)
    jitter_N = np.random.default_rng(0).uniform(-_JITTER, _JITTER, len(decisions.x_N))
    axes.scatter(
        decisions.x_N,
        decisions.split_points_N + jitter_N,
        s=11,
        color=colour,
        alpha=0.35,
        linewidth=0,
        label=f"{decisions.agent}, {len(decisions.x_N)} decisions",
    )
    axes.plot(line.x, line.y, color=colour, label=f"LOWESS (R² = {line.r2:.2f})")
    axes.set_title(f"Linear slope: {line.slope:+.2f} layers per {unit or f'unit of {label}'}")
    axes.set_xlabel(coordinate_label(decisions.coordinate))
    axes.set_ylabel("chosen split point p")
    first, last = decisions.split_points
    axes.set_ylim(first - 0.6, last + 0.6)
    split_point_ticks(axes, first, last)
    label_below(figure, [axes], columns=3)
    return figure
