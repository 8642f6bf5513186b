"""The answer map: the best split point over the link states, with the agents' choice beside it.

Shape suffixes: X values of the first link coordinate, Y values of the second.
"""

# matplotlib leaves keyword arguments without a type:
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from raysplit.base.arrays import FloatArray, IntArray
from raysplit.figures.style import (
    Band,
    colour_of,
    coordinate_label,
    draw_optimum,
    grid_of_axes,
    label_below,
    line_styles,
    split_point_colours,
    split_point_ticks,
    styled,
)

_DODGE = 0.16  # between agents, of the distance between link states
_MARKERS = ("o", "s", "^", "D", "v")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AnswerLine:
    """The answer over one link coordinate.

    Attributes:
        coordinate: Its name, such as "noise_std".
        values_X: Its values, ascending.
        split_points: Smallest and largest split point of the problem.
        optimum_X: The split point with the smallest objective.
        choices: Where each agent converges; the band is the range over its starts.
        optimal_objective_X: The objective (smaller is better) at the optimum.
        objectives: The objective of other policies by name, such as agents and the best fixed one.
    """

    coordinate: str
    values_X: FloatArray
    split_points: tuple[int, int]
    optimum_X: IntArray
    optimal_objective_X: FloatArray
    choices: Mapping[str, Band] = field(default_factory=dict[str, Band])
    objectives: Mapping[str, FloatArray] = field(default_factory=dict[str, FloatArray])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AnswerPlane:
    """The answer over two link coordinates.

    Attributes:
        coordinates: The names along x and y.
        values_X: Values of the first, ascending.
        values_Y: Values of the second, ascending.
        split_points: Smallest and largest split point of the problem.
        optimum_YX: The split point with the smallest objective.
        choices: The split point where each agent converges, (Y, X).
    """

    coordinates: tuple[str, str]
    values_X: FloatArray
    values_Y: FloatArray
    split_points: tuple[int, int]
    optimum_YX: IntArray
    choices: Mapping[str, FloatArray] = field(default_factory=dict[str, FloatArray])


@styled
def answer_line(answer: AnswerLine) -> Figure:
    """Draw the staircase of the optimum and of the agents above what their choices cost."""
    figure, axes = grid_of_axes(2, 1, 5.2, share_x=True)
    _staircase(axes[0], answer)
    _costs(axes[1], answer)
    axes[0].label_outer()
    axes[-1].set_xlabel(coordinate_label(answer.coordinate))
    label_below(figure, axes, columns=3)
    return figure


def _staircase(axes: Axes, answer: AnswerLine) -> None:
    draw_optimum(axes, answer.values_X, answer.optimum_X.astype(np.float64), steps=True)
    step = float(np.min(np.diff(answer.values_X)))
    for index, (name, band) in enumerate(answer.choices.items()):
        # Side by side: agents that agree would hide each other.
        x = band.x + step * _DODGE * (index - (len(answer.choices) - 1) / 2)
        colour = colour_of(name)
        axes.vlines(x, band.low, band.high, color=colour, linewidth=3, alpha=0.35)
        axes.plot(
            x,
            band.centre,
            linestyle="",
            marker=_marker(answer, name),
            color=colour,
            markersize=4.5,
            label=name,
        )
    first, last = answer.split_points
    axes.set_ylim(first - 0.6, last + 0.6)
    split_point_ticks(axes, first, last)
    axes.set_ylabel("split point p")
    axes.set_title("Where to split: layers on the UE")


def _costs(axes: Axes, answer: AnswerLine) -> None:
    draw_optimum(axes, answer.values_X, np.zeros_like(answer.optimal_objective_X))
    styles = line_styles(list(answer.objectives))
    for name, objective_X in answer.objectives.items():
        axes.plot(
            answer.values_X,
            objective_X - answer.optimal_objective_X,
            color=colour_of(name),
            linestyle=styles[name],
            marker=_marker(answer, name),
            markersize=4,
            label=name,
        )
    axes.set_ylabel("above the optimum")
    axes.set_title("What that costs: the objective beyond its optimum")


def _marker(answer: AnswerLine, name: str) -> str:
    """Return an agent's marker; agents of one algorithm share their colour."""
    names = list(answer.choices)
    return _MARKERS[names.index(name) % len(_MARKERS)] if name in names else ""


@styled
def answer_plane(answer: AnswerPlane) -> Figure:
    """Draw the optimum's map and, beside it, the map of each agent's choice."""
    maps = {"Exact optimum": answer.optimum_YX.astype(np.float64)} | dict(answer.choices)
    columns = min(len(maps), 3)
    rows = -(-len(maps) // columns)
    figure, axes = grid_of_axes(
        rows, columns, 3.4 if rows == 1 else 2.7 * rows, share_x=True, share_y=True
    )
    colour_map, norm = split_point_colours(*answer.split_points)
    for index, (panel, (name, split_points_YX)) in enumerate(zip(axes, maps.items(), strict=False)):
        mesh = panel.pcolormesh(
            answer.values_X,
            answer.values_Y,
            split_points_YX,
            cmap=colour_map,
            norm=norm,
            shading="nearest",
            rasterized=True,
        )
        panel.grid(visible=False)
        panel.set_title(name)
        panel.set_xticks(_few(answer.values_X))
        panel.set_yticks(_few(answer.values_Y))
        panel.tick_params(labelleft=index % columns == 0, labelbottom=index + columns >= len(maps))
        if index % columns == 0:
            panel.set_ylabel(coordinate_label(answer.coordinates[1]))
        if index + columns >= len(maps):
            panel.set_xlabel(coordinate_label(answer.coordinates[0]))
    for unused in axes[len(maps) :]:
        unused.remove()
    first, last = answer.split_points
    bar = figure.colorbar(mesh, ax=axes[: len(maps)], ticks=range(first, last + 1), pad=0.02)  # pyright: ignore[reportPossiblyUnboundVariable]
    bar.set_label("split point p (layers on UE)")
    return figure


def _few(values: FloatArray) -> FloatArray:
    """Both ends and at most two values in between: what fits a narrow panel."""
    index = np.unique(np.linspace(0, len(values) - 1, 4).round().astype(int))
    return values[index]
