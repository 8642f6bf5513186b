"""Algorithm 1: true rewards for the first steps, then a surrogate fitted on what was seen.

One more source of perplexities, not a second trainer: the envs ask a `SwitchingSource`, and the
algorithm decides when it hands over. What was measured and whether the hand-over has happened are
part of the algorithm's own state, so every way of restoring it brings them back. (RLlib's callback
`on_checkpoint_loaded` fires for one way only.)

The surrogate itself is not saved: fitting the same rows again gives the same one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.dqn import DQN
from ray.rllib.algorithms.ppo import PPO
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME

from envs.ppl_source import PPLSource, SwitchingSource
from tuning.a2c import A2C
from tuning.dqn import LeanDQN
from tuning.local import SharedSource

Fit = Callable[[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]], PPLSource]
"""(split_points_N, link_states_NK, ppl_N) -> a source that predicts; deterministic."""


class Algorithm1Source(SharedSource):
    """A true source that is followed by a surrogate fitted on its answers."""

    def __init__(self, true_source: PPLSource, fit: Fit, true_steps: int) -> None:
        """Take the true source, the fit, and T of Algorithm 1, counted in env steps."""
        self.switching = SwitchingSource(true_source)
        super().__init__(self.switching)
        self.fit = fit
        self.true_steps = true_steps

    def hand_over(self) -> PPLSource:
        """Fit the surrogate on all true answers so far and let it answer from now on."""
        surrogate = self.fit(*self.switching.seen())
        self.switching.hand_over(surrogate)
        return surrogate

    def get_state(self) -> dict[str, Any]:
        """Return the flag and the true answers."""
        return self.switching.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a state of `get_state`; past the hand-over, fit again."""
        self.switching.set_state(state)
        if self.switching.use_surrogate:
            self.hand_over()


class Switching(Algorithm):
    """Hands the source over once `true_steps` env steps were taken; mixed into an algorithm."""

    @property
    def source(self) -> Algorithm1Source:
        """This process's source: the envs' own, or with remote runners the one that collects."""
        return cast(Algorithm1Source, self.config.env_config["source"])

    def training_step(self) -> None:
        """Take the algorithm's own step, then hand over if it is time (lines 31-34)."""
        super().training_step()
        self._collect()
        steps = self.metrics.peek((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME), default=0)
        if not self.source.switching.use_surrogate and steps >= self.source.true_steps:
            self.source.hand_over()
            self._tell_runners()

    def _collect(self) -> None:
        """Take over what remote runners were answered since the last time."""
        if self.config.num_env_runners and not self.source.switching.use_surrogate:
            answers = self.env_runner_group.foreach_env_runner(
                lambda runner: source_of(runner).switching.drain(), local_env_runner=False
            )
            for buffer in answers:
                self.source.switching.add(buffer)

    def _tell_runners(self) -> None:
        """Give the surrogate to the sources of remote runners."""
        if self.config.num_env_runners and self.source.switching.use_surrogate:
            surrogate = self.source.switching.surrogate
            self.env_runner_group.foreach_env_runner(
                lambda runner: source_of(runner).switching.hand_over(surrogate),
                local_env_runner=False,
            )

    def restore_env_runners(self, env_runner_group: Any) -> list[int]:
        """Restart lost runners as RLlib does; the new ones start with the true source."""
        restored = super().restore_env_runners(env_runner_group)
        if restored:
            self._tell_runners()
        return restored

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the algorithm's state and the source's."""
        return {**super().get_state(*args, **kwargs), "algorithm1": self.source.get_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a state of `get_state`."""
        super().set_state(state)
        if "algorithm1" in state:
            self.source.set_state(state["algorithm1"])
            self._tell_runners()


def source_of(runner: Any) -> Algorithm1Source:
    """Return the source that an env runner's envs ask."""
    return runner.env.unwrapped.source


class SwitchingPPO(Switching, PPO):
    """PPO as Algorithm 1 has it."""


class SwitchingA2C(Switching, A2C):
    """A2C with the same hand-over."""


class SwitchingLeanDQN(Switching, LeanDQN):
    """The lean DQN with the same hand-over."""


class SwitchingDQN(Switching, DQN):
    """RLlib's DQN with the same hand-over."""


SWITCHING: dict[type[Algorithm], type[Algorithm]] = {
    PPO: SwitchingPPO,
    A2C: SwitchingA2C,
    LeanDQN: SwitchingLeanDQN,
    DQN: SwitchingDQN,
}
