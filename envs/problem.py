"""The decision problem as the user writes it: which link, which split points, which reward.

Only the YAML section; `envs.params.params_from` turns it into the frozen parameters that the
environments and the oracle compute with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from envs.link_config import Case, LinkDynamicsConfig, LinkRange, ValueRange
from raysplit.base.config import Config
from raysplit.link.codec import Codec
from raysplit.link.state import LOWER_IS_WORSE, check_coordinates, check_value

Reward = Literal["objective", "authors", "budget"]
ActionSpace = Literal["split", "split_and_codec", "absolute"]
FamilyName = Literal["correlation", "mean_snr_db", "lambda"]

BUDGET_WEIGHTS = ("percent_per_second", "percent_per_joule", "percent_per_miss")


class SwitchingConfig(Config):
    """What moving the split within an episode costs.

    Attributes:
        per_layer: Taken off the reward for each layer that changes sides, in the reward's unit: a
            share of the clean perplexity, perplexity itself with `raw`.
        context_tokens: Only `reward: budget`: so many tokens of context move with a layer, and what
            that takes in seconds and joules (`raysplit.budget.moving`) is weighed as the reward's.
    """

    per_layer: float = Field(default=0.0, ge=0.0)
    context_tokens: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if self.per_layer and self.context_tokens:
            raise ValueError(
                "per_layer and context_tokens are two ways to count the same: keep one of them"
            )
        return self


class FamilyRange(Config):
    """Values that agents learn, the problem's own among them (`envs.family`).

    Attributes:
        low: Lowest value.
        high: Highest value.
        held_out: Values in between that no training draws, to be judged on.
    """

    low: float
    high: float
    held_out: ValueRange | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low {self.low!r} must be below high {self.high!r}")
        if self.held_out is not None:
            first, last = self.held_out
            if not self.low < first < last < self.high:
                raise ValueError(
                    f"held_out {list(self.held_out)} must be ascending and between "
                    f"{self.low!r} and {self.high!r}"
                )
        return self


class ProblemConfig(Config):
    """The `problem` section of an experiment (paper, Sections III-B, IV-A and V-A).

    Attributes:
        case: L: good links and small initial split points; H: bad links and large ones; A: all.
        link: The link coordinates that vary, with their ranges; the others stay at their default.
        codecs: What hidden states are sent as (`raysplit.link.codec`). All are measured; decisions
            are made for the first, or among all with `actions: split_and_codec`.
        actions: `split` moves the split point by a layer, `split_and_codec` also the codec by one
            in its list, `absolute` jumps to any split point (`envs.actions`).
        switching: What moving costs.
        dynamics: How the link changes within an episode.
        family: Other values of `correlation`, `mean_snr_db` or `lambda` that agents learn besides,
            and see (`envs.family`); {} for none.
        min_split_point: Fewest layers on the device.
        max_split_point: Most layers on the device.
        initial_split_points: First and last split point that an episode starts from; by default
            the lower half (L), the upper half (H) or all (A) of the split points.
        episode_steps: Decisions in an episode.
        discount: Discount of reported returns; 1 reports the plain sum over an episode.
        reward: `objective`: -(PPL / clean PPL + lambda * C_UE(p) / C_whole), Eq. 8 with both terms
            dimensionless. `authors`: 10 g + (p_max - p) / p_max with the relative gain
            g = 1 - PPL(p, state) / PPL(p_min, state). `budget`: -(PPL / clean PPL
            + (a TTFT + b E + c P(late)) / 100) with a, b, c the three `percent_per_...` and the
            rest from the experiment's section `budget`.
        cost_weight: lambda of Eq. 7 (YAML key `lambda`).
        raw: Only `objective`: Eq. 8 as printed, -(PPL + lambda * C_UE(p)), with C_UE as given.
        percent_per_second: Only `budget`: how many percent of the clean perplexity a second until
            the first token is worth.
        percent_per_joule: Only `budget`: the same of a joule of the phone over the whole request.
        percent_per_miss: Only `budget`: the same of a first token after `budget.deadline_s`.
        observe_step: Append the number of steps taken to the observation.
    """

    case: Case = "A"
    link: dict[str, LinkRange] = Field(min_length=1)
    codecs: tuple[str, ...] = Field(default=("identity",), min_length=1)
    actions: ActionSpace = "split"
    switching: SwitchingConfig = SwitchingConfig()
    dynamics: LinkDynamicsConfig = LinkDynamicsConfig()
    family: dict[FamilyName, FamilyRange] = Field(default_factory=dict)
    min_split_point: int = Field(default=1, ge=1)
    max_split_point: int = Field(default=10, ge=2)
    initial_split_points: tuple[int, int] | None = None
    episode_steps: int = Field(default=5, ge=1, le=1000)
    discount: float = Field(default=1.0, gt=0.0, le=1.0)
    reward: Reward = "objective"
    cost_weight: float = Field(
        default=0.1, ge=0.0, validation_alias="lambda", serialization_alias="lambda"
    )
    raw: bool = False
    percent_per_second: float = Field(default=0.0, ge=0.0)
    percent_per_joule: float = Field(default=0.0, ge=0.0)
    percent_per_miss: float = Field(default=0.0, ge=0.0)
    observe_step: bool = False

    @field_validator("codecs")
    @classmethod
    def _names_of_codecs(cls, codecs: tuple[str, ...]) -> tuple[str, ...]:
        if len({Codec(name) for name in codecs}) < len(codecs):
            raise ValueError("a codec stands there twice: name each once")
        return codecs

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _check_link(self.link)
        _check_drift(self.dynamics, self.link)
        first, last = self.min_split_point, self.max_split_point
        if first >= last:
            raise ValueError(f"min_split_point {first} must be below max_split_point {last}")
        low, high = self.start_split_points
        if not first <= low <= high <= last:
            raise ValueError(
                f"initial_split_points [{low}, {high}] must be ascending and within {first}..{last}"
            )
        if self.raw and self.reward != "objective":
            raise ValueError("raw goes with reward: objective")
        _check_weights(self.reward, self.budget_weights)
        self._check_actions()
        self._check_path()
        self._check_family()
        return self

    def _check_family(self) -> None:
        needed = {
            "correlation": ("dynamics.kind: gauss_markov", self.dynamics.kind == "gauss_markov"),
            "mean_snr_db": ("dynamics.kind: fading", self.dynamics.kind == "fading"),
            "lambda": ("reward: objective", self.reward == "objective"),
        }
        for name, one in self.family.items():
            what, given = needed[name]
            if not given:
                raise ValueError(f"family.{name} goes with {what}")
            lowest, highest = {"correlation": (0.0, 1.0)}.get(name, (-np.inf, np.inf))
            if name == "lambda":
                lowest = 0.0
            if not lowest <= one.low or not one.high < highest:
                raise ValueError(
                    f"family.{name} {one.low!r} to {one.high!r} leaves what it can be: from "
                    f"{lowest:g} to below {highest:g}"
                )
            self._check_own_value(name, one)
        if self.family and self.dynamics.drift_per_layer:
            raise ValueError("family goes without drift_per_layer: set it to 0")

    def _check_actions(self) -> None:
        several = len(self.codecs) > 1
        if self.actions == "split_and_codec" and not several:
            raise ValueError(
                f"actions: split_and_codec chooses among codecs, and codecs has {self.codecs[0]} "
                "alone: name more, or take actions: split"
            )
        if self.actions == "split_and_codec" and self.reward == "authors":
            raise ValueError(
                "reward: authors compares with the first split point and knows no codec: take "
                "reward: objective or budget, or actions: split"
            )
        if self.actions == "split_and_codec" and self.dynamics.drift_per_layer:
            raise ValueError("drift_per_layer goes with actions: split or absolute: set it to 0")
        if self.switching.context_tokens and self.reward != "budget":
            raise ValueError(
                f"switching.context_tokens goes with reward: budget, and this is reward: "
                f"{self.reward}: use switching.per_layer"
            )

    def _check_own_value(self, name: FamilyName, one: FamilyRange) -> None:
        """Scores are those of the problem's own values, so training has to draw them."""
        own: dict[FamilyName, float | None] = {
            "correlation": self.dynamics.correlation,
            "mean_snr_db": self.dynamics.fading and self.dynamics.fading.mean_snr_db,
            "lambda": self.cost_weight,
        }
        value = own[name]
        held_out = one.held_out or (np.inf, np.inf)
        if value is None or not one.low <= value <= one.high or held_out[0] < value < held_out[1]:
            raise ValueError(
                f"family.{name} draws from {one.low!r} to {one.high!r}"
                + (f" without {list(one.held_out)}" if one.held_out else "")
                + f", and the problem's own is {value!r}: no training would see it; widen the one, "
                "or change the other"
            )

    def _check_path(self) -> None:
        fading = self.dynamics.fading
        if fading is not None and fading.steps <= self.episode_steps:
            raise ValueError(
                f"dynamics.fading.steps {fading.steps} must be above episode_steps "
                f"{self.episode_steps}: raise the one, or lower the other"
            )
        radio = self.dynamics.kind == "fading" or self.dynamics.step_s is not None
        if radio and self.link_names != ("snr_db",):
            raise ValueError(
                "a path of a radio (dynamics.kind: fading, or a trace with step_s) is one of "
                f"snr_db, and problem.link has {', '.join(self.link_names)}: vary snr_db alone"
            )

    @property
    def budget_weights(self) -> dict[str, float]:
        """The weights of the reward `budget` by their keys, in percent of the clean perplexity."""
        return {name: getattr(self, name) for name in BUDGET_WEIGHTS}

    @property
    def link_names(self) -> tuple[str, ...]:
        """The link coordinates that vary, in the order of observations and link states."""
        return tuple(self.link)

    @property
    def all_codecs(self) -> tuple[Codec, ...]:
        """The codecs that are measured."""
        return tuple(map(Codec, self.codecs))

    @property
    def codec(self) -> Codec:
        """The codec that decisions are made for, or the first of those."""
        return self.all_codecs[0]

    @property
    def decision_codecs(self) -> tuple[str, ...]:
        """The codecs that decisions are made among."""
        return self.codecs if self.actions == "split_and_codec" else self.codecs[:1]

    @property
    def start_split_points(self) -> tuple[int, int]:
        """First and last split point that an episode of this case starts from."""
        if self.initial_split_points is not None:
            return self.initial_split_points
        middle = (self.min_split_point + self.max_split_point) // 2
        match self.case:
            case "L":
                return self.min_split_point, middle
            case "H":
                return middle + 1, self.max_split_point
            case "A":
                return self.min_split_point, self.max_split_point

    def ranges(self, case: Case | None = None) -> dict[str, ValueRange]:
        """Return each link coordinate's (low, high) in a case, by default the problem's own."""
        return {
            name: link.of_case(case or self.case, lower_is_worse=name in LOWER_IS_WORSE)
            for name, link in self.link.items()
        }


def _check_link(link: Mapping[str, LinkRange]) -> None:
    check_coordinates(tuple(link))
    for name, values in link.items():
        for value in (values.low, values.high):
            check_value(name, value)


def _check_weights(reward: Reward, weights: Mapping[str, float]) -> None:
    given = [f"{name} = {value:g}" for name, value in weights.items() if value]
    if reward == "budget" and not given:
        raise ValueError(
            f"reward: budget weighs nothing but perplexity: give {', '.join(weights)} (one or more)"
        )
    if given and reward != "budget":
        raise ValueError(f"{given[0]} goes with reward: budget, and this is reward: {reward}")


def _check_drift(dynamics: LinkDynamicsConfig, link: Mapping[str, LinkRange]) -> None:
    unfit = sorted(LOWER_IS_WORSE & link.keys())
    if dynamics.drift_per_layer and unfit:
        raise ValueError(f"drift_per_layer is not defined for {unfit[0]}: set it to 0")
