"""The vector environment: N episodes stepped together in NumPy, the hot loop of RL training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from envs.actions import number_of_actions
from envs.checks import check_source, checked_actions
from envs.dynamics import (
    State,
    initial_state,
    observation,
    observation_bounds,
    step_reward,
    terminated,
    transition,
)
from envs.example import example_params, example_source
from envs.params import LayerSplitParams
from envs.sources import PPLSource
from raysplit.base.arrays import Float32Array, IntArray

Observation = Float32Array
Actions = IntArray
# Gymnasium types rewards and flags by one parameter.
Values = NDArray[Any]
VectorStep = tuple[Observation, Values, Values, Values, dict[str, Any]]


class LayerSplitVectorEnv(VectorEnv[Observation, Actions, Values]):
    """N copies of `LayerSplitEnv` (its docstring is the datasheet), stepped by the same physics.

    Autoreset is NEXT_STEP: the call after the end of an episode ignores the actions, gives reward 0
    and the first observation of the next episode. Every episode has the same number of steps, so
    all copies end together. A step asks the source once, for all copies. Infos are empty.
    """

    metadata: ClassVar[dict[str, Any]] = {  # pyright: ignore[reportIncompatibleVariableOverride]
        "render_modes": [],
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        params: LayerSplitParams | None = None,
        source: PPLSource | None = None,
        num_envs: int = 1,
    ) -> None:
        """Take the problem, its source of PPL and the number of copies.

        Without the first two, the built-in example problem.

        Raises:
            UserError: If the source cannot serve the problem's reward.
        """
        self.params = params or example_params()
        self.source = example_source if source is None else source
        check_source(self.params, self.source)
        self.num_envs = num_envs
        low, high = observation_bounds(self.params)
        self.single_observation_space = spaces.Box(low, high, dtype=np.float32)
        self._actions = number_of_actions(self.params)
        self.single_action_space = spaces.Discrete[np.int64](self._actions)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._state: State | None = None
        self._all_ended = False

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start N episodes; `options` may name `split_point` and `link_state`, one or N of each.

        Raises:
            UserError: If a chosen start is outside the problem.
        """
        super().reset(seed=seed)
        self._state = initial_state(self.params, self.num_envs, self.np_random, options)
        self._all_ended = False
        return observation(self.params, self._state), {}

    def step(self, actions: Actions) -> VectorStep:
        """Move all split points and collect the rewards, or start the next episodes."""
        assert self._state is not None, "call reset() before step()"
        never = np.zeros(self.num_envs, dtype=np.bool_)
        if self._all_ended:
            first, info = self.reset()
            return first, np.zeros(self.num_envs), never, never.copy(), info
        actions_N = checked_actions(actions, self.num_envs, self._actions)
        before = self._state
        self._state = transition(self.params, before, actions_N, self.np_random)
        reward_N = step_reward(self.params, self.source, before, self._state)
        ended_N = terminated(self.params, self._state)
        self._all_ended = bool(ended_N[0])
        return observation(self.params, self._state), reward_N, ended_N, never, {}
