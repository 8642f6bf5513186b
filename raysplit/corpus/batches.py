"""Scored token sequences in the order in which they are drawn, cut into blocks and batches.

A block is a simple random part of the corpus (the sequences come shuffled); an estimate grows block
by block. Within a block, sequences of similar length share a batch, so little is padded. Batches do
not depend on the device: the link draws its randomness once per (setting, batch).

Shape suffixes: B sequences of a batch, T positions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from raysplit.base.arrays import BoolArray, IntArray
from raysplit.corpus.sequences import TokenSequence
from raysplit.corpus.use import SentenceUse

BLOCK_SEQUENCES = 64
BATCH_SEQUENCES = 16


@dataclass(frozen=True, slots=True)
class Batch:
    """Right-padded model inputs and what each position has to predict.

    Attributes:
        index: Number of the batch within the corpus; seeds the link.
        sequence_indices_B: Positions of the rows in the corpus' drawing order.
        inputs_BT: Token ids fed to the model (a sequence without its last token), padded with 0.
        targets_BT: The token that follows each input.
        scored_BT: True where the target counts towards the perplexity.
        lengths_B: Real inputs per row.
    """

    index: int
    sequence_indices_B: IntArray
    inputs_BT: IntArray
    targets_BT: IntArray
    scored_BT: BoolArray
    lengths_B: IntArray


@dataclass(frozen=True)
class TokenCorpus:
    """A tokenised corpus under one perplexity protocol.

    Attributes:
        sequences: In the order in which they are drawn.
        use: What of the text they are, where it was cut into sentences.
    """

    sequences: tuple[TokenSequence, ...]
    use: SentenceUse | None = None

    @cached_property
    def tokens_N(self) -> IntArray:
        """Scored tokens of every sequence, shape (N,)."""
        return np.array([len(s.token_ids) - s.first_scored for s in self.sequences], dtype=np.int64)

    @cached_property
    def inputs_N(self) -> IntArray:
        """Tokens that the model is fed for every sequence, scored or not, shape (N,)."""
        return np.array([len(s.token_ids) - 1 for s in self.sequences], dtype=np.int64)

    @cached_property
    def blocks(self) -> tuple[tuple[Batch, ...], ...]:
        """The corpus in drawing order: blocks of `BLOCK_SEQUENCES`, each a tuple of batches."""
        blocks: list[tuple[Batch, ...]] = []
        batches = 0
        for start in range(0, len(self.sequences), BLOCK_SEQUENCES):
            indices = range(start, min(start + BLOCK_SEQUENCES, len(self.sequences)))
            by_length = sorted(indices, key=lambda i: len(self.sequences[i].token_ids))
            parts = [
                by_length[i : i + BATCH_SEQUENCES]
                for i in range(0, len(by_length), BATCH_SEQUENCES)
            ]
            blocks.append(tuple(self._batch(batches + i, part) for i, part in enumerate(parts)))
            batches += len(parts)
        return tuple(blocks)

    @cached_property
    def sha256(self) -> str:
        """Hash of the token ids, their order and what is scored: equal for equal corpora only."""
        digest = hashlib.sha256()
        for sequence in self.sequences:
            digest.update(f"{sequence.first_scored}:{sequence.token_ids};".encode())
        return digest.hexdigest()

    def _batch(self, index: int, members: Sequence[int]) -> Batch:
        rows = [self.sequences[i] for i in members]
        lengths_B = np.array([len(row.token_ids) - 1 for row in rows], dtype=np.int64)
        shape = (len(rows), int(lengths_B.max()))
        inputs_BT = np.zeros(shape, dtype=np.int64)
        targets_BT = np.zeros(shape, dtype=np.int64)
        scored_BT = np.zeros(shape, dtype=np.bool_)
        for b, row in enumerate(rows):
            length = lengths_B[b]
            inputs_BT[b, :length] = row.token_ids[:-1]
            targets_BT[b, :length] = row.token_ids[1:]
            scored_BT[b, row.first_scored - 1 : length] = True
        return Batch(
            index, np.array(members, dtype=np.int64), inputs_BT, targets_BT, scored_BT, lengths_B
        )
