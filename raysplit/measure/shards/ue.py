"""The UE's half: embedding and the first layers. Computes the clean hidden states to be sent.

Shape suffixes: B sequences, T positions, D hidden size, R real positions of a batch.
"""

# torch and safetensors type their NumPy bridges in part only:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add

import torch
from torch import Tensor

from raysplit.base.halving import in_halves
from raysplit.corpus.batches import Batch, TokenCorpus
from raysplit.link.config import LinkConfig
from raysplit.link.signal import SignalSums, signal_sums
from raysplit.measure.shards.hidden import without_padding
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

        Where the memory does not suffice for a batch, its halves run one after the other.

        Args:
            block: Its number.
            keep: Split points whose hidden states are wanted.
            sums_at: Split points whose signal's sums are wanted.

        Returns:
            For each split point of `keep` the block's batches, each (R, D) without the padding, in
            the model's number format and main memory; and for each of `sums_at` the sums.
        """
        parts = [
            in_halves(
                lambda rows, batch=batch: self._run(batch, rows, keep, sums_at),
                slice(0, len(batch.lengths_B)),
                _joined,
            )
            for batch in self._corpus.blocks[block]
        ]
        kept = [[states_P[i] for states_P, _ in parts] for i in range(len(keep))]
        sums = [reduce(add, [sums_P[i] for _, sums_P in parts]) for i in range(len(sums_at))]
        return kept, sums

    def _run(
        self, batch: Batch, rows: slice, keep: Sequence[int], sums_at: Sequence[int]
    ) -> tuple[list[Tensor], list[SignalSums]]:
        """Run some rows of a batch, padded as the whole batch is."""
        wanted = sorted({*keep, *sums_at})
        lengths_B = torch.from_numpy(batch.lengths_B[rows])
        hidden_BTD = self._chain.embed(torch.from_numpy(batch.inputs_BT[rows]))
        states = dict(
            zip(wanted, self._chain.run_keeping(hidden_BTD, lengths_B, wanted), strict=True)
        )
        sums = [signal_sums(states[p], lengths_B.to(states[p].device), self._link) for p in sums_at]
        return [without_padding(states[p], lengths_B).cpu() for p in keep], sums


def _joined(
    one: tuple[list[Tensor], list[SignalSums]], other: tuple[list[Tensor], list[SignalSums]]
) -> tuple[list[Tensor], list[SignalSums]]:
    """Put what two halves of a batch gave together."""
    states = [torch.cat(pair) for pair in zip(one[0], other[0], strict=True)]
    return states, [a + b for a, b in zip(one[1], other[1], strict=True)]
