"""Which settings a sweep tries, and which trainings that takes.

A training's key is the hash of everything that decides it, so settings that come to the same
training (the agent's own values stand in each of Fig. 8's panels) share it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import ValidationError

from envs.params import LayerSplitParams
from raysplit.base.errors import UserError
from raysplit.base.explain import explain
from tuning.agent import inputs_sha256
from tuning.settings import TrainConfig
from tuning.sweep.settings import Number, Range, SweepConfig

Overrides = Mapping[str, Number]


@dataclass(frozen=True, slots=True)
class Combination:
    """One combination of hyper-parameters.

    Attributes:
        panel: The hyper-parameter that a panel varies, else the method.
        parameter: The same where one hyper-parameter varies, else None.
        value: Its value, else None.
        overrides: What differs from the agent.
    """

    panel: str
    parameter: str | None
    value: float | None
    overrides: Overrides


@dataclass(frozen=True, slots=True)
class Base:
    """What all trainings of a sweep have in common.

    Attributes:
        params: The problem.
        source_id: A hash that tells one source of perplexities from another.
        agent: The agent that is varied.
    """

    params: LayerSplitParams
    source_id: str
    agent: TrainConfig

    def config(self, overrides: Overrides) -> TrainConfig:
        """Return the agent with a setting's values.

        Raises:
            UserError: A value is out of range or the name is unknown.
        """
        changed = {"overrides": {**self.agent.overrides, **overrides}}
        try:
            return TrainConfig.model_validate(self.agent.model_dump() | changed)
        except ValidationError as error:
            raise UserError(f"sweep.space: {explain(error, TrainConfig)}") from None

    def key(self, overrides: Overrides, seed: int) -> str:
        """Return the name of a training."""
        return inputs_sha256(self.params, self.source_id, self.config(overrides), seed)[:16]


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial of Tune: a setting, and the seeds that run in it after each other."""

    overrides: Overrides
    seeds: tuple[int, ...]

    def tune_config(self, config: SweepConfig) -> dict[str, Any]:
        """Return its configuration in Tune: optuna's space is the setting itself."""
        if config.method == "optuna":
            return dict(self.overrides)
        return {"trial": {"overrides": dict(self.overrides), "seeds": list(self.seeds)}}

    @classmethod
    def from_tune(cls, config: Mapping[str, Any], seeds: Sequence[int]) -> Trial:
        """Return the trial of a configuration in Tune; a setting of optuna's has all `seeds`."""
        planned = config.get("trial", {"overrides": config, "seeds": seeds})
        return cls(planned["overrides"], tuple(planned["seeds"]))


def name_of(values: Mapping[str, Any]) -> str:
    """Return the same text for the same values, whatever their order."""
    return json.dumps(dict(values), sort_keys=True)


def planned_combinations(config: SweepConfig) -> list[Combination]:
    """Return the settings of panels, grid and random; optuna finds its own as it goes."""
    match config.method:
        case "panels":
            return list(_panels(config))
        case "grid":
            values = [_values(config, name) for name in config.space]
            combinations = itertools.product(*values)
            return [
                joint_combination(config, dict(zip(config.space, c, strict=True)))
                for c in combinations
            ]
        case "random":
            generator = np.random.default_rng(config.search_seed)
            drawn = [_drawn(config, generator) for _ in range(config.samples)]
            different = {name_of(overrides): overrides for overrides in drawn}
            return [joint_combination(config, overrides) for overrides in different.values()]
        case "optuna":
            return []


def check_space(base: Base, config: SweepConfig) -> None:
    """Check that every value, and both ends of every range, can be trained.

    Raises:
        UserError: One cannot.
    """
    for name, values in config.space.items():
        ends = (values.low, values.high) if isinstance(values, Range) else values
        for value in ends:
            base.config({name: value})
    for setting in planned_combinations(config):
        base.config(setting.overrides)


def _panels(config: SweepConfig) -> Iterator[Combination]:
    for name in config.space:
        for value in _values(config, name):
            yield Combination(name, name, float(value), {name: value})


def _values(config: SweepConfig, name: str) -> tuple[Number, ...]:
    values = config.space[name]
    assert not isinstance(values, Range)  # refused with the section
    return values


def joint_combination(config: SweepConfig, overrides: Overrides) -> Combination:
    """Return a setting that varies all hyper-parameters at once."""
    return Combination(config.method, None, None, overrides)


def _drawn(config: SweepConfig, generator: np.random.Generator) -> Overrides:
    return {name: _draw(values, generator) for name, values in config.space.items()}


def _draw(values: tuple[Number, ...] | Range, generator: np.random.Generator) -> Number:
    if not isinstance(values, Range):
        return values[int(generator.integers(len(values)))]
    # An integer stands for the half unit on either side of it, so that the ends get their share.
    half = 0.5 if values.integers else 0.0
    low, high = values.low - half, values.high + half
    if values.log:
        drawn = float(np.exp(generator.uniform(np.log(low), np.log(high))))
    else:
        drawn = float(generator.uniform(low, high))
    return min(max(round(drawn), int(values.low)), int(values.high)) if values.integers else drawn
