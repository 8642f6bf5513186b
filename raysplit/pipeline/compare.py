"""Several runs side by side: Fig. 3 (PPL of several models) and Fig. 5 (agents, case by case).

In the output folder: figures/ (perplexity and learning), and compare.parquet with one row a point
that is drawn.
"""

# pandas and NumPy leave the types of their choices open:
# pyright: reportUnknownMemberType=false, reportMissingTypeStubs=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from raysplit.base.errors import UserError
from raysplit.base.files import replacing
from raysplit.base.progress import console, say
from raysplit.figures import (
    Band,
    LearningPanel,
    PPLCurve,
    PPLPanel,
    learning_curves,
    note_above,
    ppl_against_split_point,
    save,
)
from raysplit.link.state import LOWER_IS_WORSE
from raysplit.measure.table import Measurements
from raysplit.pipeline.comparable import Run, case_title, differences, grouped, read_runs
from raysplit.pipeline.oracles import EVALUATION_TABLE
from raysplit.pipeline.views.panels import learning_panel, perplexity_band, state_labels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TABLE = "compare.parquet"
_CASES = "LHA"

_State = tuple[tuple[str, float], ...]  # a link's coordinates with their values


@dataclass(frozen=True, slots=True)
class _Curve:
    """One curve of one panel."""

    panel: str
    label: str
    run: Run
    band: Band
    state: _State = ()  # the link's, where it has one


def compare(paths: Sequence[Path], out: Path, *, allow_different: bool = False) -> None:
    """Draw finished runs side by side.

    Runs of one panel must have been measured under one protocol card; their models may differ in
    Fig. 3, which compares models. With `allow_different` differences are drawn and said.

    Raises:
        UserError: If a folder is no finished run, or runs of one panel follow different rules.
    """
    if (out / "manifest.json").exists():
        raise UserError(f"{out} is a run's folder, whose figures would be replaced: name another")
    runs = read_runs(paths)
    found = [*differences(runs)]
    if found and not allow_different:
        raise UserError(
            f"{found[0]}; compare them in separate calls, run one again, or draw them "
            "all the same with --allow-different"
        )
    for difference in found:
        say("different", "yellow", f": {difference}")
    perplexity = _distinct(_with_states([c for run in runs for c in _perplexity(run)]))
    panels = {run.name: learning_panel(run.folder, case_title(run, runs)) for run in runs}
    learning = _distinct([curve for run in runs for curve in _learning(run, panels[run.name])])
    for name, figure in (
        ("perplexity", _perplexity_figure(perplexity)),
        ("learning", _learning_figure(learning, panels)),
    ):
        if found:
            note_above(figure, f"Not measured alike: {'; '.join(found)}")
        _save(figure, out, name)
    rows = [*_rows("perplexity", perplexity), *_rows("learning", learning)]
    with replacing(out / TABLE) as new:
        pd.DataFrame(rows).to_parquet(new, index=False)
    console.print(
        f"{len(runs)} runs side by side: {out / 'figures'}, {out / TABLE}"
        if len(runs) > 1
        else f"{runs[0].name} alone, as no other run is named: {out / 'figures'}, {out / TABLE}"
    )


def _perplexity(run: Run) -> Iterator[_Curve]:
    """PPL over the split points at the best and at the worst link of the evaluation grid."""
    tables = Measurements.from_parquet(run.folder.path / EVALUATION_TABLE).by_codec()
    table = tables[run.folder.experiment.problem.codec.name]
    falling = np.array([name in LOWER_IS_WORSE for name in table.link_names])
    low, high = table.link_states_NK.min(axis=0), table.link_states_NK.max(axis=0)
    best_K, worst_K = np.where(falling, high, low), np.where(falling, low, high)
    for degree, state_K in (("low", best_K), ("high", worst_K)):
        panel = f"{run.channel}, {degree} {run.impairment}"
        state = tuple(zip(table.link_names, state_K.tolist(), strict=True))
        yield _Curve(panel, run.model, run, perplexity_band(table, state_K), state)


def _with_states(curves: Sequence[_Curve]) -> Iterator[_Curve]:
    """Put the link state below the panel's title where all share it, else beside the models."""
    for title, group in grouped(curves, lambda curve: curve.panel).items():
        labels = _state_labels({curve.state for curve in group})
        for curve in group:
            if len(labels) == 1:
                yield replace(curve, panel=f"{title}\n{labels[curve.state]}")
            else:
                yield replace(curve, label=f"{curve.label}, {labels[curve.state]}")


def _state_labels(states: Iterable[_State]) -> dict[_State, str]:
    """Label link states so that no two look alike, though they be of different coordinates."""
    by_names = grouped(list(states), lambda state: ", ".join(name for name, _ in state))
    labels: dict[_State, str] = {}
    for group in by_names.values():
        names = [name for name, _ in group[0]]
        values_SK = np.array([[value for _, value in state] for state in group])
        labels |= dict(zip(group, state_labels(names, values_SK), strict=True))
    return labels


def _learning(run: Run, panel: LearningPanel) -> Iterator[_Curve]:
    """Each agent's learning curve; what its rewards were stands beside its name."""
    for agent, band in panel.curves.items():
        rewards = run.folder.experiment.agents[agent].rewards
        label = agent if rewards == "surrogate" else f"{agent}, {rewards.replace('_', ' ')} rewards"
        yield _Curve(panel.title, label, run, band)


def _perplexity_figure(curves: Sequence[_Curve]) -> Figure:
    """Fig. 3: AWGN first, and the low end of a link before its high end."""
    by_panel = grouped(curves, lambda curve: curve.panel)
    panels = [
        PPLPanel(
            title=title,
            curves=[PPLCurve(label=c.label, band=c.band) for c in by_panel[title]],
            ordered=False,
        )
        for title in sorted(by_panel, key=lambda title: not title.startswith("AWGN"))
    ]
    return ppl_against_split_point(panels)


def _learning_figure(curves: Sequence[_Curve], of_run: Mapping[str, LearningPanel]) -> Figure:
    """Fig. 5: the cases in the paper's order.

    Random policy and optimum of a panel are the mean over its runs, each on its own surrogate; a
    curve stands at the share of its own run's gap.
    """
    by_panel = grouped(curves, lambda curve: curve.panel)
    runs = grouped(list(of_run.values()), lambda panel: panel.title)
    panels = [
        LearningPanel(
            title=title,
            curves={
                curve.label: _at_equal_share(curve.band, of_run[curve.run.name], runs[title])
                for curve in by_panel[title]
            },
            random_return=float(np.mean([panel.random_return for panel in runs[title]])),
            optimal_return=float(np.mean([panel.optimal_return for panel in runs[title]])),
        )
        for title in sorted(by_panel, key=lambda title: _CASES.index(title[len("Case ")]))
    ]
    return learning_curves(panels)


def _at_equal_share(band: Band, own: LearningPanel, panels: Sequence[LearningPanel]) -> Band:
    """Move a curve from its own run's scale to the mean of the panels'."""
    random_return, optimal_return = (
        float(np.mean([getattr(panel, end) for panel in panels]))
        for end in ("random_return", "optimal_return")
    )
    gap = own.optimal_return - own.random_return
    stretch = (optimal_return - random_return) / gap if gap > 0 else 1.0
    centre, low, high = (
        random_return + (returns - own.random_return) * stretch
        for returns in (band.centre, band.low, band.high)
    )
    return Band(x=band.x, centre=centre, low=low, high=high)


def _distinct(curves: Iterable[_Curve]) -> list[_Curve]:
    """Add the run's name to labels that a panel would show twice."""
    curves = list(curves)
    seen = Counter((curve.panel, curve.label) for curve in curves)
    return [
        replace(curve, label=f"{curve.label} ({curve.run.name})")
        if seen[curve.panel, curve.label] > 1
        else curve
        for curve in curves
    ]


def _save(figure: Figure, out: Path, name: str) -> None:
    try:
        save(figure, out / "figures", name)
    except OSError as error:
        raise UserError(f"{out / 'figures'} cannot be written ({error.strerror})") from None


def _rows(figure: str, curves: Sequence[_Curve]) -> Iterator[dict[str, Any]]:
    for curve in curves:
        band = curve.band
        for x, value, low, high in zip(band.x, band.centre, band.low, band.high, strict=True):
            yield {
                "figure": figure,
                "panel": curve.panel.replace("\n", ", "),
                "curve": curve.label,
                "run": curve.run.name,
                "model": curve.run.model,
                "x": x,
                "value": value,
                "low": low,
                "high": high,
            }
