"""The link as the user writes it: each coordinate's values, and how they change in an episode."""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from raysplit.base.config import Config, UserPath
from raysplit.link.axis import rounded_within
from raysplit.radio.cell import load_cell
from raysplit.radio.path import FadingPathConfig

Case = Literal["L", "H", "A"]
LinkDynamics = Literal["constant", "iid", "gauss_markov", "fading", "trace"]
ValueRange = tuple[float, float]

_NARROWEST = 1e-9  # of a range's larger end: floats have to tell its grid's values apart


class LinkRange(Config):
    """The values that one link coordinate takes; `[low, high]` is short for the first two fields.

    Attributes:
        low: Lowest value, in the coordinate's unit.
        high: Highest value.
        grid_points: Values on the evaluation grid, both ends included.
        case_l: What case L takes of the range; by default the third where the link is best.
        case_h: What case H takes of it; by default the other two thirds.
    """

    low: float
    high: float
    grid_points: int = Field(default=11, ge=2)
    case_l: ValueRange | None = None
    case_h: ValueRange | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_pair(cls, value: Any) -> Any:  # noqa: ANN401 - whatever the YAML holds
        match value:
            case [low, high]:
                return {"low": low, "high": high}
            case [*values]:
                raise ValueError(
                    f"a range is [low, high], and this list has {len(values)} value(s); decimals "
                    "have a point, as a comma separates values"
                )
            case _:
                return value

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low {self.low!r} must be below high {self.high!r}")
        _check_width("the range", self.low, self.high)
        for name, interval in (("case_l", self.case_l), ("case_h", self.case_h)):
            if interval is None:
                continue
            if not self.low <= interval[0] < interval[1] <= self.high:
                raise ValueError(
                    f"{name} {list(interval)} must be a part of [{self.low!r}, {self.high!r}]"
                )
            _check_width(name, *interval)
        return self

    def of_case(self, case: Case, *, lower_is_worse: bool) -> ValueRange:
        """Return the (low, high) that a case takes of the range."""
        explicit = {"L": self.case_l, "H": self.case_h, "A": (self.low, self.high)}[case]
        if explicit is not None:
            return explicit
        # Rounding keeps a third of 0.3 at the paper's 0.1.
        third = (self.high - self.low) / 3
        exact = np.array([self.high - third if lower_is_worse else self.low + third])
        border = float(rounded_within(exact, self.low, self.high)[0])
        takes_lower_part = (case == "L") != lower_is_worse
        return (self.low, border) if takes_lower_part else (border, self.high)


def _check_width(name: str, low: float, high: float) -> None:
    if high - low < _NARROWEST * max(abs(low), abs(high)):
        raise ValueError(
            f"the ends of {name}, {low!r} and {high!r}, are too close together for a grid "
            "between them: widen it"
        )


class LinkDynamicsConfig(Config):
    """How the link changes within an episode.

    The link changes before a step's reward (Eq. 8 takes the state after the action), so the more
    random it is, the less the observed link state says about the reward.

    Attributes:
        kind: `constant`: drawn once per episode. `iid`: drawn anew, uniformly, at every step.
            `gauss_markov`: x = low + (high - low) Phi(z) with z' = rho z + sqrt(1 - rho^2) e and
            standard normal z, e; so at every step x is uniform on its range, `correlation: 0` is
            `iid` and 1 would be `constant`. `fading`: consecutive steps of a simulated path of
            `snr_db` (`fading`), from a random start. `trace`: consecutive rows of a table from a
            random start.
        drift_per_layer: Only `constant`: each layer moved down multiplies the link coordinates by
            1 + drift, each layer moved up by 1 - drift (the authors' code: 0.0005). Only for
            coordinates that grow as the link gets worse.
        correlation: Only `gauss_markov`: rho, the correlation of z from step to step.
        path: Only `trace`: CSV or Parquet file, a column per link coordinate and a row per step.
        step_s: Only `trace`: read the file as one of a radio (mahimahi, or a table with a time and
            capacity, SNR or RSRP; `raysplit.radio.reading`) and average it over steps of so many
            seconds. The problem then varies `snr_db` alone; what is beyond its range counts as its
            border.
        cell: Only with `step_s`: whose rate, and whose powers, of the presets.
        cell_share: Only with `step_s`: how much of the cell is this phone's, where others are
            served too; a capacity counts as the SNR at which that part of the cell has that rate.
        trained_share: Only `trace`: agents learn from this part of the rows, the first, and are
            judged on the others.
        fading: Only `fading`: what the path is made of.
    """

    kind: LinkDynamics = "constant"
    drift_per_layer: float = Field(default=0.0, ge=0.0, lt=0.1)
    correlation: float | None = Field(default=None, ge=0.0, lt=1.0)
    path: UserPath | None = None
    step_s: float | None = Field(default=None, gt=0.0)
    cell: str = "lte"
    cell_share: float = Field(default=1.0, gt=0.0, le=1.0)
    trained_share: float = Field(default=0.5, gt=0.0, lt=1.0)
    fading: FadingPathConfig | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.drift_per_layer and self.kind != "constant":
            raise ValueError("drift_per_layer goes with kind: constant")
        if (self.correlation is not None) != (self.kind == "gauss_markov"):
            raise ValueError("correlation goes with kind: gauss_markov (and is needed there)")
        if (self.path is not None) != (self.kind == "trace"):
            raise ValueError("path goes with kind: trace (and is needed there)")
        if self.step_s is not None:
            if self.kind != "trace":
                raise ValueError("step_s goes with kind: trace")
            load_cell(self.cell)
        if (self.fading is not None) != (self.kind == "fading"):
            raise ValueError(
                "fading goes with kind: fading (and is needed there), such as "
                "fading: {mean_snr_db: 10, step_s: 0.1}"
            )
        return self
