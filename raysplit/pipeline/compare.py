"""Several runs side by side: Fig. 3 (PPL of several models) and Fig. 5 (agents, case by case).

In the output folder: figures/ (perplexity and learning), and compare.parquet with one row a point
that is drawn.
"""

# pandas and NumPy leave the types of their choices open:
# pyright: reportUnknownMemberType=false, reportMissingTypeStubs=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from raysplit.base.errors import UserError, command
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
from raysplit.pipeline.oracles import EVALUATION_TABLE
from raysplit.pipeline.problem import protocol_card
from raysplit.pipeline.run_folder import RunFolder, first_difference
from raysplit.pipeline.views.panels import learning_panel, perplexity_band, state_labels

TABLE = "compare.parquet"
_NEEDED = ("measure", "fit", "train", "evaluate")
# What the card tells of the clean pass, and of a text as one tokenizer cuts it.
_FINDINGS = {"card_sha256", "clean_log_ppl", "tokens_per_sequence", "signal_rms"}
_OF_THE_TOKENS = {"sha256", "sequences", "scored_tokens"}
_CASES = "LHA"

_Item = TypeVar("_Item")
_State = tuple[tuple[str, float], ...]  # a link's coordinates with their values


@dataclass(frozen=True)
class _Run:
    """A run to compare, under a name that tells it from the others."""

    name: str
    folder: RunFolder

    @cached_property
    def card(self) -> dict[str, Any]:
        """What its perplexities depend on."""
        card = protocol_card(self.folder)
        del card["model"]["name"]  # its weights are there, wherever they lie
        return {key: value for key, value in card.items() if key not in _FINDINGS}

    def section(self, name: str) -> dict[str, Any]:
        """A section of its experiment, under its name."""
        return self.folder.experiment.model_dump(mode="json", by_alias=True, include={name})

    @property
    def model(self) -> str:
        return Path(self.folder.experiment.model.name).name

    @property
    def case(self) -> str:
        return self.folder.experiment.problem.case

    @property
    def channel(self) -> str:
        """The kind of link."""
        fading = self.folder.experiment.link.fading
        if fading != "none":
            return f"{fading.capitalize()} fading"
        return "AWGN" if self.impairment == "noise" else "No fading"

    @property
    def impairment(self) -> str:
        """What grows as the link gets worse."""
        experiment = self.folder.experiment
        if "loss_probability" in experiment.problem.link or experiment.link.gain_threshold > 0:
            return "loss"
        return "noise" if experiment.link.fading == "none" else "fading"


@dataclass(frozen=True, slots=True)
class _Curve:
    """One curve of one panel."""

    panel: str
    label: str
    run: _Run
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
    runs = _read(paths)
    differences = [*_differences(runs)]
    if differences and not allow_different:
        raise UserError(
            f"{differences[0]}; compare them in separate calls, run one again, or draw them "
            "all the same with --allow-different"
        )
    for difference in differences:
        say("different", "yellow", f": {difference}")
    perplexity = _distinct(_with_states([c for run in runs for c in _perplexity(run)]))
    panels = {run.name: learning_panel(run.folder, _case_title(run, runs)) for run in runs}
    learning = _distinct([curve for run in runs for curve in _learning(run, panels[run.name])])
    for name, figure in (
        ("perplexity", _perplexity_figure(perplexity)),
        ("learning", _learning_figure(learning, panels)),
    ):
        if differences:
            note_above(figure, f"Not measured alike: {'; '.join(differences)}")
        _save(figure, out, name)
    rows = [*_rows("perplexity", perplexity), *_rows("learning", learning)]
    with replacing(out / TABLE) as new:
        pd.DataFrame(rows).to_parquet(new, index=False)
    console.print(
        f"{len(runs)} runs side by side: {out / 'figures'}, {out / TABLE}"
        if len(runs) > 1
        else f"{runs[0].name} alone, as no other run is named: {out / 'figures'}, {out / TABLE}"
    )


def _read(paths: Sequence[Path]) -> list[_Run]:
    folders = [RunFolder.read(path) for path in paths]
    twice = [path for path, count in Counter(p.resolve() for p in paths).items() if count > 1]
    if twice:
        raise UserError(f"{twice[0]} is given twice: name each run once")
    for folder in folders:
        for stage in _NEEDED:
            record = folder.stage_record(stage)
            # What was computed elsewhere counts: its files must be as that run left them.
            if record is None or not folder.is_done(stage, record["inputs_sha256"]):
                raise UserError(
                    f"stage '{stage}' is not done in {folder.path}: finish it with "
                    f"{command('run', folder.path / 'experiment.yaml', '--out', folder.path)}"
                )
    return [_Run(name, folder) for name, folder in zip(_names(paths), folders, strict=True)]


def _names(paths: Sequence[Path]) -> list[str]:
    """The ends of the paths, as long as it takes to tell them apart."""
    parts = [path.resolve().parts for path in paths]
    length = 1
    while len({path[-length:] for path in parts}) < len(parts):
        length += 1
    return ["/".join(path[-length:]) for path in parts]


def _differences(runs: Sequence[_Run]) -> Iterator[str]:
    """Say of each panel's runs what their numbers do not share with the first one's."""
    found: dict[str, None] = {}
    for group in _grouped(runs, lambda run: run.channel + run.impairment).values():
        found |= dict.fromkeys(_from_first(group, _conditions))
        for of_model in _grouped(group, lambda run: run.model).values():
            found |= dict.fromkeys(_from_first(of_model, lambda run: run.card))
    for group in _grouped(runs, lambda run: _case_title(run, runs)).values():
        found |= dict.fromkeys(_from_first(group, _problem))
        found |= dict.fromkeys(_from_first(group, lambda run: run.card))
    yield from found


def _problem(run: _Run) -> dict[str, Any]:
    """What decides the reward of a split point and link state, besides perplexity."""
    weighed = run.folder.experiment.problem.reward == "budget"
    budget = run.section("budget") if weighed else {}
    return run.section("problem") | run.section("radio") | budget


def _from_first(runs: Sequence[_Run], values: Callable[[_Run], Mapping[str, Any]]) -> Iterator[str]:
    first, *others = [(run, values(run)) for run in runs]
    for run, mine in others:
        difference = first_difference(first[1], mine)
        if difference:
            yield f"{run.name} cannot stand beside {first[0].name}: {difference}"


def _conditions(run: _Run) -> dict[str, Any]:
    """What runs of different models must share: the experiment's, and the card without its model.

    Another model cuts the same text into other tokens.
    """
    card = {key: value for key, value in run.card.items() if key != "tokenizer"}
    card["model"] = {"dtype": card["model"]["dtype"]}
    text = {key: value for key, value in card["corpus"].items() if key not in _OF_THE_TOKENS}
    return card | {"corpus": text | run.section("corpus")["corpus"]}


def _perplexity(run: _Run) -> Iterator[_Curve]:
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
    for title, group in _grouped(curves, lambda curve: curve.panel).items():
        labels = _state_labels({curve.state for curve in group})
        for curve in group:
            if len(labels) == 1:
                yield replace(curve, panel=f"{title}\n{labels[curve.state]}")
            else:
                yield replace(curve, label=f"{curve.label}, {labels[curve.state]}")


def _state_labels(states: Iterable[_State]) -> dict[_State, str]:
    """Label link states so that no two look alike, though they be of different coordinates."""
    by_names = _grouped(list(states), lambda state: ", ".join(name for name, _ in state))
    labels: dict[_State, str] = {}
    for group in by_names.values():
        names = [name for name, _ in group[0]]
        values_SK = np.array([[value for _, value in state] for state in group])
        labels |= dict(zip(group, state_labels(names, values_SK), strict=True))
    return labels


def _learning(run: _Run, panel: LearningPanel) -> Iterator[_Curve]:
    """Each agent's learning curve; what its rewards were stands beside its name."""
    for agent, band in panel.curves.items():
        rewards = run.folder.experiment.agents[agent].rewards
        label = agent if rewards == "surrogate" else f"{agent}, {rewards.replace('_', ' ')} rewards"
        yield _Curve(panel.title, label, run, band)


def _case_title(run: _Run, runs: Sequence[_Run]) -> str:
    """The case, with the model and the link where runs of that case differ in them."""
    same = [other for other in runs if other.case == run.case]
    model = f"\n{run.model}" if len({other.model for other in same}) > 1 else ""
    channel = f"\n{run.channel}" if len({other.channel for other in same}) > 1 else ""
    return f"Case {run.case}{model}{channel}"


def _perplexity_figure(curves: Sequence[_Curve]) -> Figure:
    """Fig. 3: AWGN first, and the low end of a link before its high end."""
    by_panel = _grouped(curves, lambda curve: curve.panel)
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
    by_panel = _grouped(curves, lambda curve: curve.panel)
    runs = _grouped(list(of_run.values()), lambda panel: panel.title)
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


def _grouped(items: Sequence[_Item], key: Callable[[_Item], str]) -> dict[str, list[_Item]]:
    groups: dict[str, list[_Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups
