"""An RLlib learner with one flat loop over minibatches.

RLlib's own learner sends a batch through connectors, cuts minibatches with a cyclic iterator,
checks every gradient for NaN tensor by tensor and logs two dozen metrics per minibatch; on networks
of this size that is nine tenths of the time. This one computes advantages for the whole rollout
at once, shuffles it in each epoch and steps a fused optimiser; autograd does the rest. State,
checkpoints and schedules stay RLlib's.

Shape suffixes: T steps, N envs, B rows to learn from, I observation columns, F features,
A actions, C of them that a row is learned from.
"""

# RLlib types its configurations by their base class and most attributes as Optional until setup:
# pyright: reportAttributeAccessIssue=false, reportOptionalMemberAccess=false, reportArgumentType=false
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.learner import ENTROPY_KEY, POLICY_LOSS_KEY, VF_LOSS_KEY
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from torch import Tensor

from raysplit.base.arrays import Float32Array
from tuning.rllib.hindsight import Hindsight, standardised_over_actions
from tuning.rllib.module import ActorCritic, linear_layers, mlp_output
from tuning.rllib.optimizers import FlatOptimizer
from tuning.rllib.rollout import Rollout, advantages, standardised


@dataclass(frozen=True, slots=True)
class TrainBatch:
    """B valid rows to learn from, with C actions each: the sampled one, or all (hindsight).

    Attributes:
        features_BF: Inputs of the networks.
        actions_BC: The actions.
        log_probs_BC: Their log-probabilities under the policy that acted.
        shares_BC: What each counts in its row's objective: 1, or its probability then.
        advantages_BC: Their advantages.
        targets_B: What the critic learns.
    """

    features_BF: Tensor
    actions_BC: Tensor
    log_probs_BC: Tensor
    shares_BC: Tensor
    advantages_BC: Tensor
    targets_B: Tensor

    def shuffled(self, size: int, generator: torch.Generator) -> Iterator[TrainBatch]:
        """Yield all rows once, in random order, `size` at a time."""
        order_B = torch.randperm(len(self.actions_BC), generator=generator)
        columns = (getattr(self, field.name)[order_B].split(size) for field in fields(self))
        for parts in zip(*columns, strict=True):
            yield TrainBatch(*parts)


class LeanPPOLearner(FlatOptimizer, PPOTorchLearner):
    """PPO's clipped objective over shuffled minibatches; A2C changes two methods."""

    def build(self) -> None:
        """Build what RLlib builds, and list the layers for the functional forward."""
        super().build()
        self.net = cast(ActorCritic, self.module[DEFAULT_MODULE_ID])
        self._actor = linear_layers(self.net.actor)
        self._critic = linear_layers(self.net.critic)
        self._hindsight = Hindsight.of_config(self.config)
        self._entropy_coefficient = 0.0

    def update(
        self,
        *,
        training_data: TrainingData,
        timesteps: dict[str, Any] | None = None,
        num_epochs: int = 1,
        minibatch_size: int | None = None,
        **_: object,
    ) -> dict[str, Any]:
        """Run all epochs over the rollouts and return RLlib's reduced metrics."""
        self._weights_seq_no += 1
        rollouts = cast(list[Rollout], training_data.episodes)
        self._set_schedules((timesteps or {}).get(NUM_ENV_STEPS_SAMPLED_LIFETIME, 0), rollouts)
        batch = self.make_batch(rollouts)
        size = minibatch_size or len(batch.actions_BC)
        generator = self._generator()
        losses: dict[str, Tensor] = {}
        for _epoch in range(num_epochs):
            for minibatch in batch.shuffled(size, generator):
                losses = self.losses(minibatch)
                self.descend(losses[self.TOTAL_LOSS_KEY])
        last = {name: loss.item() for name, loss in losses.items()}
        self.metrics.log_dict(last, key=DEFAULT_MODULE_ID, window=1)
        return self.metrics.reduce()

    def _set_schedules(self, steps: int, rollouts: list[Rollout]) -> None:
        """Set learning rate and entropy coefficient to their values before these rollouts.

        RLlib does so after an update, in memory that no checkpoint holds: the first update after
        a restore would use the run's first values.
        """
        begun = steps - sum(rollout.steps for rollout in rollouts)
        self.after_gradient_based_update(timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: begun})
        schedule = self.entropy_coeff_schedulers_per_module[DEFAULT_MODULE_ID]
        self._entropy_coefficient = float(schedule.get_current_value())

    def _generator(self) -> torch.Generator:
        """Seed the shuffles by the run's seed and the number of updates: a restore repeats them."""
        seeds = np.random.SeedSequence([self.config.seed or 0, self._weights_seq_no])
        return torch.Generator().manual_seed(int(seeds.generate_state(1)[0]))

    def make_batch(self, rollouts: list[Rollout]) -> TrainBatch:
        """Return the valid rows of all rollouts with advantages and value targets."""
        self.net.rewards.calibrate(np.concatenate([r.rewards_TN[r.valid_TN] for r in rollouts]))
        parts = [self._valid_rows(rollout) for rollout in rollouts]
        obs, actions, log_probs, shares, raw_advantages, targets = (
            np.concatenate(column) for column in zip(*parts, strict=True)
        )
        prepared = self.prepare_advantages(raw_advantages)
        features_BF = self.net.features(torch.from_numpy(obs))
        return TrainBatch(
            features_BF, *map(torch.from_numpy, (actions, log_probs, shares, prepared, targets))
        )

    def _valid_rows(self, rollout: Rollout) -> tuple[Any, ...]:
        valid = rollout.valid_TN
        columns = self._sampled if self._hindsight is None else self._all_actions
        return rollout.obs_TNI[:-1][valid], *(column[valid] for column in columns(rollout))

    def _sampled(self, rollout: Rollout) -> tuple[Any, ...]:
        """Return the columns of a batch, with the actions that were taken."""
        steps, envs, columns = rollout.obs_TNI.shape
        obs = torch.tensor(rollout.obs_TNI).view(-1, columns)  # a remote rollout is read-only
        with torch.no_grad():
            values_TN = self.net.compute_values({Columns.OBS: obs}).numpy().reshape(steps, envs)
        scaled = replace(rollout, rewards_TN=self.net.rewards(rollout.rewards_TN))
        advantages_TN, targets_TN = advantages(
            scaled, values_TN, self.config.gamma, self.config.lambda_
        )
        log_probs_TN1 = rollout.log_probs_TN[..., None]
        return (
            rollout.actions_TN[..., None],
            log_probs_TN1,
            np.ones_like(log_probs_TN1),
            advantages_TN[..., None],
            targets_TN,
        )

    def _all_actions(self, rollout: Rollout) -> tuple[Any, ...]:
        """Return the columns of a batch, with all actions."""
        assert self._hindsight is not None
        rows = self._hindsight.rows(
            self.net, rollout.obs_TNI, rollout.terminated_TN, rollout.valid_TN
        )
        return (
            np.broadcast_to(np.arange(self.net.actions), rows.advantages_TNA.shape),
            rows.log_probs_TNA,
            np.exp(rows.log_probs_TNA),
            rows.advantages_TNA,
            rows.values_TN,
        )

    def prepare_advantages(self, advantages_BC: Float32Array) -> Float32Array:
        """Return the advantages the policy learns from, on one scale."""
        if self._hindsight is None:
            return standardised(advantages_BC)
        return standardised_over_actions(advantages_BC)

    def losses(self, batch: TrainBatch) -> dict[str, Tensor]:
        """Return the loss to minimise (`total_loss`) and its parts, each a scalar.

        The gradient of a policy objective is that of a weighted sum of log-probabilities, so only
        those and the weights are needed (Schulman et al. 2017, Eq. 9).
        """
        net, rows = self.net, len(batch.actions_BC)
        logits_BA = mlp_output(
            self._actor, batch.features_BF[:, : net.actor_features], net.activation
        )
        log_probs_BA = F.log_softmax(logits_BA, -1)
        log_probs_BC = log_probs_BA.gather(1, batch.actions_BC)
        weights_BC = batch.shares_BC * self.policy_weights(log_probs_BC.detach(), batch)
        total_loss = policy_loss = -(weights_BC * log_probs_BC).sum() / rows
        losses = {POLICY_LOSS_KEY: policy_loss}
        if self.config.vf_loss_coeff > 0:
            losses[VF_LOSS_KEY] = self._value_loss(batch)
            total_loss = total_loss + self.config.vf_loss_coeff * losses[VF_LOSS_KEY]
        if self._entropy_coefficient > 0:
            losses[ENTROPY_KEY] = -(log_probs_BA.exp() * log_probs_BA).sum() / rows
            total_loss = total_loss - self._entropy_coefficient * losses[ENTROPY_KEY]
        return {self.TOTAL_LOSS_KEY: total_loss, **losses}

    def _value_loss(self, batch: TrainBatch) -> Tensor:
        seen_BF = batch.features_BF[:, : self.net.critic_features]
        values_B1 = mlp_output(self._critic, seen_BF, self.net.activation)
        return F.mse_loss(values_B1.squeeze(1), batch.targets_B)

    def policy_weights(self, log_probs_BC: Tensor, batch: TrainBatch) -> Tensor:
        """Return ratio * advantage, and 0 where PPO's clip makes the objective flat.

        That is where the ratio has moved by more than the clip range in the direction that the
        advantage rewards (Schulman et al. 2017, Eq. 7).
        """
        ratio_BC = (log_probs_BC - batch.log_probs_BC).exp()
        moved_BC = (ratio_BC - 1) * batch.advantages_BC.sign()
        return ratio_BC * batch.advantages_BC * (moved_BC <= self.config.clip_param)
