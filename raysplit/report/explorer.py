"""The interactive panel: other weights, phones, networks and links, computed in the reader's page.

Python hands over the measured table, the model's sizes and every preset; `templates/explorer/`
has the closed forms of `raysplit.budget` and draws with Vega-Lite. The charts are made here, in
Altair, with names in the place of data. All of it is inlined: the page asks nothing from a server.

Shape suffixes: C codecs, P split points, G measured link states, L measured losses, X SNRs,
K attempts (0 first).
"""

# altair leaves keyword arguments without a type:
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any

from raysplit.base.arrays import FloatArray, IntArray
from raysplit.budget.setup import Setup
from raysplit.figures import coordinate_unit, distinct_colours
from raysplit.model.sizes import Sizes

_INK, _MUTED = "#1f2933", "#8a94a0"  # grey is what the run itself found
_PARTS = ("costs", "choice", "panel")  # of the script, each with the names of those before it
_HEIGHT = 230  # pixels of a chart
_TOOLTIP = {"place": "split point", "said": "objective", "ppl": "perplexity", "costs": "costs"}
_DESCRIPTIONS = {
    "map": "The best split point over the link, as set here and as in this run",
    "objective": "The objective over the split point in the chosen link state",
    "front": "Perplexity against what it costs: the front of split points",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RadioTable:
    """What the radio of `link.mode: digital` does at each SNR of the panel.

    Attributes:
        loss_axis_L: Packet losses that perplexity was measured at, ascending.
        loss_CX: Loss of a token's packet, with each codec.
        rate_mbit_s_X: Rate of a long transfer.
        block_bits_X: Bits of a block.
        attempts_XK: Probability that a block takes so many attempts.
        slot_s: Length of a slot, in s.
    """

    loss_axis_L: FloatArray
    loss_CX: FloatArray
    rate_mbit_s_X: FloatArray
    block_bits_X: IntArray
    attempts_XK: FloatArray
    slot_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Moving:
    """What moving the split within an episode costs (`problem.switching`).

    Attributes:
        per_layer: Taken off the objective for each layer that changes sides; 0 where the budget
            decides.
        context_tokens: Where the budget decides: so many tokens of context move.
        kv_bits_C: Bits of one token's keys and values in one layer; None for a codec that cannot
            send them.
        current: The split point that is moved from.
    """

    per_layer: float
    context_tokens: int | None
    kv_bits_C: Sequence[int | None]
    current: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What the panel shows at first: the run's own weights and its request.

    Attributes:
        weights: By name: `lambda`, and percents of the clean PPL a second, a joule, a miss.
        setup: Phone, edge, network and request.
        phone: The phone's name among the presets.
        edge: The edge's.
        network: The network's.
        deadline_s: When the first token misses its deadline; None: there is none.
        codecs: What decisions are made among.
        only_fitting: Whether split points are left out that do not fit into phone and edge.
    """

    weights: Mapping[str, float]
    setup: Setup
    phone: str
    edge: str
    network: str
    deadline_s: float | None
    codecs: Sequence[str]
    only_fitting: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Explorer:
    """What the panel computes with.

    The objective that it minimises is a share of the clean PPL:

        PPL / clean PPL + lambda C(p) s + (a TTFT + b E + c P(late)) / 100

    Attributes:
        coordinates: The link coordinates.
        axes: The values of each that the reader chooses among; a link state is one of each.
        split_points: First and last.
        codecs: Names.
        log_ppl_CPG: Measured, over the product of the axes (digital: over the losses).
        stderr_CPG: Standard errors of it.
        clean_log_ppl: Over a perfect link.
        computation_P: C(p).
        computation: What C(p) is, in words.
        relative_to_first: s is PPL(p_min) / clean PPL in the same link state, and not 1, as the
            authors' reward has it.
        sizes: The model's.
        bits_C: Bits of one hidden state on the air.
        presets: Constants by kind and name.
        radio: Only `link.mode: digital`.
        moving: None where it costs nothing.
        start: Where the panel begins.
    """

    coordinates: tuple[str, ...]
    axes: Sequence[FloatArray]
    split_points: tuple[int, int]
    codecs: Sequence[str]
    log_ppl_CPG: FloatArray
    stderr_CPG: FloatArray
    clean_log_ppl: float
    computation_P: FloatArray
    computation: str
    relative_to_first: bool
    sizes: Sizes
    bits_C: Sequence[int]
    presets: Mapping[str, Mapping[str, Mapping[str, float]]]
    radio: RadioTable | None
    moving: Moving | None
    start: Start


@dataclass(frozen=True, slots=True)
class Script:
    """A script of the page, and what lets the page's policy run it and no other."""

    text: str

    @property
    def permit(self) -> str:
        """The source expression of a Content-Security-Policy."""
        digest = hashlib.sha256(self.text.encode()).digest()
        return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def content(explorer: Explorer) -> dict[str, Any]:
    """Return what the script reads, as JSON values."""
    radio, moving, start = explorer.radio, explorer.moving, explorer.start
    return {
        "link": [
            {"name": label, "unit": unit, "values": axis.tolist()}
            for (label, unit), axis in zip(
                map(coordinate_unit, explorer.coordinates), explorer.axes, strict=True
            )
        ],
        "split_points": list(explorer.split_points),
        "codecs": list(explorer.codecs),
        "log_ppl": explorer.log_ppl_CPG.tolist(),
        "stderr": explorer.stderr_CPG.tolist(),
        "clean_log_ppl": explorer.clean_log_ppl,
        "computation": explorer.computation_P.tolist(),
        "computation_words": explorer.computation,
        "relative_to_first": explorer.relative_to_first,
        "sizes": asdict(explorer.sizes),
        "bits": list(explorer.bits_C),
        "presets": explorer.presets,
        "radio": radio
        and {
            "loss_axis": radio.loss_axis_L.tolist(),
            "loss": radio.loss_CX.tolist(),
            "rate_mbit_s": radio.rate_mbit_s_X.tolist(),
            "block_bits": radio.block_bits_X.tolist(),
            "attempts": radio.attempts_XK.tolist(),
            "slot_s": radio.slot_s,
        },
        "moving": moving
        and {
            "per_layer": moving.per_layer,
            "context_tokens": moving.context_tokens,
            "kv_bits": list(moving.kv_bits_C),
        },
        "start": {
            "weights": dict(start.weights),
            "phone": start.phone,
            "edge": start.edge,
            "network": start.network,
            **start.setup.request.model_dump(),
            "deadline_s": start.deadline_s,
            "codecs": list(start.codecs),
            "only_fitting": start.only_fitting,
            "current": moving and moving.current,
            "context_tokens": moving and moving.context_tokens,
        },
        "charts": _charts(explorer),
    }


@functools.cache
def scripts() -> tuple[Script, ...]:
    """Return Vega-Lite with what it needs, and the panel's own script."""
    import vl_convert

    library = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    home = resources.files("raysplit.report").joinpath("templates/explorer")
    parts = [home.joinpath(f"{name}.js").read_text(encoding="utf-8") for name in _PARTS]
    # In a function, so that none of their names meets one of the library's.
    own = "\n".join(['"use strict";', "(() => {", *parts, "})();"])
    found = (Script(library), Script(own))
    for script in found:  # what would end the element early, or change under the parser's hands
        assert not any(text in script.text.lower() for text in ("</script", "<!--", "\r"))
    return found


def _charts(explorer: Explorer) -> dict[str, Any]:
    """Return Vega-Lite specifications by name; their data have names and no values.

    Grey is what the run's own weights and request give, a colour a codec.
    """
    import altair as alt

    first, last = explorer.split_points
    codecs = list(explorer.codecs)
    split_point: dict[str, Any] = {
        "axis": alt.Axis(tickMinStep=1, format="d"),
        "scale": alt.Scale(domain=[first - 0.5, last + 0.5], nice=False),
    }
    few: dict[str, Any] = {"axis": alt.Axis(format="~g", labelOverlap=True, tickCount=7)}
    label, unit = coordinate_unit(explorer.coordinates[0])
    x = alt.X(
        "x:Q",
        title=f"{label} ({unit})" if unit else label,
        scale=alt.Scale(zero=False, nice=False),
        **few,
    )
    p = alt.X("p:Q", title="split point", **split_point)
    cost = alt.X("x:Q", title=None, scale=alt.Scale(zero=False), **few)
    best_p = alt.Y("p:Q", title="best split point", **split_point)
    codec = alt.Color(
        "codec:N",
        scale=alt.Scale(domain=codecs, range=distinct_colours(len(codecs))),
        legend=alt.Legend(title=None, orient="top") if len(codecs) > 1 else None,
    )
    tooltip = [alt.Tooltip(f"{name}:N", title=title) for name, title in _TOOLTIP.items()]

    def value(title: str, name: str = "value") -> alt.Y:
        return alt.Y(f"{name}:Q", title=title, scale=alt.Scale(zero=False))

    def data(name: str) -> alt.Chart:
        return alt.Chart(alt.NamedData(name=name))

    def grey(**line: Any) -> alt.Chart:  # noqa: ANN401 - of mark_line
        return data("run").mark_line(color=_MUTED, opacity=0.55, strokeWidth=6, **line)

    dots = data("places").mark_point(filled=True, size=45, opacity=1)
    dots = dots.encode(color=codec, tooltip=tooltip)
    bars = data("places").mark_rule(opacity=0.45).encode(color=codec, y2="high:Q")
    thin: dict[str, Any] = {"color": _INK, "strokeWidth": 1}
    ring = data("best").mark_point(size=260, strokeWidth=2, color=_INK)
    objective, excess = "objective beyond clean PPL (%)", "PPL beyond clean (%)"
    layers = {
        "map": [
            data("here").mark_rule(color=_MUTED, strokeDash=[4, 3]).encode(x=x),
            grey().encode(x=x, y=best_p),
            data("places").mark_line(**thin).encode(x=x, y=best_p),
            dots.encode(x=x, y=best_p),
        ],
        "objective": [
            grey().encode(x=p, y=value(objective)),
            bars.encode(x=p, y=value(objective, "low")),
            data("places").mark_line(strokeWidth=1.5).encode(x=p, y=value(objective), color=codec),
            dots.encode(x=p, y=value(objective)),
            ring.encode(x=p, y=value(objective)),
        ],
        "front": [
            grey(interpolate="step-after").encode(x=cost, y=value(excess)),
            bars.encode(x=cost, y=value(excess, "low")),
            data("front")
            .mark_line(interpolate="step-after", **thin)
            .encode(x=cost, y=value(excess)),
            dots.encode(x=cost, y=value(excess)),
            data("front").mark_text(dx=9, dy=-9).encode(x=cost, y=value(excess), text="p:Q"),
            ring.encode(x=cost, y=value(excess)),
        ],
    }
    return {
        name: alt.layer(*of_chart)
        .properties(width="container", height=_HEIGHT, description=_DESCRIPTIONS[name])
        .configure_view(stroke=None)
        .configure_axis(gridColor="#e3e7ec", labelFontSize=12, titleFontSize=12.5)
        .configure_legend(labelFontSize=12)
        .to_dict()
        for name, of_chart in layers.items()
    }
