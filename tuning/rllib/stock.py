"""RLlib's own learners, mended where they differ from what this project promises.

`engine: stock` keeps RLlib's env runner, connectors and learner loop: to compare the lean pair
with, and to fall back on. A2C's stock learner stands in `a2c`.

Shape suffixes: B rows of a batch, I observation columns, A actions, X = B * A.
"""

# RLlib types its configurations by their base class and most attributes as Optional until setup:
# pyright: reportAttributeAccessIssue=false, reportOptionalMemberAccess=false, reportOptionalOperand=false
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.dqn.default_dqn_rl_module import QF_PREDS
from ray.rllib.algorithms.dqn.dqn_learner import QF_LOSS_KEY
from ray.rllib.algorithms.dqn.torch.dqn_torch_learner import DQNTorchLearner
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.connectors.learner.general_advantage_estimation import GeneralAdvantageEstimation
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.learner import ENTROPY_KEY, POLICY_LOSS_KEY, VF_LOSS_KEY
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.evaluation.postprocessing import Postprocessing
from torch import Tensor

from envs.hindsight import steps_of_all_actions
from tuning.rllib.dqn import TD_LOSSES
from tuning.rllib.hindsight import Hindsight, standardised_over_actions
from tuning.rllib.module import ActorCritic, QNetwork, SplitModule
from tuning.rllib.optimizers import OwnOptimizer

ALL_LOG_PROBS = "all_log_probs"


class StandardiseValidAdvantages(ConnectorV2):
    """Standardises advantages over the rows that are learned from.

    RLlib 2.60 standardises over the padding row it adds to each episode too (ray#57989): with
    5-step episodes the valid rows come out with mean -0.44 and standard deviation 0.11.
    """

    def __call__(self, *, batch: dict[str, Any], **_: object) -> dict[str, Any]:
        """Replace the advantages of each module's batch."""
        for columns in batch.values():
            valid = columns[Columns.LOSS_MASK].bool()
            advantages = columns[Postprocessing.ADVANTAGES]
            spread = advantages[valid].std(correction=0).clamp(min=1e-8)
            columns[Postprocessing.ADVANTAGES] = (advantages - advantages[valid].mean()) / spread
        return batch


class ScaleRewards(ConnectorV2):
    """Scales rewards as the module says (`tuning.rllib.reward_scaling`)."""

    def __call__(
        self, *, rl_module: RLModule, batch: dict[str, Any], **_: object
    ) -> dict[str, Any]:
        """Replace the rewards of each module's batch."""
        modules = cast(MultiRLModule, rl_module)
        for module_id, columns in batch.items():
            scaling = cast(SplitModule, modules[module_id].unwrapped()).rewards
            rewards_B = columns[Columns.REWARDS]
            mask_B = columns.get(Columns.LOSS_MASK)  # replayed transitions have no padding
            valid_B = rewards_B if mask_B is None else rewards_B[mask_B.bool()]
            scaling.calibrate(valid_B.numpy())
            columns[Columns.REWARDS] = scaling(rewards_B)
        return batch


class HindsightAdvantages(ConnectorV2):
    """Gives each row the advantages of all actions (`tuning.rllib.hindsight`)."""

    def __init__(self, hindsight: Hindsight, standardise: bool) -> None:
        super().__init__()
        self._hindsight, self._standardise = hindsight, standardise

    def __call__(
        self, *, rl_module: RLModule, batch: dict[str, Any], **_: object
    ) -> dict[str, Any]:
        """Add advantages and log-probabilities (B, A), and value targets, to each module's batch.

        The rows of the episodes follow each other, a padding row behind each: as in the rollout of
        a single env, whose rows of resets they stand for.
        """
        modules = cast(MultiRLModule, rl_module)
        for module_id, columns in batch.items():
            net = cast(ActorCritic, modules[module_id].unwrapped())
            valid_B = columns[Columns.LOSS_MASK].bool()
            obs_B1I = columns[Columns.OBS].numpy()[:, None]
            terminated_B1 = columns[Columns.TERMINATEDS].bool().numpy()[:-1, None]
            rows = self._hindsight.rows(net, obs_B1I, terminated_B1, valid_B.numpy()[:-1, None])
            advantages, log_probs, values = (
                # The last row is padding.
                torch.from_numpy(np.append(x[:, 0], np.zeros_like(x[:1, 0]), axis=0))
                for x in (rows.advantages_TNA, rows.log_probs_TNA, rows.values_TN)
            )
            if self._standardise:
                valid = advantages[valid_B].numpy()
                advantages[valid_B] = torch.from_numpy(standardised_over_actions(valid))
            columns[Postprocessing.ADVANTAGES] = advantages
            columns[ALL_LOG_PROBS] = log_probs
            columns[Postprocessing.VALUE_TARGETS] = values
        return batch


class StockActorCriticLearner(OwnOptimizer, PPOTorchLearner):
    """RLlib's PPO learner on scaled rewards, with hindsight where it is asked for."""

    def build(self) -> None:
        """Add the connectors before the one that computes advantages, or in its place."""
        super().build()
        self._learner_connector.insert_before(GeneralAdvantageEstimation, ScaleRewards())
        self.hindsight = Hindsight.of_config(self.config)
        if self.hindsight:
            self._learner_connector.remove(GeneralAdvantageEstimation)
            self._learner_connector.append(
                HindsightAdvantages(self.hindsight, self.standardises_advantages)
            )

    @property
    def standardises_advantages(self) -> bool:
        """Whether advantages are brought to one scale."""
        return True

    def action_objective(
        self, log_probs_BA: Tensor, acted_BA: Tensor, advantages_BA: Tensor
    ) -> Tensor:
        """Return each action's objective, given log-probabilities now and when it was chosen."""
        raise NotImplementedError

    def hindsight_loss(
        self, module_id: str, config: PPOConfig, batch: dict[str, Any], fwd_out: dict[str, Any]
    ) -> Tensor:
        """Return the loss over all actions of the rows that `loss_mask` marks."""
        mask = batch[Columns.LOSS_MASK].bool()
        log_probs_BA = fwd_out[Columns.ACTION_DIST_INPUTS][mask].log_softmax(-1)
        acted_BA = batch[ALL_LOG_PROBS][mask]
        objective_BA = self.action_objective(
            log_probs_BA, acted_BA, batch[Postprocessing.ADVANTAGES][mask]
        )
        policy_loss = -(acted_BA.exp() * objective_BA).sum(-1).mean()
        values = self.module[module_id].unwrapped().compute_values(batch)
        value_loss = (values - batch[Postprocessing.VALUE_TARGETS])[mask].square().mean()
        entropy = -(log_probs_BA.exp() * log_probs_BA).sum(-1).mean()
        parts = {POLICY_LOSS_KEY: policy_loss, VF_LOSS_KEY: value_loss, ENTROPY_KEY: entropy}
        self.metrics.log_dict(parts, key=module_id, window=1)
        weight = float(self.entropy_coeff_schedulers_per_module[module_id].get_current_value())
        return policy_loss + config.vf_loss_coeff * value_loss - weight * entropy


class StockPPOLearner(StockActorCriticLearner):
    """RLlib's PPO learner with correctly standardised advantages."""

    def build(self) -> None:
        """Add the connector behind the one that computes advantages."""
        super().build()
        if not self.hindsight:
            self._learner_connector.append(StandardiseValidAdvantages())

    def action_objective(
        self, log_probs_BA: Tensor, acted_BA: Tensor, advantages_BA: Tensor
    ) -> Tensor:
        """Return the clipped objective (Schulman et al. 2017, Eq. 7)."""
        clip, ratio_BA = self.config.clip_param, (log_probs_BA - acted_BA).exp()
        clipped_BA = ratio_BA.clamp(1 - clip, 1 + clip) * advantages_BA
        return torch.minimum(ratio_BA * advantages_BA, clipped_BA)

    def compute_loss_for_module(
        self, *, module_id: str, config: PPOConfig, batch: dict[str, Any], fwd_out: dict[str, Any]
    ) -> Tensor:
        """Return RLlib's loss, or the one over all actions."""
        if self.hindsight:
            return self.hindsight_loss(module_id, config, batch, fwd_out)
        return cast(
            Tensor,
            super().compute_loss_for_module(
                module_id=module_id, config=config, batch=batch, fwd_out=fwd_out
            ),
        )


class StockDQNLearner(OwnOptimizer, DQNTorchLearner):
    """RLlib's DQN learner."""

    def build(self) -> None:
        """Add the connector that scales rewards; hindsight has rewards of its own."""
        super().build()
        if not self.config.learner_config_dict["hindsight"]:
            self._learner_connector.append(ScaleRewards())

    def compute_loss_for_module(
        self, *, module_id: str, config: DQNConfig, batch: dict[str, Any], fwd_out: dict[str, Any]
    ) -> Tensor:
        """Return RLlib's loss, or the one over all actions."""
        if not config.learner_config_dict["hindsight"]:
            return cast(
                Tensor,
                super().compute_loss_for_module(
                    module_id=module_id, config=config, batch=batch, fwd_out=fwd_out
                ),
            )
        net = cast(QNetwork, self.module[module_id].unwrapped())
        targets_BA = self._targets_of_all_actions(net, config, batch)
        loss = TD_LOSSES[cast(str, config.td_error_loss_fn)](fwd_out[QF_PREDS], targets_BA)
        self.metrics.log_value((module_id, QF_LOSS_KEY), loss.detach(), window=1)
        return loss

    def _targets_of_all_actions(
        self, net: QNetwork, config: DQNConfig, batch: dict[str, Any]
    ) -> Tensor:
        params, source = config.env_config["params"], config.env_config["source"]
        obs_BI, next_obs_BI = batch[Columns.OBS].numpy(), batch[Columns.NEXT_OBS].numpy()
        arrivals_BAI, rewards_BA = steps_of_all_actions(params, source, obs_BI, next_obs_BI)
        net.rewards.calibrate(rewards_BA)
        with torch.no_grad():
            arrivals = {Columns.OBS: torch.from_numpy(arrivals_BAI).flatten(0, 1)}
            next_q_XA = net.forward_target(arrivals)[QF_PREDS]
        future_BA = next_q_XA.max(1).values.view(rewards_BA.shape)
        goes_on_B1 = 1 - batch[Columns.TERMINATEDS].float()[:, None]
        return (
            torch.from_numpy(net.rewards(rewards_BA)) + self.config.gamma * future_BA * goes_on_B1
        )
