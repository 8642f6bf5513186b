"""Draw a report's figures and fill its page."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined

from raysplit import figures
from raysplit.base.files import write_atomically
from raysplit.figures import AnswerLine, AnswerPlane, EpisodeReturns
from raysplit.report.answer import (
    budget_sentence,
    codec_sentence,
    does_learning_pay,
    sentence,
)
from raysplit.report.data import PolicyResult, ReportData
from raysplit.report.explorer import content, scripts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = "report.html"


def write_report(data: ReportData, folder: Path) -> Path:
    """Write FOLDER/figures/ and FOLDER/report.html, the page last; return its path.

    The page holds its figures, style and scripts and asks nothing from any server.
    """
    pictures: dict[str, str] = {}
    for name, figure in _draw(data).items():
        paths = figures.save(figure, folder / "figures", name)
        pictures[name] = base64.b64encode(paths["svg"].read_bytes()).decode("ascii")
    write_atomically(folder / PAGE, _page(data, pictures))
    return folder / PAGE


def _draw(data: ReportData) -> dict[str, Figure]:
    drawn: dict[str, Figure] = {}
    if isinstance(data.answer, AnswerPlane):
        drawn["answer"] = figures.answer_plane(data.answer)
    else:
        drawn["answer"] = figures.answer_line(data.answer)
    if data.budget:
        drawn["time"] = figures.time_stacks(data.budget.stacks)
        drawn["trade"] = figures.trade_offs(data.budget.trades)
        if data.budget.terms:
            drawn["terms"] = figures.optimum_terms(data.budget.terms)
        if data.budget.codecs:
            drawn["codecs"] = figures.codec_map(data.budget.codecs)
    if data.perplexity:
        drawn["perplexity"] = figures.ppl_against_split_point(data.perplexity)
    measured = {p.name: p.measured.episode_return for p in data.policies if p.measured}
    if measured:
        surrogate = {p.name: p.surrogate.episode_return for p in data.policies if p.surrogate}
        drawn["returns"] = figures.returns_and_intervals(surrogate, measured)
    if data.episodes:
        drawn["episodes"] = figures.violins(data.episodes)
    if data.decisions:
        drawn["decisions"] = figures.split_point_trend(data.decisions)
    if data.walk:
        drawn["walk"] = figures.trace_walk(data.walk)
    if data.learning:
        drawn["learning"] = figures.learning_curves(data.learning)
    if data.fit:
        drawn["parity"] = figures.surrogate_parity(data.fit)
    if data.active:
        drawn["active"] = figures.share_by_evaluations(data.active)
    if data.sweep:
        drawn["weight"] = figures.cost_weight_sweep(data.sweep)
    return drawn


def _page(data: ReportData, pictures: Mapping[str, str]) -> str:
    environment = Environment(
        loader=PackageLoader("raysplit.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # jinja2 leaves the type of `filters` open.
    environment.filters |= {  # pyright: ignore[reportUnknownMemberType]
        "number": _number,
        "digits": _digits,
        "percent": _percent,
        "duration": _duration,
        "memory": _memory,
        "size": _size,
    }
    return environment.get_template("report.html.j2").render(
        data=data,
        pictures=pictures,
        sentence=sentence(data.answer),
        budget_sentence=budget_sentence(data.budget) if data.budget else "",
        codec_sentence=codec_sentence(data.budget.codecs)
        if data.budget and data.budget.codecs
        else "",
        explorer=content(data.explorer) if data.explorer else None,
        scripts=scripts() if data.explorer else (),
        is_line=isinstance(data.answer, AnswerLine),
        episodes=_episodes(data.episodes),
        verdict=does_learning_pay(data.policies),
        best_agent=_best([p for p in data.policies if p.kind == "agent"]),
        best_fixed=_best([p for p in data.policies if p.kind == "fixed"]),
    )


def _episodes(played: EpisodeReturns | None) -> int:
    """Return how many episodes each policy played (an agent: each of its seeds)."""
    return min(map(len, played.returns.values())) if played else 0


def _best(policies: list[PolicyResult]) -> PolicyResult | None:
    """Return the policy with the largest share of the gap on measured perplexity."""
    judged = [(p.measured.share_of_gap, p) for p in policies if p.measured]
    return max(judged, key=lambda pair: pair[0])[1] if judged else None


def _number(value: float, digits: int = 3, *, signed: bool = False) -> str:
    if not math.isfinite(value):
        return "–"  # noqa: RUF001 (a dash on purpose)
    rounded = round(value, digits) + 0.0  # no negative zero
    text = f"{rounded:{'+' if signed else ''}.{digits}f}"
    return text.replace("-", "−")  # noqa: RUF001 (the minus sign of typography)


def _digits(value: float) -> str:
    """Three significant digits, without exponents where a reader can do without."""
    return f"{value:.3g}" if not 0 < value < 1e-4 else f"{value:.1e}"


def _percent(share: float, digits: int = 1) -> str:
    return f"{_number(100 * share, digits)}\N{NO-BREAK SPACE}%"


def _memory(size: int | None) -> str:
    return "–" if size is None else f"{_number(size / 1e9, 2)} GB"  # noqa: RUF001 (a dash)


def _size(gb: float) -> str:
    return f"{_digits(gb)} GB" if gb >= 0.1 else f"{_digits(1e3 * gb)} MB"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
