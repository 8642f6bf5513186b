"""The optimisers of both engines, built from an RLlib configuration's `learner_config_dict`.

RLlib's learners build Adam with torch's own epsilon and no other optimiser.
"""

# RLlib types its configurations by their base class and most attributes as Optional until setup:
# pyright: reportAttributeAccessIssue=false, reportOptionalMemberAccess=false, reportOptionalOperand=false

from __future__ import annotations

from typing import Any, cast

import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters


def make_optimizer(params: list[nn.Parameter], settings: dict[str, Any]) -> torch.optim.Optimizer:
    """Return Adam (`adam_epsilon`) or RMSprop (`rmsprop_epsilon`, `rmsprop_smoothing`)."""
    if "adam_epsilon" in settings:
        return torch.optim.Adam(params, eps=settings["adam_epsilon"], fused=True)
    return torch.optim.RMSprop(
        params, alpha=settings["rmsprop_smoothing"], eps=settings["rmsprop_epsilon"]
    )


class OwnOptimizer(TorchLearner):
    """A learner whose optimiser is `make_optimizer`'s; its schedule and state stay RLlib's."""

    def configure_optimizers_for_module(
        self, module_id: str, config: AlgorithmConfig | None = None
    ) -> None:
        """Register the optimiser of one module."""
        params = self.optimised(list(cast(nn.Module, self.module[module_id]).parameters()))
        self.register_optimizer(
            module_id=module_id,
            optimizer=make_optimizer(params, self.config.learner_config_dict),
            params=params,
            lr_or_lr_schedule=self.config.lr,
        )

    def optimised(self, params: list[nn.Parameter]) -> list[nn.Parameter]:
        """Return what the optimiser steps."""
        return params


class FlatOptimizer(OwnOptimizer):
    """Keeps all parameters of the one module in one vector, so that a step is a handful of calls.

    The module's own parameters become views into the vector: stepping it steps them, and loading
    a state into them loads it into the vector.
    """

    def optimised(self, params: list[nn.Parameter]) -> list[nn.Parameter]:
        """Return the vector."""
        self._views = params
        self._vector = nn.Parameter(parameters_to_vector(params).detach())
        vector_to_parameters(self._vector.data, params)
        return [self._vector]

    def descend(self, loss: Tensor) -> None:
        """Take one step down the loss, its gradient clipped to the configured global norm."""
        # A critic that nothing is learned from has gradient 0.
        gradients = torch.autograd.grad(loss, self._views, materialize_grads=True)
        gradient = torch.cat([part.flatten() for part in gradients])
        gradient *= (self.config.grad_clip / (gradient.norm() + 1e-6)).clamp(max=1)
        self._vector.grad = gradient
        for optimizer in self._named_optimizers.values():
            optimizer.step()
