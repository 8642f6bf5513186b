"""The presets of phones, edges and networks, with where each of their numbers comes from."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, Literal

from pydantic import ValidationError

from raysplit.base.config import Config
from raysplit.base.errors import UserError, suggest
from raysplit.base.explain import explain
from raysplit.base.overrides import apply_override
from raysplit.base.yaml_text import parse_yaml
from raysplit.budget.setup import Setup

Kind = Literal["phone", "edge", "network"]


class Source(Config):
    """Where numbers come from.

    Attributes:
        title: What one looks for to find it.
        date: When it was published, or read where it states no date.
    """

    title: str
    date: str


class Constant(Config):
    """One number of a preset; its unit is part of its key's name.

    Attributes:
        value: The number.
        basis: `published` by who makes the device, `measured`, `derived` from what the source
            published or measured (the note says how), or an `estimate` of ours near the source.
        source: A key of the file's sources.
        note: How the number follows from the source.
    """

    value: float
    basis: Literal["published", "measured", "derived", "estimate"]
    source: str
    note: str = ""


class Preset(Config):
    """One device or network.

    Attributes:
        description: What it stands for.
        constants: Each number, by its key in `raysplit.budget.setup`.
    """

    description: str
    constants: dict[str, Constant]


class Presets(Config):
    """The whole file."""

    sources: dict[str, Source]
    phone: dict[str, Preset]
    edge: dict[str, Preset]
    network: dict[str, Preset]

    def named(self, kind: Kind, name: str) -> Preset:
        """Return a preset.

        Raises:
            UserError: There is none of that name.
        """
        known: dict[str, Preset] = getattr(self, kind)
        if name not in known:
            near = suggest(name.lower(), known)
            raise UserError(f"unknown {kind} {name!r}{near}\nknown: {', '.join(known)}")
        return known[name]


@functools.cache
def presets() -> Presets:
    """Return what `presets.yaml` says."""
    text = resources.files("raysplit.budget").joinpath("presets.yaml").read_text(encoding="utf-8")
    return Presets.model_validate(parse_yaml(text))


def load_setup(
    phone: str,
    edge: str,
    network: str,
    *,
    prompt_tokens: int = 512,
    output_tokens: int = 128,
    overrides: Sequence[str] = (),
    changes: Mapping[str, Mapping[str, float]] | None = None,
) -> Setup:
    """Return presets by their names, with single numbers replaced.

    Args:
        phone: A phone of the presets.
        edge: An edge.
        network: A network.
        prompt_tokens: Tokens of the prompt.
        output_tokens: Tokens of the answer.
        overrides: Such as "phone.memory_gb=8" or "network.uplink_mbit_s=13.3".
        changes: The same as sections, such as {"phone": {"memory_gb": 8}}.

    Raises:
        UserError: An unknown preset or key, or a number that cannot be.
    """
    names: dict[Kind, str] = {"phone": phone, "edge": edge, "network": network}
    values: dict[str, Any] = {
        kind: {key: c.value for key, c in presets().named(kind, name).constants.items()}
        for kind, name in names.items()
    }
    values["request"] = {"prompt_tokens": prompt_tokens, "output_tokens": output_tokens}
    for override in overrides:
        apply_override(values, override)
    for section, numbers in (changes or {}).items():
        values[section] = values.get(section, {}) | numbers
    try:
        return Setup.model_validate(values)
    except ValidationError as error:
        raise UserError(explain(error, Setup)) from None
