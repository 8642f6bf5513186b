"""The table of a budget, as the command line prints it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from raysplit.budget.costs import Costs
from raysplit.budget.moving import MovingCosts
from raysplit.budget.presets import Kind, Presets
from raysplit.budget.setup import Setup

CAPTION = (
    "first: seconds to the first token = phone + air + edge + one round trip; next: seconds of "
    "each further one; energy: J of the phone over the request; memory: GB of the phone"
)
_COLUMNS = ("p", "codec", "first", "phone", "air", "edge", "next", "energy", "memory")
_QUARTERS = 4


def costs_table(costs: Sequence[Costs]) -> Table:
    """Return one row for each of a few split points and every codec.

    Args:
        costs: Of the same split points, a codec each.
    """
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, collapse_padding=True)
    for column in _COLUMNS:
        table.add_column(column, justify="left" if column == "codec" else "right", no_wrap=True)
    for row in shown_rows(costs[0]):
        p = str(costs[0].split_points_P[row])
        memory = _short(costs[0].ue_memory_bytes_P[row] / 1e9)
        if not costs[0].fits_P[row]:
            table.add_row(p, "does not fit", *[""] * 6, memory, style="dim")
        for number, one in enumerate(costs if costs[0].fits_P[row] else ()):
            cells = (_short(value) for value in _values(one, row))
            table.add_row("" if number else p, one.codec, *cells, "" if number else memory)
        table.add_section()
    return table


def shown_rows(costs: Costs) -> list[int]:
    """Return which split points to show: the ends, the quarters, and the ends of what fits."""
    last, fit = len(costs.split_points_P) - 1, np.flatnonzero(costs.fits_P)
    quarters = {round(last * quarter / _QUARTERS) for quarter in range(_QUARTERS + 1)}
    return sorted(quarters | {int(fit[0]), int(fit[-1])})


def _values(costs: Costs, row: int) -> list[float]:
    parts = costs.prefill
    arrays = (costs.ttft_s_P, parts.ue_s_P, parts.air_s_P, parts.edge_s_P, costs.tpot_s_P)
    return [float(array_P[row]) for array_P in (*arrays, costs.ue_energy_j_P)]


def _short(value: float) -> str:
    """Three digits in at most seven characters."""
    return f"{value:.3g}" if value >= 1e-3 else f"{value:.1e}"


def fits_line(costs: Costs, setup: Setup) -> str:
    """Say which split points both devices have the memory for."""
    fit = costs.split_points_P[costs.fits_P]
    return (
        f"p = {fit[0]}-{fit[-1]} of {costs.split_points_P[-1]} fit into phone.memory_gb = "
        f"{setup.phone.memory_gb:g} and edge.memory_gb = {setup.edge.memory_gb:g}"
    )


def moving_line(moves: Mapping[str, MovingCosts], context_tokens: int) -> str:
    """Say what a step of the split costs, by codec."""
    first = next(iter(moves.values()))
    down = ", ".join(
        f"{codec} {move.down.seconds:.3g} s {move.down.ue_energy_j:.3g} J"
        for codec, move in moves.items()
    )
    return (
        f"moving the split after {context_tokens} tokens: p + 1 takes the phone "
        f"{first.up.seconds:.3g} s {first.up.ue_energy_j:.3g} J; p - 1 sends {first.down.sends}: "
        f"{down}"
    )


def sources_table(file: Presets, names: Mapping[Kind, str], setup: Setup) -> Table:
    """Return every constant with its basis; one that was overridden is the user's."""
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for column in ("constant", "value", "basis", "source", "note"):
        table.add_column(column, overflow="fold", justify="right" if column == "value" else "left")
    for kind, name in names.items():
        for key, constant in file.named(kind, name).constants.items():
            value = getattr(getattr(setup, kind), key)
            told = (constant.basis, constant.source, constant.note)
            cells = told if value == constant.value else ("given", "--set", "")
            table.add_row(f"{kind}.{key}", f"{value:g}", *map(Text, cells))
        table.add_section()
    return table


def source_lines(file: Presets, names: Mapping[Kind, str]) -> list[str]:
    """Return what each source of these presets is, and of when."""
    used = {
        constant.source
        for kind, name in names.items()
        for constant in file.named(kind, name).constants.values()
    }
    return [
        f"{key} ({source.date}): {source.title}"
        for key, source in file.sources.items()
        if key in used
    ]
