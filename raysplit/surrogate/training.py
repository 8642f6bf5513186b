"""Train all members of the ensemble at once, as one batch of networks in torch.

Shape suffixes: N rows, B rows of one step, M members, I inputs, H hidden, P split points.
"""

# torch leaves some of its arguments without a type:
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import silu

from raysplit.base.arrays import BoolArray, Float32Array, IntArray
from raysplit.base.threads import one_thread
from raysplit.surrogate.config import SurrogateConfig

_WARMUP_STEPS = 50
_STEPS_BETWEEN_CHECKS = 25


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingRows:
    """What the members learn from.

    Attributes:
        inputs_NI: Scaled inputs, float32.
        split_indices_N: Index of the split point, from 0, int64.
        split_points: How many split points there are (P).
        targets_N: Standardised targets, float32.
        weights_N: Weight of each row, mean 1, float32.
        held_out_MN: The rows that each member never learns from and is judged on.
    """

    inputs_NI: Float32Array
    split_indices_N: IntArray
    split_points: int
    targets_N: Float32Array
    weights_N: Float32Array
    held_out_MN: BoolArray


class _Members:
    """The parameters of all members and their forward pass (the torch twin of `Surrogate`)."""

    def __init__(
        self, rows: TrainingRows, config: SurrogateConfig, generator: torch.Generator
    ) -> None:
        members, hidden = len(rows.held_out_MN), config.hidden
        inputs = rows.inputs_NI.shape[1]

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator) / math.sqrt(shape[-2])

        self.matrices = {
            "first_MIH": normal(members, inputs, hidden),
            "second_MHH": normal(members, hidden, hidden),
            "last_MH1": normal(members, hidden, 1),
        }
        self.biases = {
            "first_bias_M1H": torch.rand(members, 1, hidden, generator=generator) * 2 - 1,
            "second_bias_M1H": torch.zeros(members, 1, hidden),
            "last_bias_M11": torch.zeros(members, 1, 1),
        }
        self.departures = {"departure_MPH": torch.zeros(members, rows.split_points, hidden)}
        for parameter in self.parameters().values():
            parameter.requires_grad_()

    def parameters(self) -> dict[str, Tensor]:
        return self.matrices | self.biases | self.departures

    def forward(self, inputs_BI: Tensor, split_indices_B: Tensor) -> Tensor:
        hidden_MBH = inputs_BI @ self.matrices["first_MIH"] + self.biases["first_bias_M1H"]
        hidden_MBH = silu(hidden_MBH + self.departures["departure_MPH"][:, split_indices_B])
        hidden_MBH = hidden_MBH @ self.matrices["second_MHH"] + self.biases["second_bias_M1H"]
        outputs_MB1 = silu(hidden_MBH) @ self.matrices["last_MH1"] + self.biases["last_bias_M11"]
        return outputs_MB1[..., 0]


class _Best:
    """Each member's parameters at the step where its held-out error was smallest."""

    def __init__(self, members: _Members, count: int) -> None:
        self.error_M = torch.full((count,), math.inf)
        self.parameters = {k: v.detach().clone() for k, v in members.parameters().items()}

    def update(self, members: _Members, error_M: Tensor) -> None:
        better_M = error_M < self.error_M
        self.error_M = torch.where(better_M, error_M, self.error_M)
        for name, parameter in members.parameters().items():
            self.parameters[name][better_M] = parameter.detach()[better_M]


def train_members(
    rows: TrainingRows, config: SurrogateConfig, seed: int
) -> dict[str, Float32Array]:
    """Train all members and return all parameters by name, each with the members first.

    AdamW on random batches (on all rows where they fit in one), the learning rate warmed up and
    then falling to zero; of each member the parameters with the smallest held-out error are kept.
    """
    with one_thread():
        best = _train(rows, config, seed)
    return {name: parameter.numpy() for name, parameter in best.parameters.items()}


def _train(rows: TrainingRows, config: SurrogateConfig, seed: int) -> _Best:
    generator = torch.Generator().manual_seed(seed)
    members = _Members(rows, config, generator)
    inputs_NI, targets_N = torch.from_numpy(rows.inputs_NI), torch.from_numpy(rows.targets_N)
    split_indices_N, weights_N = (
        torch.from_numpy(rows.split_indices_N),
        torch.from_numpy(rows.weights_N),
    )
    held_out_MN = torch.from_numpy(rows.held_out_MN)
    learning_weights_MN = weights_N * ~held_out_MN
    held_out_weights_MN = weights_N * held_out_MN
    optimizer = _optimizer(members, config)
    best = _Best(members, len(held_out_MN))

    for step in range(config.steps):
        if len(targets_N) > config.batch:
            chosen_B = torch.randint(len(targets_N), (config.batch,), generator=generator)
        else:
            chosen_B = torch.arange(len(targets_N))
        outputs_MB = members.forward(inputs_NI[chosen_B], split_indices_N[chosen_B])
        errors_MB = (outputs_MB - targets_N[chosen_B]).square() * learning_weights_MN[:, chosen_B]
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * _rate(step, config.steps)
        optimizer.zero_grad(set_to_none=True)
        # A mean over rows and a sum over members: members do not share a gradient.
        errors_MB.mean(dim=1).sum().backward()
        optimizer.step()
        if (step + 1) % _STEPS_BETWEEN_CHECKS == 0 or step + 1 == config.steps:
            with torch.no_grad():
                errors_MN = (members.forward(inputs_NI, split_indices_N) - targets_N).square()
            best.update(members, (errors_MN * held_out_weights_MN).sum(dim=1))
    return best


def _optimizer(members: _Members, config: SurrogateConfig) -> torch.optim.AdamW:
    return torch.optim.AdamW(
        [
            {"params": list(members.matrices.values()), "weight_decay": config.weight_decay},
            {"params": list(members.departures.values()), "weight_decay": config.departure_decay},
            {"params": list(members.biases.values()), "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
        betas=(0.9, 0.99),
        fused=True,
    )


def _rate(step: int, steps: int) -> float:
    warmup = min(1.0, (step + 1) / _WARMUP_STEPS)
    return warmup * 0.5 * (1 + math.cos(math.pi * step / steps))
