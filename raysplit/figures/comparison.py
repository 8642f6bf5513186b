"""Agents beside baselines: returns with intervals, and the paper's Fig. 6 (violins)."""

# matplotlib leaves keyword arguments without a type, seaborn everything:
# pyright: reportUnknownMemberType=false, reportMissingTypeStubs=false

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from raysplit.base.arrays import FloatArray
from raysplit.base.statistics import Interval
from raysplit.figures.style import INK, MUTED, colour_of, grid_of_axes, label_below, styled


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EpisodeReturns:
    """Returns of the same episodes under several policies.

    Attributes:
        returns: By policy: the returns of N episodes, or of several seeds' N episodes in a row.
        optimal_return: The exact optimum's expected return.
        optimum_N: The optimum's return in each episode, where it is a policy.
    """

    returns: Mapping[str, FloatArray]
    optimal_return: float
    optimum_N: FloatArray | None = None


@styled
def returns_and_intervals(
    surrogate: Mapping[str, Interval], measured: Mapping[str, Interval]
) -> Figure:
    """Draw each policy's return on the surrogate (hollow) and on measured PPL (filled).

    Dots and intervals instead of bars: returns lie close together and far from zero. The policies
    of `measured` give the rows from top to bottom, "random" and "optimum" the two vertical lines.
    """
    names = list(measured)
    figure, (axes,) = grid_of_axes(1, 1, 1.3 + 0.34 * len(names))
    for row, name in enumerate(names):
        _dot(axes, measured[name], row + 0.13, colour_of(name), filled=True)
        if name in surrogate:
            _dot(axes, surrogate[name], row - 0.13, colour_of(name), filled=False)
        if name in ("random", "optimum"):
            axes.axvline(measured[name].value, color=colour_of(name), linewidth=1, zorder=0)
    axes.plot([], [], "o", color=MUTED, label="measured perplexity (95 % interval)")
    axes.plot([], [], "o", color=MUTED, markerfacecolor="white", label="surrogate")
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("return of an episode (higher is better)")
    label_below(figure, [axes], columns=2)
    return figure


def _dot(axes: Axes, found: Interval, row: float, colour: str, *, filled: bool) -> None:
    axes.hlines(row, found.low, found.high, color=colour, linewidth=2, alpha=0.6)
    face = colour if filled else "white"
    axes.plot(found.value, row, "o", color=colour, markerfacecolor=face, markersize=6)


@styled
def violins(played: EpisodeReturns) -> Figure:
    """Draw the distribution of episode returns of each policy, and of what they lack.

    Returns differ far more between episodes than between policies, so the second panel compares
    with the optimum's in the same episode. Inside a violin: the median and the quartiles.
    """
    panels = 1 if played.optimum_N is None else 2
    figure, axes = grid_of_axes(1, panels, 1.5 + 0.5 * len(played.returns), share_y=True)
    _violin_panel(axes[0], played.returns)
    axes[0].axvline(
        played.optimal_return, color=colour_of("optimum"), linewidth=1.2, zorder=0, label="optimum"
    )
    axes[0].set_xlabel("return of an episode")
    if played.optimum_N is not None:
        optimum_N = played.optimum_N
        lost = {
            name: np.tile(optimum_N, len(returns) // len(optimum_N)) - returns
            for name, returns in played.returns.items()
        }
        _violin_panel(axes[1], lost)
        axes[1].axvline(0.0, color=colour_of("optimum"), linewidth=1.2, zorder=0)
        axes[1].set_xlabel("short of the optimum's")
        for row, lost_N in enumerate(lost.values()):
            _note_at_end(axes[1], row, f"mean {lost_N.mean():.2g}")
        axes[1].tick_params(labelleft=False)
    label_below(figure, axes, columns=1)
    return figure


def _note_at_end(axes: Axes, row: int, text: str) -> None:
    place = axes.get_yaxis_transform()  # x from 0 to 1 across the panel
    axes.text(0.99, row - 0.22, text, transform=place, ha="right", fontsize=9, color=INK)


def _violin_panel(axes: Axes, values: Mapping[str, FloatArray]) -> None:
    import seaborn

    seaborn.violinplot(
        data=list(values.values()),
        orient="h",
        palette=[colour_of(name) for name in values],
        inner="box",
        cut=0,
        density_norm="width",
        saturation=1.0,
        linewidth=0.9,
        ax=axes,
    )
    for body in axes.collections:
        body.set_alpha(0.75)
    axes.set_yticks(range(len(values)), list(values))
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(5))
