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
        self, block: int, keep: Sequence[int], sums_at: Sequence[int] = ()
    ) -> tuple[list[list[Tensor]], list[SignalSums]]:
        """Run a block through the first layers, once for all split points.

        Args:
            block: Its number.
            keep: Split points whose hidden states are wanted.
            sums_at: Split points whose signal's sums are wanted.

        Returns:
            For each split point of `keep` the block's batches, each (B, T, D), in the model's
            number format and main memory; and for each of `sums_at` the sums.
        """
        kept: list[list[Tensor]] = [[] for _ in keep]
        parts: list[list[SignalSums]] = [[] for _ in sums_at]
        wanted = sorted({*keep, *sums_at})
        for batch in self._corpus.blocks[block]:
            states = dict(zip(wanted, self._states(batch, wanted), strict=True))
            for p, of_split_point in zip(keep, kept, strict=True):
                of_split_point.append(states[p].cpu())
            for p, of_split_point in zip(sums_at, parts, strict=True):
                of_split_point.append(self._sums(batch, states[p]))
        return kept, [reduce(add, of_split_point) for of_split_point in parts]

    def _sums(self, batch: Batch, hidden_BTD: Tensor) -> SignalSums:
        lengths_B = torch.from_numpy(batch.lengths_B).to(hidden_BTD.device)
        return signal_sums(hidden_BTD, lengths_B, self._link)

    def _states(self, batch: Batch, split_points: Sequence[int]) -> list[Tensor]:
        hidden_BTD = self._chain.embed(torch.from_numpy(batch.inputs_BT))
        return self._chain.run_keeping(hidden_BTD, torch.from_numpy(batch.lengths_B), split_points)
