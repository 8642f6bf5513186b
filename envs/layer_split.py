"""The Gymnasium environment `raysplit/LayerSplit-v0`: one episode at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

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
from raysplit.base.arrays import Float32Array

Observation = Float32Array


class LayerSplitEnv(gymnasium.Env[Observation, np.int64]):
    """Move the split point of a language model while the wireless link changes.

    The first p layers run on the device, the others behind a wireless link (paper, Section IV-A).
    In each step of an episode the agent moves p, by at most one layer unless it may jump.

    **Actions**, `Discrete(3)`; a move beyond the first or last split point stays where it is.

    | action | effect |
    |---|---|
    | 0 | one layer fewer on the device: p - 1 |
    | 1 | stay |
    | 2 | one layer more on the device: p + 1 |

    With `actions: split_and_codec` there are 9, which also move the codec, and with `absolute` one
    for each split point (`envs.actions`).

    **Observations**, `Box` of float32 in raw units:

    | index | what | bounds |
    |---|---|---|
    | 0 .. K-1 | link coordinates that vary, in the problem's order | the case's range (+ drift) |
    | K | split point p | first .. last split point |
    | next | the codec's index, only with `split_and_codec` | 0 .. codecs - 1 |
    | last | steps taken, only with `observe_step` | 0 .. `episode_steps` |

    **Reward** of arriving at (p, link state), Eq. 8: `objective`:
    -(PPL / clean PPL + lambda C_UE(p) / C_whole), `raw`: -(PPL + lambda C_UE(p));
    `authors`: 10 g + (p_max - p) / p_max with the relative PPL gain g. PPL comes from the source.
    Less what moving costs, where it does (`switching`).

    **Start**: split point and link state uniform on the case's ranges (a random row of a trace).
    `reset(options={"split_point": p, "link_state": x})` starts from there instead.

    **Link within an episode**: constant (optionally drifting with p), i.i.d., Gauss-Markov, fading,
    trace.

    **End**: `terminated` after `episode_steps` steps; never `truncated`.

    **Version history**: v0: first version.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(
        self, params: LayerSplitParams | None = None, source: PPLSource | None = None
    ) -> None:
        """Take the problem (from `envs.params.params_from`) and its source of PPL.

        Without arguments, the built-in example problem.

        Raises:
            UserError: If the source cannot serve the problem's reward.
        """
        self.params = params or example_params()
        self.source = example_source if source is None else source
        check_source(self.params, self.source)
        low, high = observation_bounds(self.params)
        self.observation_space = spaces.Box(low, high, dtype=np.float32)
        self._actions = number_of_actions(self.params)
        self.action_space = spaces.Discrete(self._actions)
        self._state: State | None = None

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode; `options` may name its `split_point` and `link_state`.

        Raises:
            UserError: If a chosen start is outside the problem.
        """
        super().reset(seed=seed)
        self._state = initial_state(self.params, 1, self.np_random, options)
        return observation(self.params, self._state)[0], {}

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Move the split point and collect the reward.

        Raises:
            UserError: If there is no such action, or the source's answer does not serve.
        """
        assert self._state is not None, "call reset() before step()"
        actions_N = checked_actions([action], 1, self._actions)
        before = self._state
        self._state = transition(self.params, before, actions_N, self.np_random)
        reward_N = step_reward(self.params, self.source, before, self._state)
        ended = bool(terminated(self.params, self._state)[0])
        return observation(self.params, self._state)[0], float(reward_N[0]), ended, False, {}
