"""A replay buffer of single transitions: arrays used as a ring.

Shape suffixes: B transitions, A actions, C of them that a transition holds, I observation columns.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.hindsight import steps_of_all_actions
from envs.params import LayerSplitParams
from envs.sources import PPLSource
from raysplit.base.arrays import BoolArray, Float32Array, IntArray
from tuning.rllib.rollout import Rollout


@dataclass(frozen=True, slots=True)
class Transitions:
    """B steps of a problem, in no order, with C actions each: the taken one, or all (hindsight).

    Attributes:
        obs_BI: Where each step began.
        actions_BC: The actions.
        rewards_BC: What each gave, or would have given (above the mean over all places).
        next_obs_BCI: Where each led, or would have led.
        terminated_B: The episode ended with the step.
    """

    obs_BI: Float32Array
    actions_BC: IntArray
    rewards_BC: Float32Array
    next_obs_BCI: Float32Array
    terminated_B: BoolArray

    @classmethod
    def of(cls, rollout: Rollout) -> Transitions:
        """Return a rollout's valid steps."""
        valid = rollout.valid_TN
        return cls(
            rollout.obs_TNI[:-1][valid],
            rollout.actions_TN[valid][:, None],
            rollout.rewards_TN[valid][:, None],
            rollout.obs_TNI[1:][valid][:, None],
            rollout.terminated_TN[valid],
        )

    @classmethod
    def of_all_actions(
        cls, rollout: Rollout, params: LayerSplitParams, source: PPLSource
    ) -> Transitions:
        """Return a rollout's valid steps with all actions, in one call of the source."""
        taken = cls.of(rollout)
        arrivals_BAI, rewards_BA = steps_of_all_actions(
            params, source, taken.obs_BI, taken.next_obs_BCI[:, 0]
        )
        actions_BA = np.tile(np.arange(rewards_BA.shape[1]), (len(rewards_BA), 1))
        return cls(taken.obs_BI, actions_BA, rewards_BA, arrivals_BAI, taken.terminated_B)

    def columns(self) -> tuple[NDArray[Any], ...]:
        """Return the fields in order."""
        return tuple(getattr(self, field.name) for field in fields(self))


class Replay:
    """The last `capacity` transitions, from which any number is drawn uniformly."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.added = 0
        self._columns: tuple[NDArray[Any], ...] = ()

    def __len__(self) -> int:
        return min(self.added, self.capacity)

    def add(self, transitions: Transitions) -> None:
        """Store transitions in place of the oldest."""
        columns = transitions.columns()
        if not self._columns:
            shapes = [(self.capacity, *column.shape[1:]) for column in columns]
            self._columns = tuple(map(np.empty, shapes, [column.dtype for column in columns]))
        places = np.arange(self.added, self.added + len(columns[0])) % self.capacity
        for stored, new in zip(self._columns, columns, strict=True):
            stored[places] = new
        self.added += len(places)

    def draw(self, count: int, generator: np.random.Generator) -> Transitions:
        """Return that many transitions, drawn with replacement."""
        places = generator.integers(len(self), size=count)
        return Transitions(*(column[places] for column in self._columns))

    def get_state(self) -> dict[str, Any]:
        """Return what a checkpoint holds; RLlib 2.60 leaves its own buffers out."""
        return {"added": self.added, "columns": [column[: len(self)] for column in self._columns]}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a state of `get_state`."""
        self.added, self._columns = 0, ()
        if state["columns"]:
            self.add(Transitions(*state["columns"]))
        self.added = state["added"]
