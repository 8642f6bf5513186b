"""What has been drawn of the corpus for one setting, and what of it still has to be run.

Shape suffixes: B sequences of a batch, n sequences drawn.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from raysplit.base.arrays import BoolArray, FloatArray, IntArray
from raysplit.corpus.batches import Batch
from raysplit.measure.shards.packing import Piece
from raysplit.perplexity.estimate import CleanCorpus, Estimate, estimate


class Sample:
    """The sequences drawn so far, and the pieces of this round that still have to be run."""

    def __init__(self) -> None:
        self.recomputed = 0
        self._drawn: list[tuple[Batch, FloatArray, BoolArray]] = []
        self._waiting: list[tuple[Piece, FloatArray]] = []

    @property
    def waiting_tokens(self) -> int:
        """Tokens that still have to be run."""
        return sum(piece.tokens for piece, _ in self._waiting)

    def add(self, clean_nll_B: FloatArray, drawn_B: BoolArray, piece: Piece) -> None:
        """Take a batch's drawn rows with its clean NLL, and those of them that the link touched."""
        self._drawn.append((piece.batch, clean_nll_B, drawn_B))
        if len(piece.rows):
            self._waiting.append((piece, clean_nll_B))
            self.recomputed += len(piece.rows)

    def finish(self, run: Callable[[list[Piece]], list[FloatArray]]) -> None:
        """Replace the touched rows' NLL by what the suffix gives."""
        results = run([piece for piece, _ in self._waiting])
        for (piece, nll_B), nll in zip(self._waiting, results, strict=True):
            nll_B[piece.rows] = nll
        self._waiting.clear()

    def estimate(self, corpus: CleanCorpus) -> Estimate:
        """Estimate log PPL from what was drawn."""
        return estimate(self._nll_n(), self._indices_n(), corpus)

    def in_drawing_order(self) -> FloatArray:
        """Return the NLL of what was drawn, one sequence after the other."""
        return self._nll_n()[np.argsort(self._indices_n())]

    def _nll_n(self) -> FloatArray:
        return np.concatenate([nll_B[drawn_B] for _, nll_B, drawn_B in self._drawn])

    def _indices_n(self) -> IntArray:
        return np.concatenate([b.sequence_indices_B[drawn_B] for b, _, drawn_B in self._drawn])
