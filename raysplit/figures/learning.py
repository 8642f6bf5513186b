"""Learning curves over environment steps: Fig. 5 (algorithms and cases) and Fig. 8 (sweeps)."""

# matplotlib leaves keyword arguments without a type:
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator
from numpy.typing import ArrayLike

from raysplit.base.arrays import FloatArray
from raysplit.figures.style import (
    Band,
    colour_of,
    draw_band,
    grid_of_axes,
    label_below,
    line_styles,
    ordered_colours,
    styled,
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LearningPanel:
    """The learning curves of one case.

    Attributes:
        title: The case.
        curves: What the policy is worth against environment steps; interquartile mean and interval.
        random_return: The random policy's return.
        optimal_return: The exact optimum's return.
    """

    title: str
    curves: Mapping[str, Band]
    random_return: float
    optimal_return: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SweepPanel:
    """The learning curves of one hyper-parameter's values, in ascending order.

    Attributes:
        title: The hyper-parameter.
        curves: By the value's text: interquartile mean and interval over seeds.
    """

    title: str
    curves: Mapping[str, Band]


@styled
def learning_curves(panels: Sequence[LearningPanel]) -> Figure:
    """Draw one panel a case; the right-hand scale is the share of the gap random -> optimum."""
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure, axes = grid_of_axes(rows, columns, 3.4 if columns == 1 else 3.0 * rows)
    for index, (panel, drawn) in enumerate(zip(panels, axes, strict=False)):
        _draw_case(drawn, panel)
        if index % columns == 0:
            drawn.set_ylabel("return of an episode")
        if index % columns == columns - 1 or index == len(panels) - 1:
            _share_axis(drawn, panel)
    for unused in axes[len(panels) :]:
        unused.remove()
    label_below(figure, axes[: len(panels)], columns=4)
    return figure


def _draw_case(axes: Axes, panel: LearningPanel) -> None:
    axes.axhline(panel.optimal_return, color=colour_of("optimum"), linewidth=1.2, label="optimum")
    axes.axhline(
        panel.random_return,
        color=colour_of("random"),
        linewidth=1.2,
        linestyle="--",
        label="random policy",
    )
    styles = line_styles(list(panel.curves))
    for name, band in panel.curves.items():
        draw_band(axes, band, colour_of(name), styles[name], name)
    _step_axis(axes)
    axes.set_title(panel.title)
    _cut_below_random(axes, panel)


def _cut_below_random(axes: Axes, panel: LearningPanel) -> None:
    """Cut intervals a quarter of the gap below random and every curve.

    One seed that begins far below random would squeeze all that is compared into a line.
    """
    lowest = min([panel.random_return, *(float(b.centre.min()) for b in panel.curves.values())])
    margin = abs(panel.optimal_return - panel.random_return) / 4
    axes.set_ylim(bottom=max(axes.get_ylim()[0], lowest - margin))


def _share_axis(axes: Axes, panel: LearningPanel) -> None:
    gap = panel.optimal_return - panel.random_return
    if gap <= 0:
        return

    def to_share(returns: ArrayLike) -> FloatArray:
        return (np.asarray(returns, dtype=np.float64) - panel.random_return) / gap * 100

    def to_return(shares: ArrayLike) -> FloatArray:
        return panel.random_return + np.asarray(shares, dtype=np.float64) / 100 * gap

    share = axes.secondary_yaxis("right", functions=(to_share, to_return))
    share.set_ylabel("share of the gap (%)")
    share.spines["right"].set_visible(True)


def _step_axis(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel("environment steps")


@styled
def hyperparameter_panels(panels: Sequence[SweepPanel]) -> Figure:
    """Draw one panel a hyper-parameter, two in a row, all on one scale of returns.

    What lies below everything that follows the first eighth of the steps is cut off: how badly
    some seed begins would squeeze into a line what tells the values apart.
    """
    rows = -(-len(panels) // 2)
    figure, axes = grid_of_axes(rows, 2, 2.7 * rows, share_x=True, share_y=True)
    for index, (panel, drawn) in enumerate(zip(panels, axes, strict=False)):
        colours = ordered_colours(len(panel.curves))
        for (value, band), colour in zip(panel.curves.items(), colours, strict=True):
            draw_band(drawn, band, colour, "-", value)
        _step_axis(drawn)
        if index % 2 == 0:
            drawn.set_ylabel("return of an episode")
        drawn.set_title(panel.title)
        drawn.legend(loc="lower right", ncols=2, fontsize=9)
    bands = [band for panel in panels for band in panel.curves.values()]
    lowest = min((float(b.low[b.x >= b.x.max() / 8].min()) for b in bands), default=-np.inf)
    bottom, top = axes[0].get_ylim()
    axes[0].set_ylim(bottom=max(bottom, lowest - (top - lowest) / 20))
    for unused in axes[len(panels) :]:
        unused.remove()
    return figure
