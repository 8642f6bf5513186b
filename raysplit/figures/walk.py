"""A trace of the link with the split points that were chosen along it.

Shape suffixes: T decision steps.
"""

# matplotlib leaves keyword arguments without a type:
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from raysplit.base.arrays import FloatArray, IntArray
from raysplit.figures.style import (
    INK,
    MUTED,
    colour_of,
    coordinate_label,
    draw_optimum,
    grid_of_axes,
    label_below,
    split_point_ticks,
    styled,
)

_MOST_MARKED = 30  # ends of episodes; more of them would be a hatching


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TraceWalk:
    """Episodes one after another along a trace, each begun where the one before it ended.

    Attributes:
        links: The link coordinates at each step (T,), by name.
        agent: Who chose.
        chosen_T: Its split point at each step.
        optimum_T: That of the exact optimum, which knows the trace to come.
        split_points: Smallest and largest split point of the problem.
        episode_steps: Steps of an episode.
    """

    links: Mapping[str, FloatArray]
    agent: str
    chosen_T: IntArray
    optimum_T: IntArray
    split_points: tuple[int, int]
    episode_steps: int


@styled
def trace_walk(walk: TraceWalk) -> Figure:
    """Draw each link coordinate over the steps, and below them the split points chosen."""
    rows = len(walk.links) + 1
    figure, axes = grid_of_axes(rows, 1, 1.9 * rows + 1.0, share_x=True)
    steps_T = np.arange(1, len(walk.optimum_T) + 1)
    for panel, (name, values_T) in zip(axes, walk.links.items(), strict=False):
        panel.step(steps_T, values_T, where="mid", color=INK, linewidth=1.2)
        panel.set_ylabel(coordinate_label(name))
        panel.label_outer()
    axes[0].set_title("The link along the trace")
    chosen = axes[-1]
    draw_optimum(chosen, steps_T.astype(np.float64), walk.optimum_T.astype(np.float64), steps=True)
    chosen.step(
        steps_T,
        walk.chosen_T,
        where="mid",
        color=colour_of(walk.agent),
        linewidth=1.4,
        label=walk.agent,
    )
    first, last = walk.split_points
    chosen.set_ylim(first - 0.6, last + 0.6)
    split_point_ticks(chosen, first, last)
    chosen.set_ylabel("split point p")
    chosen.set_title("The split points chosen along it")
    chosen.set_xlabel("decision step")
    ends_E = steps_T[walk.episode_steps - 1 :: walk.episode_steps]
    if len(ends_E) <= _MOST_MARKED:
        for panel in axes:
            for end in ends_E[:-1].tolist():
                panel.axvline(end + 0.5, color=MUTED, linewidth=0.6, linestyle=":")
    label_below(figure, [chosen], columns=3)
    return figure
