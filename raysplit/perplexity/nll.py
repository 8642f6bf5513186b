"""Negative log-likelihoods from hidden states, with logits only where a token is scored.

Shape suffixes: B sequences, T positions, D hidden size, V vocabulary, N scored positions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

# Positions whose logits exist at a time: on a CPU few enough to stay near its caches.
_CHUNK_CPU, _CHUNK_ELSEWHERE = 256, 1024
# Elements of the logits that the softmax takes at a time (in float32 with its result: 128 MB).
_SOFTMAX_ELEMENTS = 2**24


def nll_sums(
    hidden_BTD: Tensor,
    logits_of: Callable[[Tensor], Tensor],
    targets_BT: Tensor,
    scored_BT: Tensor,
    chunk: int | None = None,
) -> Tensor:
    """Return each sequence's summed negative log-likelihood in nats, (B,) float64.

    It is the sum of Eq. 6 before the mean and the exponential. A NaN or infinity in a sequence's
    logits shows in its own sum and in no other.

    Args:
        hidden_BTD: What the head takes: the last layer's normed hidden states.
        logits_of: The head: (N, D) -> (N, V).
        targets_BT: The token that each position predicts (already shifted).
        scored_BT: True where the target counts; other positions never reach the head.
        chunk: Positions whose logits exist at a time; None takes 256 on a CPU and 1,024 elsewhere.
    """
    if chunk is None:
        chunk = _CHUNK_CPU if hidden_BTD.device.type == "cpu" else _CHUNK_ELSEWHERE
    nll_BT = torch.zeros(targets_BT.shape, dtype=torch.float64, device=hidden_BTD.device)
    row_N, position_N = scored_BT.nonzero(as_tuple=True)
    for start in range(0, len(row_N), chunk):
        b, t = row_N[start : start + chunk], position_N[start : start + chunk]
        nll_BT[b, t] = _nll(logits_of(hidden_BTD[b, t]), targets_BT[b, t])
    return nll_BT.sum(dim=1)  # no scatter-add: its order, and so its last bit, varies on a GPU


def _nll(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """Return (N,) float64: the log-softmax in float32, a bounded number of rows at a time."""
    rows = max(1, _SOFTMAX_ELEMENTS // logits_NV.shape[1])
    parts = [
        functional.cross_entropy(
            logits_NV[start : start + rows].float(),
            targets_N[start : start + rows],
            reduction="none",
        )
        for start in range(0, len(targets_N), rows)
    ]
    return torch.cat(parts).double()
