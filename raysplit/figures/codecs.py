"""The map of the best split point and codec over the link, and what every codec costs beyond it.

Shape suffixes: X values of the link coordinate.
"""

# matplotlib leaves keyword arguments without a type:
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from raysplit.base.arrays import FloatArray, IntArray
from raysplit.figures.style import (
    coordinate_label,
    distinct_colours,
    draw_optimum,
    grid_of_axes,
    label_below,
    split_point_ticks,
    styled,
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CodecCurve:
    """What one codec achieves over the link, with the split point that is best for it.

    Attributes:
        codec: Its name.
        split_points_X: The best split point with this codec.
        percent_X: Its objective there, in percent of the clean perplexity, above that of the best
            split point and codec; 0 where this codec is the best.
        half_X: Half the 95 % interval that measuring leaves of the codec's objective.
    """

    codec: str
    split_points_X: IntArray
    percent_X: FloatArray
    half_X: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CodecMap:
    """The best split point and codec over one link coordinate.

    Attributes:
        coordinate: Its name, such as "snr_db".
        values_X: Its values, ascending.
        curves: A curve a codec, at least two.
        split_points: Smallest and largest split point of the problem.
    """

    coordinate: str
    values_X: FloatArray
    curves: Sequence[CodecCurve]
    split_points: tuple[int, int]

    @property
    def halves(self) -> tuple[float, float]:
        """Least and most of every `half_X`."""
        half = np.concatenate([curve.half_X for curve in self.curves])
        return float(half.min()), float(half.max())

    @property
    def best_X(self) -> IntArray:
        """Index of the best codec's curve; the first of those equally good."""
        return np.stack([curve.percent_X for curve in self.curves]).argmin(axis=0)


@styled
def codec_map(drawn: CodecMap) -> Figure:
    """Draw each codec's best split point over what it costs beyond the best codec.

    Both panels are tinted with the colour of the best codec.
    """
    figure, (above, below) = grid_of_axes(2, 1, 5.2, share_x=True)
    colours = distinct_colours(len(drawn.curves))
    styles = ("-", "--", ":", "-.")
    for panel in (above, below):
        _tint(panel, drawn, colours)
    best_split_points_X = np.choose(drawn.best_X, [c.split_points_X for c in drawn.curves])
    draw_optimum(above, drawn.values_X, best_split_points_X.astype(np.float64), steps=True)
    for index, (curve, colour) in enumerate(zip(drawn.curves, colours, strict=True)):
        style = styles[index % len(styles)]
        above.plot(
            drawn.values_X,
            curve.split_points_X,
            color=colour,
            linestyle=style,
            linewidth=1.2,
            drawstyle="steps-mid",
        )
        below.plot(
            drawn.values_X, curve.percent_X, color=colour, linestyle=style, label=curve.codec
        )
    first, last = drawn.split_points
    above.set_ylim(first - 0.6, last + 0.6)
    split_point_ticks(above, first, last)
    above.set_ylabel("split point p")
    above.set_title("The best split point with each codec; wide: of all")
    above.label_outer()
    below.set_ylabel("% of clean perplexity")
    below.set_title("What a codec costs beyond the best one")
    below.set_xlabel(coordinate_label(drawn.coordinate))
    label_below(figure, [below], columns=4)
    return figure


def _tint(axes: Axes, drawn: CodecMap, colours: Sequence[str]) -> None:
    """Colour the background by the best codec, halfway to the values where another one is."""
    values_X, best_X = drawn.values_X, drawn.best_X
    changes_C = np.flatnonzero(np.diff(best_X)) + 1
    middles_C = (values_X[changes_C - 1] + values_X[changes_C]) / 2
    edges = [values_X[0], *middles_C, values_X[-1]]
    for start, left, right in zip([0, *changes_C], edges, edges[1:], strict=False):
        axes.axvspan(left, right, color=colours[int(best_X[start])], alpha=0.12, linewidth=0)
    axes.set_xlim(values_X[0], values_X[-1])
