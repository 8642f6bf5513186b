"""A cell: its resource grid, its retransmissions, its powers; and the presets by name."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import Field, ValidationError

from raysplit.base.config import Config
from raysplit.base.errors import UserError, suggest
from raysplit.base.explain import explain
from raysplit.base.yaml_text import parse_yaml
from raysplit.radio.harq import HarqConfig
from raysplit.radio.mcs import ResourceGrid
from raysplit.radio.place import Place

_Preset = TypeVar("_Preset")
_FILE = Path(__file__).parent / "presets.yaml"


class Cell(Config):
    """One cell and one phone that sends in it.

    Attributes:
        grid: Resource elements for the phone's data.
        harq: Retransmissions.
        carrier_ghz: Carrier frequency.
        phone_power_dbm: Transmit power of the phone.
        base_power_dbm: Transmit power of the base station over the occupied subcarriers; an RSRP
            becomes a path loss by it.
        noise_figure_db: Noise figure of the base station's receiver.
        antenna_gain_db: Gain of the base station's antennas.
        source: Where the constants are from.
        date: When they were looked up, year and month.
    """

    grid: ResourceGrid
    harq: HarqConfig = HarqConfig()
    carrier_ghz: float = Field(gt=0)
    phone_power_dbm: float = 23.0
    base_power_dbm: float = 46.0
    noise_figure_db: float = Field(default=5.0, ge=0)
    antenna_gain_db: float = 8.0
    source: str = ""
    date: str = ""


class _Presets(Config):
    cells: dict[str, Cell]
    places: dict[str, Place]


@functools.cache
def _presets() -> _Presets:
    return _Presets.model_validate(parse_yaml(_FILE.read_text(encoding="utf-8")))


def cell_names() -> tuple[str, ...]:
    """Return the names of the cells that have presets."""
    return tuple(_presets().cells)


def place_names() -> tuple[str, ...]:
    """Return the names of the places that have presets."""
    return tuple(_presets().places)


def load_cell(name: str, **changes: object) -> Cell:
    """Return a cell by name.

    Args:
        name: Of `cell_names()`.
        changes: Fields that differ from the preset; of `grid` and `harq` those keys that differ.

    Raises:
        UserError: If the name or a field is unknown, or a value is not possible.
    """
    cell = _known("cell", name, _presets().cells)
    fields = cell.model_dump()
    for key, value in changes.items():
        fields[key] = {**fields[key], **value} if isinstance(value, dict) else value
    try:
        return Cell.model_validate(fields)
    except ValidationError as error:
        raise UserError(f"cell {name}: {explain(error, Cell)}") from None


def load_place(name: str) -> Place:
    """Return a place by name, of `place_names()`.

    Raises:
        UserError: If the name is unknown.
    """
    return _known("place", name, _presets().places)


def _known(what: str, name: str, presets: Mapping[str, _Preset]) -> _Preset:
    if name not in presets:
        raise UserError(
            f"unknown {what} preset '{name}'; known: {', '.join(presets)}{suggest(name, presets)}"
        )
    return presets[name]
