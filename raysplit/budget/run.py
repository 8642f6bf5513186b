"""`raysplit budget`: from names to the printed table, without measuring anything."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence

from rich.console import Console

from raysplit.budget.bits import usual_codecs
from raysplit.budget.costs import refuse_unless_some_fit, split_costs
from raysplit.budget.machine_readable import costs_as_json
from raysplit.budget.moving import moving_costs
from raysplit.budget.presets import Kind, load_setup, presets
from raysplit.budget.setup import Setup
from raysplit.budget.table import (
    CAPTION,
    costs_table,
    fits_line,
    moving_line,
    source_lines,
    sources_table,
)
from raysplit.model.sizes import Sizes, sizes_of


def print_budget(
    model: str,
    names: Mapping[Kind, str],
    prompt_tokens: int,
    output_tokens: int,
    *,
    codecs: Sequence[str] = (),
    overrides: Sequence[str] = (),
    sources: bool = False,
    as_json: bool = False,
) -> None:
    """Print what each split point costs.

    Args:
        model: A name, a folder or a config.json.
        names: The presets of phone, edge and network.
        prompt_tokens: Tokens of the prompt.
        output_tokens: Tokens of the answer.
        codecs: What hidden states are sent as; none: a few usual ones.
        overrides: Such as "phone.memory_gb=8".
        sources: Whether to print where each constant comes from.
        as_json: Print JSON with every split point instead, in SI units.

    Raises:
        UserError: Something of it is wrong, or no split fits.
    """
    sizes = sizes_of(model)
    setup = load_setup(
        **names, prompt_tokens=prompt_tokens, output_tokens=output_tokens, overrides=overrides
    )
    chosen = codecs or usual_codecs(sizes.hidden_size)
    costs = [split_costs(sizes, setup, codec) for codec in chosen]
    refuse_unless_some_fit(sizes, setup, costs[0])
    if as_json:
        print(json.dumps(costs_as_json(sizes, setup, costs), indent=2))
        return
    context = setup.request.prompt_tokens + setup.request.output_tokens
    moves = {codec: moving_costs(sizes, setup, codec, context) for codec in chosen}
    # A file or pipe, which may be searched line by line, wraps nothing.
    width = None if sys.stdout.isatty() else 1000
    console = Console(width=width, markup=False, highlight=False, emoji=False)
    console.print(heading(sizes, setup, names))
    console.print(costs_table(costs))
    console.print(CAPTION)
    console.print(fits_line(costs[0], setup))
    console.print(moving_line(moves, context))
    if sources:
        console.print(sources_table(presets(), names, setup))
        console.print("\n".join(source_lines(presets(), names)))


def heading(sizes: Sizes, setup: Setup, names: Mapping[Kind, str]) -> str:
    """Say what is computed: model, request, devices and network."""
    request, network = setup.request, setup.network
    devices = [
        f"{kind} {name}: {presets().named(kind, name).description}" for kind, name in names.items()
    ]
    return "\n".join(
        (
            f"{sizes.name}: {sizes.num_hidden_layers} layers, hidden size {sizes.hidden_size}; "
            f"prompt {request.prompt_tokens} tokens, answer {request.output_tokens}",
            *devices,
            f"uplink {network.uplink_mbit_s:g} Mbit/s, round trip {network.rtt_ms:g} ms",
        )
    )
