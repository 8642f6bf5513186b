"""Advantage actor-critic, which RLlib's new API stack no longer has: PPO's stack, another loss.

A2C is PPO with a single epoch over the whole batch and nothing clipped (Huang et al. 2022).
"""

# RLlib types its configurations by their base class and most attributes as Optional until setup:
# pyright: reportAttributeAccessIssue=false, reportOptionalMemberAccess=false
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

from typing import Any

from ray.rllib.algorithms.ppo import PPO, PPOConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.learner import ENTROPY_KEY, POLICY_LOSS_KEY, VF_LOSS_KEY
from ray.rllib.evaluation.postprocessing import Postprocessing
from torch import Tensor

from raysplit.base.arrays import Float32Array
from tuning.rllib.learner import LeanPPOLearner, TrainBatch
from tuning.rllib.stock import StockActorCriticLearner


class A2CConfig(PPOConfig):
    """PPO's configuration with A2C's fixed points."""

    def __init__(self, algo_class: type[A2C] | None = None) -> None:
        super().__init__(algo_class=algo_class or A2C)
        self.num_epochs = 1
        self.minibatch_size = None
        self.use_kl_loss = False


class A2C(PPO):
    """PPO's training step serves A2C as it is."""

    @classmethod
    def get_default_config(cls) -> A2CConfig:
        """Return the default configuration."""
        return A2CConfig()


class LeanA2CLearner(LeanPPOLearner):
    """The lean learner with A2C's loss."""

    def prepare_advantages(self, advantages_BC: Float32Array) -> Float32Array:
        """Return the advantages, standardised or as they are."""
        if self.config.learner_config_dict["standardise_advantages"]:
            return super().prepare_advantages(advantages_BC)
        return advantages_BC

    def policy_weights(self, log_probs_BC: Tensor, batch: TrainBatch) -> Tensor:
        """Return the advantages: the plain policy gradient (Mnih et al. 2016, section 4)."""
        return batch.advantages_BC


class StockA2CLearner(StockActorCriticLearner):
    """RLlib's learner with A2C's loss.

    RLlib standardises the batch's advantages; value target minus value gives them back as they
    were, because the one step is taken before the critic moves.
    """

    @property
    def standardises_advantages(self) -> bool:
        """Whether advantages are brought to one scale."""
        return self.config.learner_config_dict["standardise_advantages"]

    def action_objective(
        self, log_probs_BA: Tensor, acted_BA: Tensor, advantages_BA: Tensor
    ) -> Tensor:
        """Return the plain policy gradient's objective (Mnih et al. 2016, section 4)."""
        return log_probs_BA * advantages_BA

    def compute_loss_for_module(
        self, *, module_id: str, config: PPOConfig, batch: dict[str, Any], fwd_out: dict[str, Any]
    ) -> Tensor:
        """Return the loss over the rows that `loss_mask` marks, all others being padding."""
        if self.hindsight:
            return self.hindsight_loss(module_id, config, batch, fwd_out)
        mask = batch[Columns.LOSS_MASK].bool()
        module = self.module[module_id].unwrapped()
        logits_BA = fwd_out[Columns.ACTION_DIST_INPUTS][mask]
        policy = module.get_train_action_dist_cls().from_logits(logits_BA)
        errors_B = (batch[Postprocessing.VALUE_TARGETS] - module.compute_values(batch))[mask]
        advantages_B = errors_B.detach()
        if self.standardises_advantages:
            spread = advantages_B.std(correction=0).clamp(min=1e-8)
            advantages_B = (advantages_B - advantages_B.mean()) / spread
        policy_loss = -(policy.logp(batch[Columns.ACTIONS][mask]) * advantages_B).mean()
        value_loss = errors_B.square().mean()
        entropy = policy.entropy().mean()
        parts = {POLICY_LOSS_KEY: policy_loss, VF_LOSS_KEY: value_loss, ENTROPY_KEY: entropy}
        self.metrics.log_dict(parts, key=module_id, window=1)
        weight = float(self.entropy_coeff_schedulers_per_module[module_id].get_current_value())
        return policy_loss + config.vf_loss_coeff * value_loss - weight * entropy
