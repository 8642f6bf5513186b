"""The `sweep` section of an experiment: which hyper-parameters are varied, and how.

Light on purpose: no Ray, no torch, so that an experiment file is checked before either is loaded.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from raysplit.base.config import Config
from tuning.settings import Count, Seeds

Number = int | float
Method = Literal["panels", "grid", "random", "optuna"]


class Range(Config):
    """A range to draw from; integers where both ends are.

    Attributes:
        low: Lower end, included.
        high: Upper end, included.
        log: Draw evenly in the logarithm.
    """

    low: Number
    high: Number
    log: bool = False

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low is {self.low} but must be below high ({self.high})")
        if self.log and self.low <= 0:
            raise ValueError(f"low is {self.low} but must be above 0 where log is true")
        return self

    @property
    def integers(self) -> bool:
        """Whether only integers are drawn."""
        return isinstance(self.low, int) and isinstance(self.high, int)


class AshaConfig(Config):
    """Asynchronous successive halving (Li et al. 2020): trials that lag behind end early.

    Attributes:
        grace_steps: Env steps that every trial may take.
        reduction_factor: At each rung one in so many goes on, and a rung is so many times higher
            than the one before.
    """

    grace_steps: Count = 4_000
    reduction_factor: Annotated[float, Field(gt=1)] = 3.0


Values = Annotated[tuple[Number, ...], Field(min_length=1)]


def _fig_8() -> dict[str, Values | Range]:
    return {
        "learning_rate": (1e-4, 3e-4, 5e-4, 7e-4),
        "minibatch_size": (50, 100, 150, 200),
        "clip_range": (0.1, 0.2, 0.3, 0.4),
        "gae_lambda": (0.90, 0.95, 0.97, 0.99),
    }


class SweepConfig(Config):
    """The `sweep` section. The default is the paper's Fig. 8.

    Attributes:
        agent: The agent of the experiment that is varied; None takes the first.
        method: `panels` varies one hyper-parameter at a time around the agent's own; `grid` takes
            every combination; `random` and `optuna` (an optional extra) draw `samples` of them.
        space: Values, or a range (random and optuna), by the hyper-parameter's name.
        samples: Settings that random and optuna try.
        seeds: Each setting is trained with each of them.
        search_seed: Of the draws.
        asha: Ends bad trials early; None trains all to the end.
        cpus_per_trial: Cores of a trial.
        max_concurrent: Most trials at a time; None takes what fits.
    """

    agent: str | None = None
    method: Method = "panels"
    space: Annotated[dict[str, Values | Range], Field(min_length=1)] = Field(default_factory=_fig_8)
    samples: Count = 32
    seeds: Seeds = (0, 1, 2, 3, 4)
    search_seed: Annotated[int, Field(ge=0)] = 0
    asha: AshaConfig | None = None
    cpus_per_trial: Count = 1
    max_concurrent: Count | None = None

    @model_validator(mode="after")
    def _space_suits_the_method(self) -> Self:
        for name, values in self.space.items():
            if isinstance(values, Range):
                if self.method in ("panels", "grid"):
                    raise ValueError(
                        f"space.{name} is a range, but method {self.method} needs a list of "
                        "values; use method random or optuna"
                    )
            elif len(set(values)) < len(values):
                raise ValueError(f"space.{name} names a value twice: {list(values)}")
        return self
