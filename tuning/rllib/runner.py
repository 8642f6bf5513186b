"""An RLlib env runner that steps a NumPy vector env and the policy in one loop.

RLlib's own runner builds an episode object per env and sends every observation through two
pipelines of connectors; with networks this small that costs more than the policy and the env
together. Everything else (weights, state, metrics, remote runners) stays RLlib's.

Shape suffixes: T steps, N parallel envs, I observation columns, A actions.
"""

# RLlib types its configurations by their base class and most attributes as Optional until setup:
# pyright: reportAttributeAccessIssue=false, reportOptionalMemberAccess=false, reportIncompatibleMethodOverride=false

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.utils.metrics import EPISODE_LEN_MEAN, EPISODE_RETURN_MEAN

from raysplit.base.arrays import BoolArray, Float32Array, FloatArray, IntArray
from tuning.rllib.module import SplitModule
from tuning.rllib.rollout import Rollout


class LeanEnvRunner(SingleAgentEnvRunner):
    """Samples `Rollout`s; takes the place of RLlib's SingleAgentEnvRunner.

    Where all episodes end together, as they do in problems of a fixed number of steps, each
    rollout starts from a reset whose seed follows from the run's seed and the steps done so far:
    a run that is restored from a checkpoint then repeats the unbroken one exactly.
    """

    def __init__(self, *, config: AlgorithmConfig, **kwargs: object) -> None:
        super().__init__(config=config, **kwargs)
        self._must_reset = True
        # (returns, lengths) of the episodes that ended since the last `get_metrics`.
        self._finished: list[tuple[FloatArray, IntArray]] = []

    def make_env(self) -> None:
        """Create the vector env.

        Raises:
            ValueError: The env resets within the step that ends an episode, which would hand the
                next episode's first observation to the old one.
        """
        super().make_env()
        mode = self._vector_env.metadata.get("autoreset_mode")
        if mode is not AutoresetMode.NEXT_STEP:
            raise ValueError(f"autoreset mode is {mode}; the runner needs AutoresetMode.NEXT_STEP")

    @property
    def _vector_env(self) -> VectorEnv[Any, Any, Any]:
        # RLlib's wrapper turns infos into lists of dicts; nobody reads them here.
        return cast(VectorEnv[Any, Any, Any], self.env.unwrapped)

    def sample(
        self,
        *,
        num_timesteps: int | None = None,
        num_episodes: int | None = None,
        explore: bool | None = None,
        random_actions: bool = False,
        force_reset: bool = False,
    ) -> list[Rollout]:
        """Return one rollout of at least `num_timesteps` valid steps (default: a fragment's).

        Raises:
            NotImplementedError: The caller wants episodes or random actions; evaluation is
                `tuning.evaluate`'s, exactly and without sampling.
        """
        if num_episodes is not None or random_actions:
            raise NotImplementedError("the lean runner samples a number of steps of its policy")
        if num_timesteps is None:
            fragment = self.config.get_rollout_fragment_length(self.worker_index)
            num_timesteps = fragment * self.num_envs
        self._must_reset |= force_reset
        rollout = self._roll(
            num_timesteps, bool(self.config.explore if explore is None else explore)
        )
        self.num_env_steps_sampled_lifetime += rollout.steps
        return [rollout]

    def _roll(self, wanted_steps: int, explore: bool) -> Rollout:
        rng = np.random.default_rng(self._rollout_seed())
        if self._must_reset:
            self._reset(seed=int(rng.integers(2**31)))
        obs: list[Float32Array] = [self._obs_NI]
        rows: list[tuple[Any, ...]] = []
        steps = 0
        while steps < wanted_steps:
            valid_N = ~self._resets_N
            logits_NA = self._logits(explore, steps)
            actions_N = sampled(logits_NA, rng) if explore else logits_NA.argmax(1)
            rewards_N, terminated_N, ended_N = self._step(actions_N, valid_N)
            rows.append((actions_N, logits_NA, rewards_N, terminated_N, ended_N, valid_N))
            obs.append(self._obs_NI)
            steps += int(valid_N.sum())
        self._must_reset = bool(self._resets_N.all())
        self._increase_sampled_metrics(steps, sum(int(row[4].sum()) for row in rows))
        actions, logits, rewards, terminated, ended, valid = map(np.stack, zip(*rows, strict=True))
        return Rollout(
            obs_TNI=np.stack(obs),
            actions_TN=actions,
            log_probs_TN=log_probabilities(logits, actions),
            rewards_TN=rewards.astype(np.float32),
            terminated_TN=terminated,
            ended_TN=ended,
            valid_TN=valid,
        )

    def _rollout_seed(self) -> list[int] | None:
        if self._seed is None:
            return None
        return [self._seed, int(self.num_env_steps_sampled_lifetime)]

    def _reset(self, seed: int) -> None:
        self._obs_NI = np.array(self._vector_env.reset(seed=seed)[0], np.float32, order="C")
        self._resets_N = np.zeros(self.num_envs, bool)
        self._returns_N = np.zeros(self.num_envs)
        self._lengths_N = np.zeros(self.num_envs, int)

    def _step(self, actions_N: IntArray, valid_N: BoolArray) -> tuple[Any, BoolArray, BoolArray]:
        """Step all envs; return rewards, terminated, ended, and note the episodes that ended."""
        obs_NI, rewards_N, terminated_N, truncated_N, _ = self._vector_env.step(actions_N)
        # A copy, because the env may write into its array again.
        self._obs_NI = np.array(obs_NI, np.float32, order="C")
        self._returns_N += rewards_N * valid_N
        self._lengths_N += valid_N
        ended_N = terminated_N | truncated_N
        if ended_N.any():
            self._finished.append((self._returns_N[ended_N], self._lengths_N[ended_N]))
            self._returns_N[ended_N] = self._lengths_N[ended_N] = 0
        self._resets_N = ended_N
        return rewards_N, terminated_N, ended_N

    def _logits(self, explore: bool, steps: int) -> Float32Array:
        if self._resets_N.all():  # the actions of this step are ignored by every env
            return np.zeros((self.num_envs, self.net.actions), np.float32)
        obs_NI = torch.from_numpy(self._obs_NI)
        with torch.inference_mode():
            if not explore:
                return self.net.policy_outputs(obs_NI).numpy()
            now = int(self.num_env_steps_sampled_lifetime) + steps
            return self.net.behaviour_logits(obs_NI, now).numpy()

    @property
    def net(self) -> SplitModule:
        """The policy."""
        return cast(SplitModule, self.module)

    def get_metrics(self) -> dict[str, Any]:
        """Return RLlib's metrics: the mean over the episodes that ended since the last call."""
        if self._finished:
            returns, lengths = map(np.concatenate, zip(*self._finished, strict=True))
            self.metrics.log_value(EPISODE_RETURN_MEAN, float(returns.mean()), window=100)
            self.metrics.log_value(EPISODE_LEN_MEAN, float(lengths.mean()), window=100)
            self._finished.clear()
        return self.metrics.reduce()


def sampled(logits_NA: Float32Array, rng: np.random.Generator) -> IntArray:
    """Return one action per row, drawn from the softmax of the logits (by Gumbel-max)."""
    return (logits_NA + rng.gumbel(size=logits_NA.shape)).argmax(1)


def log_probabilities(logits_TNA: Float32Array, actions_TN: IntArray) -> Float32Array:
    """Return the log-probability of each action under the softmax of its logits, (T, N)."""
    shifted_TNA = logits_TNA - logits_TNA.max(-1, keepdims=True)
    chosen_TN = np.take_along_axis(shifted_TNA, actions_TN[..., None], -1)[..., 0]
    return chosen_TN - np.log(np.exp(shifted_TNA).sum(-1))
