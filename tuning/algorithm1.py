"""The paper's Algorithm 1: learn from true rewards, fit a surrogate on them, go on with that.

    source = Algorithm1Source(measured_source, fit_surrogate(params, SurrogateConfig(), 0), 4_000)
    config = TrainConfig(rewards="algorithm_1", true_steps=4_000)
    agent = train(params, source, config, seed=0, out=Path("agents/ppo-0"))

Comments give the lines of the paper's listing. Three readings of it:

- T (line 7) is counted in env steps, since a training epoch differs in length between algorithms.
- The replay buffer D (line 4) holds what the surrogate is fitted on: settings and their true PPL.
  What an agent learns from is the algorithm's own: PPO's and A2C's rollouts, DQN's replay buffer.
- The surrogate's reward (line 22) is computed at the step itself (line 13), not at the update.

Shape suffixes: N settings, n different settings, K link coordinates.
"""

# RLlib types its configurations by their base class and most attributes as Optional until setup:
# pyright: reportAttributeAccessIssue=false, reportOptionalMemberAccess=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME

from envs.params import LayerSplitParams
from envs.sources import PPLSource, Quantity, SurrogateSource, ask, link_names_of, quantity_of
from raysplit.base.arrays import FloatArray, IntArray
from raysplit.base.errors import UserError
from raysplit.measure.table import Measurements
from raysplit.surrogate import SurrogateConfig, fit

Fit = Callable[[IntArray, FloatArray, FloatArray], PPLSource]
"""(split_points_N, link_states_NK, ppl_N) -> a source that predicts. The same for the same rows:
a surrogate is not saved but fitted again."""


def build_algorithm1(config: AlgorithmConfig, source: Algorithm1Source) -> Algorithm:
    """Return an RLlib algorithm that learns from `source`, with the paper's hand-over.

    Args:
        config: PPO's, or A2C's or DQN's; its envs ask `source`, in this process.
        source: Begins anew.
    """
    algorithm = config.build_algo()  # lines 1-2
    source.begin()  # lines 3-6
    rllib_epoch = algorithm.training_step

    def training_epoch() -> None:  # line 8; RLlib runs one or more of them in an iteration
        rllib_epoch()  # lines 10-30: env steps, rewards from `source`, policy updates
        steps = algorithm.metrics.peek((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME))
        if not source.use_surrogate and steps >= source.true_steps:  # line 31
            source.hand_over()  # lines 32-33

    algorithm.training_step = training_epoch
    return algorithm


class Algorithm1Source:
    """What the envs ask for PPL: a true source, from the hand-over on a surrogate of it.

    Attributes:
        true_steps: T, in env steps.
        measures: A new true answer is a measurement (`envs.checks.fingerprint`).
    """

    quantity: Quantity = "ppl"
    measures = True

    def __init__(self, true_source: PPLSource, fit: Fit, true_steps: int) -> None:
        """Take the true source, what fits its surrogate, and T (line 7).

        Raises:
            UserError: The true source does not give PPL.
        """
        if quantity_of(true_source) != "ppl":
            raise UserError(f"Algorithm 1 needs a source of PPL, not of {true_source.quantity}")
        self.true_steps = true_steps
        self._true_source = true_source
        self._fit = fit
        self.begin()

    def begin(self) -> None:
        """Set lines 3-6, whatever another agent's training left."""
        self._surrogate: PPLSource | None = None  # line 3; its weights are drawn in `fit`
        self._replay_buffer: list[tuple[IntArray, FloatArray, FloatArray]] = []  # line 4

    @property
    def link_names(self) -> tuple[str, ...] | None:
        """The true source's; the surrogate is fitted on its answers."""
        return link_names_of(self._true_source)

    @property
    def use_surrogate(self) -> bool:
        """The flag of line 5."""
        return self._surrogate is not None

    def __call__(self, split_points_N: IntArray, link_states_NK: FloatArray) -> FloatArray:
        """Return the PPL that a step's reward is made of (line 13)."""
        if self._surrogate is not None:  # line 14
            return self._surrogate(split_points_N, link_states_NK)  # line 22; nothing to store
        ppl_N = ask(self._true_source, split_points_N, link_states_NK)
        asked = split_points_N.copy(), link_states_NK.copy()
        self._replay_buffer.append((*asked, ppl_N.copy()))  # line 17
        return ppl_N

    def hand_over(self) -> None:
        """Fit the surrogate on all true answers and use it from now on."""
        self._surrogate = self._fit(*self.true_answers())  # line 32; its being there is line 33

    def true_answers(self) -> tuple[IntArray, FloatArray, FloatArray]:
        """Return all true answers so far, in order: split points, link states, PPL."""
        split_points, link_states, ppl = zip(*self._replay_buffer, strict=True)
        return np.concatenate(split_points), np.concatenate(link_states), np.concatenate(ppl)

    def state(self) -> dict[str, Any]:
        """Return the flag and the true answers as JSON, for a checkpoint."""
        names = ("split_points", "link_states", "ppl")
        answers = {n: x.tolist() for n, x in zip(names, self.true_answers(), strict=True)}
        return {"use_surrogate": self.use_surrogate, **answers}

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned; past the hand-over, fit again."""
        self.begin()
        split_points_N = np.array(state["split_points"], dtype=np.int64)
        link_states_NK = np.array(state["link_states"], dtype=np.float64)
        ppl_N = np.array(state["ppl"], dtype=np.float64)
        self._replay_buffer.append((split_points_N, link_states_NK, ppl_N))
        if state["use_surrogate"]:
            self.hand_over()


def fit_surrogate(params: LayerSplitParams, config: SurrogateConfig, seed: int) -> Fit:
    """Return what fits this project's surrogate (line 32, Eq. 13), each setting counted once.

    It learns what the listing gives it, the true answers alone: not what stage `fit` knows besides,
    that over a perfect link every split point has the clean perplexity.
    """

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
