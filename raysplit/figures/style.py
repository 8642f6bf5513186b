"""The look that all figures share: colours, type, grid, and how quantities are named.

Colours are those of Okabe and Ito, which stay apart for colour-blind readers and in grey print;
an algorithm has the same colour in every figure.
"""

# matplotlib leaves keyword arguments without a type:
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import functools
import re
import textwrap
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, Colormap, to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from raysplit.base.arrays import FloatArray

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

WIDTH = 6.4  # inches; with 11-point type still legible at half of it
_LINE_WIDTH, _LETTER_WIDTH = 0.65, 0.085  # inches, of an entry of a legend
_ROW_HEIGHT, _FREE_ROWS = 0.2, 2  # inches, of a row of it; rows that every figure has room for
INK, MUTED, GRID = "#1f2933", "#6b7785", "#e3e7ec"

_BASELINES = {
    "optimum": INK,
    "random": "#8a94a0",
    "untrained": "#b9c0c8",
    "fixed": "#e69f00",
    "greedy": "#cc79a7",
}
_ALGORITHMS = {
    "ppo": "#0072b2",
    "a2c": "#d55e00",
    "dqn": "#009e73",
}
_COLOURS = _BASELINES | _ALGORITHMS
_OTHER_COLOURS = ("#56b4e9", "#8c6bb1", "#a6761d", "#5f9e3f")

_LOG_FROM_RATIO = 4.0  # a linear axis shows less than this well

_COORDINATES = {
    "noise_std": "noise σ",  # noqa: RUF001 (the Greek letter is meant)
    "snr_db": "SNR (dB)",
    "fading_scale": "fading scale σₕ",
    "loss_probability": "packet loss probability",
    "outage_probability": "outage probability",
}

_SETTINGS: dict[RcKeyType, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 11.0,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 11.0,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 10.0,
    "ytick.labelsize": 10.0,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 10.0,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "savefig.facecolor": "white",
    "svg.hashsalt": "raysplit",
    # Names of agents, models and runs stand as they were written: a dollar sign is no formula.
    "text.parse_math": False,
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Band:
    """A curve with its uncertainty, all of one shape (N,).

    Attributes:
        x: Abscissae.
        centre: The curve: a mean, or an interquartile mean over seeds.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    x: FloatArray
    centre: FloatArray
    low: FloatArray
    high: FloatArray


def styled(draw: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Run a function that draws or saves under the house style."""

    @functools.wraps(draw)
    def wrapper(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        with mpl.rc_context(_SETTINGS):
            return draw(*args, **kwargs)

    return wrapper


def new_figure(height: float) -> Figure:
    """Return an empty figure of `height` inches."""
    return Figure(figsize=(WIDTH, height), layout="constrained")


def grid_of_axes(
    rows: int, columns: int, height: float, *, share_x: bool = False, share_y: bool = False
) -> tuple[Figure, list[Axes]]:
    """Return a figure of `height` inches and its axes, row by row."""
    figure = new_figure(height)
    axes: list[Axes] = []
    for cell in range(rows * columns):
        first = axes[0] if axes else None
        axes.append(
            figure.add_subplot(
                rows,
                columns,
                cell + 1,
                sharex=first if share_x else None,
                sharey=first if share_y else None,
            )
        )
    return figure, axes


def algorithm_of(name: str) -> str:
    """Return the algorithm that a series is about: "PPO (tuned)" -> "ppo".

    A baseline is known by its first word, which no agent may be called; so an agent "ppo-fixed-lr"
    is none.
    """
    name = name.lower()
    word = name.removeprefix("best ").removeprefix("exact ").partition(" ")[0]
    if word in _BASELINES:
        return word
    tokens = re.findall(r"[a-z0-9]+", name)
    return next((token for token in tokens if token in _ALGORITHMS), name)


def colour_of(name: str) -> str:
    """Return the colour of a series, the same for the same algorithm in every figure."""
    algorithm = algorithm_of(name)
    if algorithm in _COLOURS:
        return _COLOURS[algorithm]
    return _OTHER_COLOURS[zlib.crc32(algorithm.encode()) % len(_OTHER_COLOURS)]


def line_styles(names: Sequence[str]) -> dict[str, str]:
    """Return a line style a series: solid, then dashed ... for further ones of an algorithm."""
    styles: dict[str, str] = {}
    for name in names:
        earlier = sum(algorithm_of(other) == algorithm_of(name) for other in styles)
        styles[name] = ("-", "--", ":", "-.")[earlier % 4]
    return styles


def ordered_colours(count: int) -> list[str]:
    """Return colours for values that have an order, from light to dark."""
    colour_map = mpl.colormaps["viridis_r"]
    return [to_hex(colour_map(0.12 + 0.8 * i / max(count - 1, 1))) for i in range(count)]


def distinct_colours(count: int) -> list[str]:
    """Return colours for names without an order."""
    colours = [_COLOURS[k] for k in ("ppo", "a2c", "dqn", "greedy", "fixed")]
    return [([*colours, *_OTHER_COLOURS])[i % 9] for i in range(count)]


def split_point_colours(first: int, last: int) -> tuple[Colormap, BoundaryNorm]:
    """Return one colour a split point, dark for few layers on the UE and light for many."""
    levels = last - first + 1
    colour_map = mpl.colormaps["viridis"].resampled(max(levels, 2))
    return colour_map, BoundaryNorm([first - 0.5 + i for i in range(levels + 1)], colour_map.N)


def coordinate_label(name: str) -> str:
    """Return a link coordinate's axis label with its unit; unknown names stay as they are."""
    return _COORDINATES.get(name, name.replace("_", " "))


def coordinate_unit(name: str) -> tuple[str, str]:
    """Return a link coordinate's name and its unit: ("SNR", "dB"); ("noise σ", "") has none."""
    label, _, unit = coordinate_label(name).partition(" (")
    return label, unit.removesuffix(")")


def coordinate_value(name: str, value: str) -> str:
    """Return a link coordinate's value in words: "SNR = 3 dB", "noise σ = 0.4"."""
    label, unit = coordinate_unit(name)
    return f"{label} = {value} {unit}".rstrip()


def log_scale_where_needed(axes: Axes, y: FloatArray) -> None:
    """Make the y axis logarithmic where values span a wide range, with plain numbers at 1, 2, 5."""
    if y.max() > _LOG_FROM_RATIO * y.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(ScalarFormatter())
        axes.yaxis.set_minor_formatter(NullFormatter())


def split_point_ticks(axes: Axes, first: int, last: int) -> None:
    """Put ticks at whole split points, the smallest always among them."""
    step = -(-(last - first + 1) // 12)
    axes.set_yticks(range(first, last + 1, step))


def draw_optimum(axes: Axes, x: FloatArray, y: FloatArray, *, steps: bool = False) -> None:
    """Draw the exact optimum's line, wide and pale, behind everything."""
    axes.plot(
        x,
        y,
        color=colour_of("optimum"),
        linewidth=6,
        alpha=0.22,
        drawstyle="steps-mid" if steps else "default",
        solid_joinstyle="round",
        zorder=1,
        label="exact optimum",
    )


def draw_band(axes: Axes, band: Band, colour: str, line_style: str, label: str) -> None:
    """Draw a curve and its interval."""
    axes.fill_between(band.x, band.low, band.high, color=colour, alpha=0.16, linewidth=0)
    axes.plot(band.x, band.centre, color=colour, linestyle=line_style, label=label)


def label_below(figure: Figure, axes: Sequence[Axes], columns: int) -> None:
    """Put one legend for all panels below the figure, in as many columns as fit its width.

    The figure grows with the legend's rows, so that the panels do not pay for long labels.
    """
    entries: dict[str, Artist] = {}
    for panel in axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    widest = _LINE_WIDTH + _LETTER_WIDTH * max(map(len, entries), default=0)
    columns = max(1, min(columns, int(WIDTH / widest)))
    rows = -(-len(entries) // columns)
    figure.set_figheight(figure.get_figheight() + _ROW_HEIGHT * max(0, rows - _FREE_ROWS))
    figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=columns)


@styled
def note_above(figure: Figure, text: str) -> None:
    """Write a note above all panels; the figure grows by its lines."""
    lines = textwrap.wrap(text, int(WIDTH / _LETTER_WIDTH))
    figure.set_figheight(figure.get_figheight() + _ROW_HEIGHT * len(lines))
    figure.suptitle("\n".join(lines), fontsize=9, color=_ALGORITHMS["a2c"], x=0.01, ha="left")
