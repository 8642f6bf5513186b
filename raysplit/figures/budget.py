"""What a split costs beside perplexity: where the time goes, what the optimum pays, what is traded.

Shape suffixes: P split points, S link states, N measured points.
"""

# matplotlib leaves keyword arguments without a type:
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from raysplit.base.arrays import BoolArray, FloatArray, IntArray
from raysplit.figures.style import (
    INK,
    MUTED,
    Band,
    colour_of,
    distinct_colours,
    grid_of_axes,
    label_below,
    log_scale_where_needed,
    new_figure,
    styled,
)

_PART_COLOURS = ("#0072b2", "#e69f00", "#b9c0c8", "#009e73", "#cc79a7")
_CODEC_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LEAST_SEEN = 1e-3  # of the tallest bar
_MOST_LABELS = 12  # of split points at a front


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TimeStack:
    """Where the time to the first token goes, over the split point.

    Attributes:
        title: The link state that it holds for; empty where the link does not change it.
        split_points_P: Layers on the phone.
        seconds: Seconds of each part (P,), such as "phone", bottom to top.
        best: First and last split point that are best in some link state.
        deadline_s: Drawn as a line, where there is one.
    """

    title: str
    split_points_P: IntArray
    seconds: Mapping[str, FloatArray]
    best: tuple[int, int]
    deadline_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OptimumTerms:
    """What each term adds to the objective at the optimum, over link states.

    Attributes:
        axis: What the link states differ in, with its unit.
        states: One label a link state, mild to harsh.
        split_points_S: The optimum.
        percent: Percent of the clean perplexity of each term (S,), bottom to top; one that is
            too small to be seen is left out.
    """

    axis: str
    states: Sequence[str]
    split_points_S: IntArray
    percent: Mapping[str, FloatArray]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TradeSeries:
    """The measured points of one link state and codec.

    Attributes:
        state: The link state in words.
        codec: The codec's name.
        x_N: What is traded against perplexity.
        ppl: Perplexity and its 95 % interval over the split points.
        front_N: Whether every other point of the state, of whatever codec, is worse in x or in
            perplexity.
    """

    state: str
    codec: str
    x_N: FloatArray
    ppl: Band
    front_N: BoolArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TradePanel:
    """Perplexity against one quantity.

    Attributes:
        axis: The quantity with its unit.
        series: The points; link states from mild to harsh.
    """

    axis: str
    series: Sequence[TradeSeries]


@styled
def time_stacks(stacks: Sequence[TimeStack]) -> Figure:
    """Draw a stacked bar a split point; one panel, or one a link state on a common scale."""
    figure, axes = grid_of_axes(1, len(stacks), 3.4, share_x=True, share_y=True)
    best = "best here" if len(stacks) > 1 else _span_of_best(*stacks[0].best)
    for stack, panel in zip(stacks, axes, strict=True):
        _draw_stack(panel, stack, best)
        panel.label_outer()
    # One label for all: panels are too narrow for their own.
    axes[len(axes) // 2].set_xlabel("split point p (layers on UE)")
    axes[0].set_ylabel("seconds to the first token")
    label_below(figure, axes, columns=5)
    return figure


def _span_of_best(low: int, high: int) -> str:
    return f"best somewhere: p = {low}" + (f" to {high}" if high > low else "")


def _draw_stack(axes: Axes, stack: TimeStack, best: str) -> None:
    low, high = stack.best
    axes.axvspan(low - 0.5, high + 0.5, color=colour_of("optimum"), alpha=0.1, label=best)
    bottom_P = np.zeros(len(stack.split_points_P))
    for (name, seconds_P), colour in zip(stack.seconds.items(), _PART_COLOURS, strict=False):
        axes.bar(stack.split_points_P, seconds_P, 0.75, bottom=bottom_P, color=colour, label=name)
        bottom_P = bottom_P + seconds_P
    if stack.deadline_s is not None:
        axes.axhline(stack.deadline_s, color=INK, linestyle="--", linewidth=1.2, label="deadline")
    axes.grid(visible=False, axis="x")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(stack.title or "Where the time to the first token goes")


@styled
def optimum_terms(terms: OptimumTerms) -> Figure:
    """Draw the terms as stacked bars over link states, the best split point above each."""
    figure = new_figure(3.6)
    axes = figure.subplots()
    positions = np.arange(len(terms.states))
    bottom_S = np.zeros(len(positions))
    # Measured perplexity may lie below the clean one by its error: such a bar hangs from zero.
    below_S = np.zeros(len(positions))
    tallest = float(np.abs(sum(terms.percent.values())).max())
    for (name, percent_S), colour in zip(terms.percent.items(), _PART_COLOURS, strict=False):
        if np.abs(percent_S).max() < _LEAST_SEEN * tallest:
            continue
        start_S = np.where(percent_S >= 0, bottom_S, below_S)
        axes.bar(positions, percent_S, 0.7, bottom=start_S, color=colour, label=name)
        bottom_S = bottom_S + np.maximum(percent_S, 0)
        below_S = below_S + np.minimum(percent_S, 0)
    for x, top, p in zip(positions, bottom_S, terms.split_points_S, strict=True):
        axes.annotate(
            f"p = {p}", (x, top), (0, 3), textcoords="offset points", ha="center", fontsize=9
        )
    room = 0.12 * float(bottom_S.max() - below_S.min()) or 1.0
    axes.set_ylim(float(below_S.min()) - (room if below_S.any() else 0), bottom_S.max() + room)
    axes.axhline(0, color=MUTED, linewidth=0.8)
    axes.grid(visible=False, axis="x")
    axes.set_xticks(positions, [state.replace(", ", "\n") for state in terms.states])
    axes.set_xlabel(terms.axis)
    axes.set_ylabel("% of the clean perplexity")
    axes.set_title("What the best split point pays")
    label_below(figure, [axes], columns=4)
    return figure


@styled
def trade_offs(panels: Sequence[TradePanel]) -> Figure:
    """Draw perplexity against each quantity, every measured point with its error bar.

    A row a link state, as harsh ones would squeeze the others; a column a quantity; a colour and a
    marker a codec. The points of a state's front are joined and carry their split point.
    """
    states = list(dict.fromkeys(one.state for one in panels[0].series))
    codecs = list(dict.fromkeys(one.codec for one in panels[0].series))
    colours = dict(zip(codecs, distinct_colours(len(codecs)), strict=True))
    markers = {codec: _CODEC_MARKERS[i % len(_CODEC_MARKERS)] for i, codec in enumerate(codecs)}
    columns = len(panels)
    figure, axes = grid_of_axes(len(states), columns, 1.4 + 2.2 * len(states))
    for index, drawn in enumerate(axes):
        state, panel = states[index // columns], panels[index % columns]
        of_state = [one for one in panel.series if one.state == state]
        for one in of_state:
            drawn.errorbar(
                one.x_N,
                one.ppl.centre,
                yerr=[one.ppl.centre - one.ppl.low, one.ppl.high - one.ppl.centre],
                fmt=markers[one.codec],
                color=colours[one.codec],
                markersize=4,
                linewidth=1,
                alpha=0.75,
                label=one.codec,
            )
        _draw_front(drawn, of_state)
        log_scale_where_needed(drawn, np.concatenate([one.ppl.centre for one in of_state]))
        drawn.set_title(state)
        if index // columns == len(states) - 1:
            drawn.set_xlabel(panel.axis)
        if index % columns == 0:
            drawn.set_ylabel("perplexity")
    label_below(figure, axes[:1], columns=3)
    return figure


def _draw_front(axes: Axes, series: Sequence[TradeSeries]) -> None:
    """Join a state's front, codecs together, and write split points at some of its points."""
    points = sorted(
        (float(one.x_N[n]), float(one.ppl.centre[n]), int(one.ppl.x[n]))
        for one in series
        for n in np.flatnonzero(one.front_N)
    )
    x, y, split_points = zip(*points, strict=True)
    axes.plot(x, y, color=MUTED, linewidth=1.4, drawstyle="steps-post", zorder=1)
    for n in range(0, len(points), -(-len(points) // _MOST_LABELS)):
        axes.annotate(
            str(split_points[n]),
            (x[n], y[n]),
            (3, 3),
            textcoords="offset points",
            fontsize=7,
            color=INK,
        )
