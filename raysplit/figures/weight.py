"""How the optimum moves with the weight of the cost in the objective: lambda of Eq. 7.

Shape suffixes: S link states, W weights.
"""

# matplotlib leaves keyword arguments without a type:
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from raysplit.base.arrays import FloatArray, IntArray
from raysplit.figures.style import colour_of, new_figure, split_point_colours, styled


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CostWeightSweep:
    """The exact optimum under several weights.

    Attributes:
        weights_W: The values of the weight, ascending.
        axis: What is weighed.
        chosen: Index of the experiment's own.
        states: One label a link state, mild to harsh; parts after ", " go on a new line.
        optimum_SW: The best split point.
        split_points: Smallest and largest split point of the problem.
        best_fixed_share_W: Share of the gap random -> optimum that the best fixed split point
            closes, 0 to 1: where it is near 1, adapting to the link is not worth the effort.
    """

    weights_W: FloatArray
    axis: str
    chosen: int
    states: Sequence[str]
    optimum_SW: IntArray
    split_points: tuple[int, int]
    best_fixed_share_W: FloatArray


@styled
def cost_weight_sweep(sweep: CostWeightSweep) -> Figure:
    """Draw the best fixed policy's share of the gap above a table of the best split points."""
    labels = [state.replace(", ", "\n") for state in sweep.states]
    lines = 1 + max(label.count("\n") for label in labels)
    table_height = 0.4 + (0.08 + 0.18 * lines) * len(labels)
    figure = new_figure(2.2 + table_height)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[1.3, table_height])
    _shares(above, sweep)
    _table(below, sweep, labels)
    return figure


def _shares(axes: Axes, sweep: CostWeightSweep) -> None:
    positions = range(len(sweep.weights_W))
    bars = axes.bar(positions, sweep.best_fixed_share_W, width=0.62, color=colour_of("fixed"))
    axes.bar_label(bars, [f"{share:.0%}" for share in sweep.best_fixed_share_W], fontsize=9)
    axes.set_ylim(min(0.0, float(sweep.best_fixed_share_W.min()) * 1.2), 1.15)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(visible=False, axis="x")
    axes.set_title("Gap closed by the best fixed split point")


def _table(axes: Axes, sweep: CostWeightSweep, labels: list[str]) -> None:
    colour_map, norm = split_point_colours(*sweep.split_points)
    axes.imshow(sweep.optimum_SW, cmap=colour_map, norm=norm, aspect="auto")
    first, last = sweep.split_points
    for row, column in np.ndindex(sweep.optimum_SW.shape):
        split_point = int(sweep.optimum_SW[row, column])
        light = split_point > (first + last) / 2
        axes.text(
            column,
            row,
            str(split_point),
            ha="center",
            va="center",
            fontsize=9,
            color="black" if light else "white",
        )
    axes.add_patch(
        Rectangle(
            (sweep.chosen - 0.5, -0.5),
            1,
            len(sweep.states),
            fill=False,
            edgecolor=colour_of("a2c"),
            linewidth=2.5,
            clip_on=False,
            zorder=3,
        )
    )
    axes.grid(visible=False)
    for column in range(1, len(sweep.weights_W)):
        axes.axvline(column - 0.5, color="white", linewidth=1)
    for row in range(1, len(sweep.states)):
        axes.axhline(row - 0.5, color="white", linewidth=1)
    axes.tick_params(length=0)
    axes.set_xticks(range(len(sweep.weights_W)), [f"{w:g}" for w in sweep.weights_W])
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel(f"{sweep.axis} (outlined: this experiment)")
    axes.set_title("Best split point p (layers on UE)")
