"""Rewards on one scale, whatever the problem's own.

Networks, learning rates and gradient clipping are made for numbers near 1. A perplexity ratio
varies by a hundredth, a raw perplexity by hundreds, and both lie far from 0.
"""

from __future__ import annotations

from typing import TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from raysplit.base.arrays import Float32Array

_Rewards = TypeVar("_Rewards", Float32Array, Tensor)


class RewardScaling(nn.Module):
    """(reward - centre) / scale, with the mean and standard deviation of the first batch's rewards.

    Both stay fixed afterwards, so what was learned keeps its meaning. Episodes of this problem are
    all of one length: taking a constant off each reward changes every return alike.

    Attributes:
        centre: Taken off each reward; a scalar, and a buffer, so that checkpoints hold it.
        scale: What is left is divided by it; 0 until the first batch.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, *, enabled: bool) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(()))
        self.register_buffer("scale", torch.tensor(0.0 if enabled else 1.0))

    def calibrate(self, rewards_B: Float32Array) -> None:
        """Take the scale from a batch, if none was taken before."""
        if self.scale == 0:
            spread = float(rewards_B.std())
            self.centre.fill_(float(rewards_B.mean()))
            self.scale.fill_(spread if spread > 1e-8 else 1.0)

    def forward(self, rewards: _Rewards) -> _Rewards:
        """Return scaled rewards, of the kind and shape given."""
        if isinstance(rewards, Tensor):
            return (rewards - self.centre) / self.scale
        scaled = (rewards - self.centre.item()) / self.scale.item()
        return cast(_Rewards, scaled.astype(np.float32))
