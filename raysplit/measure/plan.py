"""Which settings are measured: a scrambled Sobol sequence, a grid, or a list from a file.

Of an active plan the first ones; `raysplit.pipeline.active` goes on by what they find.
"""

# scipy ships no types:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from raysplit.base.arrays import FloatArray
from raysplit.base.config import Config, UserPath
from raysplit.base.errors import UserError
from raysplit.base.tables import read_table
from raysplit.link.axis import grid_axis, rounded_within
from raysplit.link.config import LinkConfig
from raysplit.link.coordinates import link_state
from raysplit.link.state import LINK_COORDINATES
from raysplit.measure.setting import Setting

_FIRST_OF_ROWS = 2**42  # and below 2**53, so that any reader of JSON holds a seed exactly


class PlanConfig(Config):
    """How the settings are chosen.

    Attributes:
        kind: `sobol` fills (split point, link state) evenly; `grid` takes every split point at
            `grid_points` values of each link coordinate; `list` reads `path`; `active` begins with
            a few and adds those of a grid's settings that tell most about the decision.
        settings: Number of settings of a Sobol plan (the paper: 9,718 records).
        grid_points: Values per link coordinate of a grid, ends included; of an active plan, those
            that it may choose.
        first_settings: Only `active`: how many it begins with, by a Sobol sequence.
        batch_settings: Only `active`: how many are chosen, and measured side by side, at a time.
        max_settings: Only `active`: how many it measures at most.
        target_regret: Only `active`: it stops where planning on what was measured is expected to
            lose no more than this share of the gap random - optimum, twice in a row.
        path: Parquet or CSV file with a column `split_point` and one per link coordinate, within
            the problem's ranges.
        paired: Give every setting the same randomness, so that differences between split points
            are not blurred by different noise (common random numbers). Otherwise each has its own,
            and so has each of another seed's plan. Which sentences are drawn is the same for all
            settings either way.
        seed: Seeds the plan and the link.
    """

    kind: Literal["sobol", "grid", "list", "active"] = "sobol"
    settings: int = Field(default=9718, ge=1)
    grid_points: int = Field(default=11, ge=2)
    first_settings: int = Field(default=12, ge=1)
    batch_settings: int = Field(default=4, ge=1)
    max_settings: int = Field(default=96, ge=1)
    target_regret: float = Field(default=0.02, ge=0.0, lt=1.0)
    path: UserPath | None = None
    paired: bool = True
    seed: int = Field(default=0, ge=0, lt=2**32)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.kind == "list") != (self.path is not None):
            raise ValueError("plan.path goes with plan.kind: list (and is needed there)")
        if self.kind == "active" and self.max_settings < self.first_settings:
            raise ValueError(
                f"max_settings {self.max_settings} must be at least first_settings "
                f"{self.first_settings}"
            )
        return self


def make_plan(
    config: PlanConfig,
    split_points: tuple[int, int],
    ranges: Mapping[str, tuple[float, float]],
    link: LinkConfig | None = None,
) -> list[Setting]:
    """Return the settings of a plan; of an active one, those that it begins with.

    Args:
        config: How to choose.
        split_points: First and last split point, both included.
        ranges: Link coordinate -> (low, high), in the coordinate's unit.
        link: The kind of link; only the coordinate `outage_probability` needs it.

    Raises:
        UserError: If a listed file cannot be read, or leaves the split points or the ranges.
    """
    names = tuple(ranges)
    match config.kind:
        case "sobol":
            rows = _sobol(config.settings, config.seed, split_points, ranges)
        case "grid":
            rows = _grid(config.grid_points, split_points, ranges)
        case "list":
            assert config.path is not None
            rows = _listed(config.path, split_points, ranges)
        case "active":
            rows = _sobol(config.first_settings, config.seed, split_points, ranges)
    return settings_of(config, rows, names, link)


def settings_of(
    config: PlanConfig,
    rows: FloatArray,
    names: tuple[str, ...],
    link: LinkConfig | None = None,
    first: int = 0,
) -> list[Setting]:
    """Return the settings of rows (split point, link coordinates), each with the plan's seed.

    Args:
        config: The plan.
        rows: One row a setting.
        names: The link coordinates, in column order.
        link: The kind of link; only the coordinate `outage_probability` needs it.
        first: The place in the plan of the first row; seeds that are not shared count from there.
    """
    return [
        Setting(
            int(row[0]),
            link_state(names, row[1:], link),
            config.seed if config.paired else _seed_of_row(config.seed, i),
        )
        for i, row in enumerate(rows, start=first)
    ]


def _seed_of_row(seed: int, i: int) -> int:
    """Return the seed of an unpaired plan's i-th setting: plans with other seeds share none.

    It lies above every seed that a plan or a stage gives by itself.
    """
    digest = hashlib.sha256(f"{seed}:{i}".encode()).digest()
    return _FIRST_OF_ROWS + int.from_bytes(digest[:6], "big")


def _sobol(
    settings: int,
    seed: int,
    split_points: tuple[int, int],
    ranges: Mapping[str, tuple[float, float]],
) -> FloatArray:
    from scipy.stats import qmc  # takes a second to load, and every command loads this module

    sampler = qmc.Sobol(d=1 + len(ranges), scramble=True, rng=np.random.default_rng(seed))
    # A Sobol sequence is balanced at powers of two: draw up to the next one and keep the beginning.
    unit_NK = sampler.random_base2(max(0, (settings - 1).bit_length()))[:settings]
    first, last = split_points
    low = np.array([first, *(r[0] for r in ranges.values())])
    high = np.array([last + 1, *(r[1] for r in ranges.values())])
    rows = low + unit_NK * (high - low)
    rows[:, 0] = np.floor(rows[:, 0])
    for k, (lowest, highest) in enumerate(ranges.values(), start=1):
        rows[:, k] = rounded_within(rows[:, k], lowest, highest)
    return rows


def _grid(
    points: int, split_points: tuple[int, int], ranges: Mapping[str, tuple[float, float]]
) -> FloatArray:
    axes = [grid_axis(low, high, points) for low, high in ranges.values()]
    first, last = split_points
    return np.array(list(itertools.product(range(first, last + 1), *axes)), dtype=np.float64)


def _listed(
    path: Path, split_points: tuple[int, int], ranges: Mapping[str, tuple[float, float]]
) -> FloatArray:
    """Read a plan's file and refuse what the surrogate would be asked about outside the problem."""
    names = tuple(ranges)
    table = read_table(path, ("split_point", *names), "plan.path")
    others = [n for n in LINK_COORDINATES if n in table.columns and n not in names]
    if others:
        raise UserError(
            f"plan.path {path} varies {others[0]}, and problem.link does not: add it there, or "
            "drop the column"
        )
    rows = table.values_RC
    if not len(rows):
        raise UserError(f"plan.path {path} holds no row: give it one for each setting")
    first, last = split_points
    for row, place in zip(rows, table.places, strict=True):
        if row[0] % 1 or not first <= row[0] <= last:
            raise UserError(
                f"plan.path {path}, {place}: split_point {row[0]:g} is none of {first} to {last}"
            )
        for (name, (low, high)), value in zip(ranges.items(), row[1:], strict=True):
            if not low <= value <= high:
                raise UserError(
                    f"plan.path {path}, {place}: {name} {value:g} is outside [{low:g}, {high:g}]; "
                    "leave the row out, or widen problem.link"
                )
    return rows
