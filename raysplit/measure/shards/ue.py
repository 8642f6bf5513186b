"""The UE's half: embedding and the first layers. Computes the clean hidden states to be sent.

Shape suffixes: B sequences, T positions, D hidden size.
"""

# torch and safetensors type their NumPy bridges in part only:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add

import torch
from torch import Tensor

from raysplit.corpus.batches import Batch, TokenCorpus
from raysplit.link.config import LinkConfig
from raysplit.link.signal import SignalSums, signal_sums
from raysplit.model.chain import ModelPart, load_part


class UEShard:
    """Layers [0, last_split_point) of a model, for one corpus and one kind of link."""

    def __init__(self, part: ModelPart, corpus: TokenCorpus, link: LinkConfig) -> None:
        """Load the embedding and the part's layers, and nothing else of the checkpoint."""
        self._corpus = corpus
        self._link = link
        self._chain = load_part(part)

    @torch.inference_mode()
    def clean_hidden(
        self, block: int, split_points: Sequence[int]
    ) -> tuple[list[list[Tensor]], list[SignalSums]]:
        """Return the hidden states after each split point's layers, computed in one pass.

        Returns:
            For each split point the block's batches, each (B, T, D); and the signal's sums.
        """
        batches = self._corpus.blocks[block]
        by_batch = [self._states(batch, split_points) for batch in batches]
        states = [[states[i] for states in by_batch] for i in range(len(split_points))]
        return states, [self._sums(batches, hidden) for hidden in states]

    def _sums(self, batches: Sequence[Batch], hidden: Sequence[Tensor]) -> SignalSums:
        parts = (
            signal_sums(h, torch.from_numpy(b.lengths_B).to(h.device), self._link)
            for b, h in zip(batches, hidden, strict=True)
        )
        return reduce(add, parts)

    def _states(self, batch: Batch, split_points: Sequence[int]) -> list[Tensor]:
        hidden_BTD = self._chain.embed(torch.from_numpy(batch.inputs_BT))
        return self._chain.run_keeping(hidden_BTD, torch.from_numpy(batch.lengths_B), split_points)
