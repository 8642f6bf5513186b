"""What decisions are worth against the number of settings measured: what an active plan saves."""

# matplotlib leaves keyword arguments without a type:
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from raysplit.figures.style import (
    MUTED,
    Band,
    distinct_colours,
    draw_band,
    grid_of_axes,
    label_below,
    styled,
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EvaluationCurves:
    """Shares of the gap random - optimum against LLM evaluations.

    Attributes:
        curves: By the plan's name, the share that planning on its settings closes: `x` settings.
        target: A share to compare with, or None.
    """

    curves: Mapping[str, Band]
    target: float | None = None


@styled
def share_by_evaluations(shown: EvaluationCurves) -> Figure:
    """Draw each plan's share of the gap over the settings that it had measured."""
    figure, (axes,) = grid_of_axes(1, 1, 3.2)
    if shown.target is not None:
        axes.axhline(shown.target, color=MUTED, linewidth=1.2, linestyle="--", label="target")
    for (name, band), colour in zip(
        shown.curves.items(), distinct_colours(len(shown.curves)), strict=True
    ):
        draw_band(axes, band, colour, "-", name)
        axes.plot(band.x, band.centre, "o", color=colour, markersize=4)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("LLM evaluations")
    axes.set_ylabel("share of the gap")
    label_below(figure, [axes], columns=3)
    return figure
