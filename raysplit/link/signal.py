"""The transmitted signal's statistics over a corpus: what an SNR and a mean concealment refer to.

Shape suffixes: B sequences, T positions, D hidden size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from raysplit.link.channel import transmitted_positions
from raysplit.link.config import LinkConfig


@dataclass(frozen=True, slots=True, eq=False)
class SignalSums:
    """Sums over transmitted positions (neither padding nor exempt); parts of a corpus add up.

    Attributes:
        positions: Number of transmitted positions.
        square_sum: Sum of the squares of all their elements.
        sum_D: Sum of their hidden states, float64, on the CPU.
    """

    positions: int
    square_sum: float
    sum_D: Tensor

    def __add__(self, other: SignalSums) -> SignalSums:
        return SignalSums(
            self.positions + other.positions,
            self.square_sum + other.square_sum,
            self.sum_D + other.sum_D,
        )

    @property
    def rms(self) -> float:
        """Root mean square of an element: the `signal_rms` of `transmit`."""
        return math.sqrt(self.square_sum / max(1, self.positions * len(self.sum_D)))

    @property
    def mean_D(self) -> Tensor:
        """Mean hidden state: the `corpus_mean_D` of `transmit`, float32."""
        return (self.sum_D / max(1, self.positions)).float()


def signal_sums(hidden_BTD: Tensor, lengths_B: Tensor, config: LinkConfig) -> SignalSums:
    """Sum one batch of clean hidden states."""
    sent_BT = transmitted_positions(lengths_B, hidden_BTD.shape[1], config)
    sent_ND = hidden_BTD[sent_BT].double()
    return SignalSums(len(sent_ND), sent_ND.square().sum().item(), sent_ND.sum(dim=0).cpu())
