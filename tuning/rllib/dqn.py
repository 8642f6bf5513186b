"""Deep Q-learning's lean pair: rounds of sampling, then of gradient steps on replayed transitions.

RLlib's DQN samples one vector step, builds episode objects for every minibatch and sends them
through its connectors: 250 env steps a second. Here a round's minibatches are drawn at once, and
their targets are computed in one pass, because the target network does not change within a round.

Shape suffixes: B transitions of a round or minibatch, A actions, C of them that a transition holds,
X = B * C, I observation columns.
"""

# RLlib types its configurations by their base class and most attributes as Optional until setup:
# pyright: reportAttributeAccessIssue=false, reportOptionalMemberAccess=false, reportOptionalOperand=false
# pyright: reportIncompatibleMethodOverride=false, reportArgumentType=false

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.dqn import DQN
from ray.rllib.algorithms.dqn.default_dqn_rl_module import QF_PREDS
from ray.rllib.algorithms.dqn.dqn_learner import QF_LOSS_KEY, DQNLearner
from ray.rllib.algorithms.dqn.torch.dqn_torch_learner import DQNTorchLearner
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.core.learner.utils import update_target_network
from ray.rllib.execution.rollout_ops import synchronous_parallel_sample
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    LEARNER_RESULTS,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
)
from torch import Tensor

from tuning.rllib.module import QNetwork, linear_layers, mlp_output
from tuning.rllib.optimizers import FlatOptimizer
from tuning.rllib.replay import Replay, Transitions
from tuning.rllib.rollout import Rollout

TD_LOSSES = {"huber": F.smooth_l1_loss, "mse": F.mse_loss}
"""By RLlib's names."""


class LeanDQN(DQN):
    """DQN whose replay buffer holds single transitions and is part of every checkpoint."""

    def setup(self, config: AlgorithmConfig) -> None:
        """Build what RLlib builds, and the buffer."""
        super().setup(config)
        self.replay = Replay(self.config.replay_buffer_config["capacity"])

    def training_step(self) -> None:
        """Sample a round, replay it, hand the new weights to the runners."""
        sampled = synchronous_parallel_sample(
            worker_set=self.env_runner_group,
            _uses_new_env_runners=True,
            _return_metrics=True,
        )
        rollouts, results = cast(tuple[list[Rollout], list[dict[str, Any]]], sampled)
        self.metrics.aggregate(results, key=ENV_RUNNER_RESULTS)
        for rollout in rollouts:
            self.replay.add(self._transitions(rollout))
        if self.replay.added >= self.config.num_steps_sampled_before_learning_starts:
            self._learn(sum(rollout.steps for rollout in rollouts))

    def _transitions(self, rollout: Rollout) -> Transitions:
        if not self.config.learner_config_dict["hindsight"]:
            return Transitions.of(rollout)
        problem = self.config.env_config
        return Transitions.of_all_actions(rollout, problem["params"], problem["source"])

    def _learn(self, steps: int) -> None:
        """Take the gradient steps that are due after that many new env steps."""
        settings = self.config
        now = self.metrics.peek((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME))
        generator = np.random.default_rng([settings.seed or 0, int(now)])
        results = self.learner_group.update(
            episodes=[self.replay.draw(round(steps * settings.training_intensity), generator)],
            timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: now},
            minibatch_size=settings.total_train_batch_size,
            new_steps=steps,
        )
        self.metrics.aggregate(results, key=LEARNER_RESULTS)
        self.env_runner_group.sync_weights(
            from_worker_or_learner_group=self.learner_group, inference_only=True
        )

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # noqa: ANN401 - RLlib's
        """Return RLlib's state and the replay buffer."""
        return {**super().get_state(*args, **kwargs), "replay": self.replay.get_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a state of `get_state`."""
        super().set_state(state)
        if "replay" in state:
            self.replay.set_state(state["replay"])


class LeanDQNLearner(FlatOptimizer, DQNTorchLearner):
    """Huber or squared loss on one-step targets (Mnih et al. 2015)."""

    def build(self) -> None:
        """Build what RLlib builds, and list the layers for the functional forward."""
        super().build()
        self.net = cast(QNetwork, self.module[DEFAULT_MODULE_ID])
        self._layers = linear_layers(self.net.q_net)

    def update(
        self,
        *,
        training_data: TrainingData,
        timesteps: dict[str, Any],
        minibatch_size: int,
        new_steps: int,
        **_: object,
    ) -> dict[str, Any]:
        """Take a gradient step on each minibatch of the round's transitions."""
        self._weights_seq_no += 1
        (round_,) = cast(list[Transitions], training_data.episodes)
        self.net.rewards.calibrate(round_.rewards_BC)
        features_BF = self.net.features(torch.from_numpy(round_.obs_BI))
        seen_BF = features_BF[:, : self.net.actor_features]
        columns = (seen_BF, torch.from_numpy(round_.actions_BC), self.targets(round_))
        loss = torch.zeros(())
        for minibatch in zip(*(column.split(minibatch_size) for column in columns), strict=True):
            loss = self.loss(*minibatch)
            self.descend(loss)
        self.metrics.log_value((DEFAULT_MODULE_ID, QF_LOSS_KEY), loss.item(), window=1)
        self._update_target(int(timesteps[NUM_ENV_STEPS_SAMPLED_LIFETIME]), new_steps)
        # Past DQNLearner's own, whose memory of the last target update is in no checkpoint.
        super(DQNLearner, self).after_gradient_based_update(timesteps=timesteps)
        return self.metrics.reduce()

    def targets(self, transitions: Transitions) -> Tensor:
        """Return r + discount * max_a Q_target(o', a), r alone where the episode ended, (B, C)."""
        next_obs_BCI = torch.from_numpy(transitions.next_obs_BCI)
        with torch.no_grad():
            next_q_XA = self.net.forward_target({Columns.OBS: next_obs_BCI.flatten(0, 1)})[QF_PREDS]
        future_BC = next_q_XA.max(1).values.view(next_obs_BCI.shape[:2])
        goes_on_B1 = torch.from_numpy(~transitions.terminated_B)[:, None]
        rewards_BC = self.net.rewards(torch.from_numpy(transitions.rewards_BC))
        return rewards_BC + self.config.gamma * future_BC * goes_on_B1

    def loss(self, obs_BI: Tensor, actions_BC: Tensor, targets_BC: Tensor) -> Tensor:
        """Return the loss of the actions' values against the targets."""
        q_BA = mlp_output(self._layers, obs_BI, self.net.activation)
        return TD_LOSSES[self.config.td_error_loss_fn](q_BA.gather(1, actions_BC), targets_BC)

    def _update_target(self, now: int, new_steps: int) -> None:
        """Copy the network to the target whenever a multiple of its period was passed."""
        period = self.config.target_network_update_freq
        if now // period > (now - new_steps) // period:
            for main, target in self.net.get_target_network_pairs():
                update_target_network(main_net=main, target_net=target, tau=1.0)
