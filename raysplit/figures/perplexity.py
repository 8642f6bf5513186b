"""PPL against the split point, as in the paper's Fig. 3.

Shape suffix: P split points.
"""

# matplotlib leaves keyword arguments without a type:
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from raysplit.figures.style import (
    MUTED,
    Band,
    distinct_colours,
    draw_band,
    grid_of_axes,
    label_below,
    log_scale_where_needed,
    ordered_colours,
    styled,
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PPLCurve:
    """One curve of a panel.

    Attributes:
        label: A link state or a model, with its unit.
        band: Split points (P,), PPL and its 95 % interval.
    """

    label: str
    band: Band


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PPLPanel:
    """One panel: several link states of a model, or several models at a link state.

    Attributes:
        title: What the panel's curves have in common.
        curves: The curves; link states from mild to harsh.
        ordered: Whether the curves have an order (link states) or not (models).
        clean_ppl: The whole model's PPL over a perfect link, drawn as a line where given.
    """

    title: str
    curves: Sequence[PPLCurve]
    ordered: bool = True
    clean_ppl: float | None = None


@styled
def ppl_against_split_point(panels: Sequence[PPLPanel]) -> Figure:
    """Draw one panel, or several in two columns; PPL axes turn logarithmic where they must.

    A model has the same colour in every panel.
    """
    columns = 1 if len(panels) == 1 else 2
    rows = -(-len(panels) // columns)
    figure, axes = grid_of_axes(rows, columns, 3.6 if rows == 1 else 2.7 * rows)
    models = dict.fromkeys(c.label for panel in panels if not panel.ordered for c in panel.curves)
    of_model = dict(zip(models, distinct_colours(len(models)), strict=True))
    for panel, drawn in zip(panels, axes, strict=False):
        steps = ordered_colours(len(panel.curves))
        _draw_panel(
            drawn, panel, steps if panel.ordered else [of_model[c.label] for c in panel.curves]
        )
    for unused in axes[len(panels) :]:
        unused.remove()
    labels = [[curve.label for curve in panel.curves] for panel in panels]
    if all(names == labels[0] for names in labels):
        label_below(figure, axes[:1], columns=3)
    else:
        for drawn in axes[: len(panels)]:
            drawn.legend(fontsize=9)
    return figure


def _draw_panel(axes: Axes, panel: PPLPanel, colours: Sequence[str]) -> None:
    for curve, colour in zip(panel.curves, colours, strict=True):
        draw_band(axes, curve.band, colour, "-", curve.label)
        axes.plot(curve.band.x, curve.band.centre, ".", color=colour, markersize=6)
    if panel.clean_ppl is not None:
        axes.axhline(
            panel.clean_ppl, color=MUTED, linestyle=":", linewidth=1.4, label="perfect link"
        )
    centres = np.concatenate([curve.band.centre for curve in panel.curves])
    log_scale_where_needed(axes, centres)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("split point p (layers on UE)")
    axes.set_ylabel("perplexity")
    axes.set_title(panel.title)
