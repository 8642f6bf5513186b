"""Algorithm 1: true rewards for the first steps, then a surrogate fitted on what was seen.

    source = Algorithm1Source(measured_source, fit_surrogate(params, SurrogateConfig(), 0), 4_000)
    agent = train(params, source, TrainConfig(), seed=0, out=Path("agents/ppo-0"))

One more source of perplexities, not a second trainer: the envs ask it, and the algorithm decides
when it hands over. What was measured and whether the hand-over has happened are part of the
algorithm's own state, so every way of restoring it brings them back. (RLlib's callback
`on_checkpoint_loaded` fires for one of them only.)
"""

# RLlib types its configurations by their base class and most attributes as Optional until setup:
# pyright: reportAttributeAccessIssue=false, reportOptionalMemberAccess=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.dqn import DQN
from ray.rllib.algorithms.ppo import PPO
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.env.env_runner_group import EnvRunnerGroup
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME

from envs.params import LayerSplitParams
from envs.sources import PPLSource, SurrogateSource, SwitchingSource
from raysplit.base.arrays import FloatArray, IntArray
from raysplit.measure.table import Measurements
from raysplit.surrogate import SurrogateConfig, fit
from tuning.rllib.a2c import A2C
from tuning.rllib.dqn import LeanDQN
from tuning.rllib.local import SharedSource

Fit = Callable[[IntArray, FloatArray, FloatArray], PPLSource]
"""(split_points_N, link_states_NK, ppl_N) -> a source that predicts. The same for the same rows:
a surrogate is not saved but fitted again."""


class Algorithm1Source(SwitchingSource):
    """A true source that is followed by a surrogate fitted on its answers."""

    def __init__(self, true_source: PPLSource, fit: Fit, true_steps: int) -> None:
        """Take the true source, the fit, and T of Algorithm 1, counted in env steps.

        Raises:
            UserError: The true source does not give PPL.
        """
        super().__init__(SharedSource(true_source))
        self.fit = fit
        self.true_steps = true_steps
        self.surrogate: PPLSource | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Algorithm1Source:
        return self

    def hand_over(self, surrogate: PPLSource) -> None:
        """Let a surrogate answer from now on."""
        super().hand_over(surrogate)
        self.surrogate = surrogate

    def fit_and_hand_over(self) -> None:
        """Fit the surrogate on all true answers so far and let it answer from now on."""
        self.hand_over(self.fit(*self.seen()))

    def begin(self) -> None:
        """Forget what another agent's training was answered."""
        self.set_state({"use_surrogate": False, "buffer": []})

    def add(self, buffer: list[Any]) -> None:
        """Remember true answers that another process was given."""
        state = self.get_state()
        self.set_state({**state, "buffer": state["buffer"] + buffer})

    def drain(self) -> list[Any]:
        """Return the true answers remembered so far and forget them."""
        state = self.get_state()
        self.set_state({**state, "buffer": []})
        return state["buffer"]


def fit_surrogate(params: LayerSplitParams, config: SurrogateConfig, seed: int) -> Fit:
    """Return what fits this project's surrogate to the true answers, each setting once."""

    def fit_rows(
        split_points_N: IntArray,
        link_states_NK: FloatArray,
        ppl_N: FloatArray,
    ) -> PPLSource:
        settings = np.column_stack([split_points_N, link_states_NK])
        first_n = np.sort(np.unique(settings, axis=0, return_index=True)[1])
        table = Measurements(
            split_points_N=split_points_N[first_n],
            link_names=params.link_names,
            link_states_NK=link_states_NK[first_n],
            log_ppl_N=np.log(ppl_N[first_n]),
            stderr_N=np.zeros(len(first_n)),
            clean_log_ppl=float(np.log(params.ppl_scale)),
        )
        split_points = params.min_split_point, params.max_split_point
        return SurrogateSource(fit(table, config, seed, split_points=split_points)[0])

    return fit_rows


class Switching(Algorithm):
    """Hands over once `true_steps` env steps were taken; mixed into an algorithm.

    With remote env runners this process's source collects what theirs were answered.
    """

    @property
    def source(self) -> Algorithm1Source:
        """This process's source; without remote runners, the one the envs ask."""
        return cast(Algorithm1Source, self.config.env_config["source"])

    def training_step(self) -> None:
        """Take the algorithm's own step, then hand over if it is time (lines 31-34)."""
        super().training_step()
        if self.source.use_surrogate:
            return
        self._collect()
        steps = self.metrics.peek((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME), default=0)
        if steps >= self.source.true_steps:
            self.source.fit_and_hand_over()
            self._tell_runners()

    def _collect(self) -> None:
        if self.config.num_env_runners:
            buffers = self.env_runner_group.foreach_env_runner(
                lambda runner: source_of(runner).drain(), local_env_runner=False
            )
            for buffer in buffers:
                self.source.add(buffer)

    def _tell_runners(self) -> None:
        """Give the surrogate to remote runners."""
        if self.config.num_env_runners and self.source.use_surrogate:
            surrogate = cast(PPLSource, self.source.surrogate)
            self.env_runner_group.foreach_env_runner(
                lambda runner: source_of(runner).hand_over(surrogate), local_env_runner=False
            )

    def restore_env_runners(self, env_runner_group: EnvRunnerGroup) -> list[int]:
        """Restart lost runners as RLlib does; new ones begin with the true source."""
        restored = super().restore_env_runners(env_runner_group)
        if restored:
            self._tell_runners()
        return restored

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # noqa: ANN401 - RLlib's
        """Return the algorithm's state and the source's."""
        return {**super().get_state(*args, **kwargs), "algorithm1": self.source.get_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a state of `get_state`; past the hand-over, fit again."""
        super().set_state(state)
        if "algorithm1" in state:
            self.source.set_state(state["algorithm1"])
            if self.source.use_surrogate:
                self.source.fit_and_hand_over()
                self._tell_runners()


def source_of(runner: EnvRunner) -> Algorithm1Source:
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
