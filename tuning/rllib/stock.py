"""RLlib's own learners, mended where they differ from what this project promises.

`engine: stock` keeps RLlib's env runner, connectors and learner loop: to compare the lean pair
with, and to fall back on. A2C's stock learner stands in `a2c`.
"""

# RLlib types its configurations by their base class and most attributes as Optional until setup:
# pyright: reportAttributeAccessIssue=false, reportOptionalMemberAccess=false

from __future__ import annotations

from typing import Any, cast

from ray.rllib.algorithms.dqn.torch.dqn_torch_learner import DQNTorchLearner
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.connectors.learner.general_advantage_estimation import GeneralAdvantageEstimation
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.evaluation.postprocessing import Postprocessing

from tuning.rllib.module import SplitModule
from tuning.rllib.optimizers import OwnOptimizer


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


class StockPPOLearner(OwnOptimizer, PPOTorchLearner):
    """RLlib's PPO learner with correctly standardised advantages."""

    def build(self) -> None:
        """Add the connectors before and behind the one that computes advantages."""
        super().build()
        self._learner_connector.insert_before(GeneralAdvantageEstimation, ScaleRewards())
        self._learner_connector.append(StandardiseValidAdvantages())


class StockDQNLearner(OwnOptimizer, DQNTorchLearner):
    """RLlib's DQN learner."""

    def build(self) -> None:
        """Add the connector that scales rewards."""
        super().build()
        self._learner_connector.append(ScaleRewards())
