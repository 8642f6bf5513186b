"""Which rows run through the suffix together.

Shape suffixes: B rows of a pass, T positions, D hidden size, N rows of all pieces, M positions of
all of them.
"""

# torch types its NumPy bridges in part only:
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from raysplit.base.arrays import BoolArray, IntArray
from raysplit.corpus.batches import Batch


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Rows of one batch, on their way through the suffix.

    Attributes:
        batch: The batch.
        rows: Which of its rows.
        hidden_BTD: Their hidden states, right-padded.
    """

    batch: Batch
    rows: IntArray
    hidden_BTD: Tensor

    @property
    def tokens(self) -> int:
        """Real positions."""
        return int(self.batch.lengths_B[self.rows].sum())


@dataclass(frozen=True, slots=True, eq=False)
class Pass:
    """Rows that run as one batch.

    Attributes:
        rows_B: Which of all pieces' rows, in the pieces' order.
        hidden_BTD: Their hidden states.
        targets_BT: The token that each position predicts.
        scored_BT: Where the target counts.
        lengths_B: Real positions of each row.
    """

    rows_B: IntArray
    hidden_BTD: Tensor
    targets_BT: IntArray
    scored_BT: BoolArray
    lengths_B: IntArray

    def part(self, rows: slice) -> Pass:
        """Return some of the rows."""
        return Pass(
            self.rows_B[rows],
            self.hidden_BTD[rows],
            self.targets_BT[rows],
            self.scored_BT[rows],
            self.lengths_B[rows],
        )


def as_they_are(pieces: Sequence[Piece]) -> Iterator[Pass]:
    """Let every piece run on its own."""
    done = 0
    for piece in pieces:
        batch, rows = piece.batch, piece.rows
        yield Pass(
            np.arange(done, done + len(rows)),
            piece.hidden_BTD,
            batch.targets_BT[rows],
            batch.scored_BT[rows],
            batch.lengths_B[rows],
        )
        done += len(rows)


def packed(pieces: Sequence[Piece], tokens_per_pass: Callable[[], int]) -> Iterator[Pass]:
    """Let rows of similar length run together, wherever they come from, so that little is padded.

    Args:
        pieces: At least one.
        tokens_per_pass: The most positions of a pass, padding included; asked before each.
    """
    flat_MD = torch.cat([piece.hidden_BTD.flatten(0, 1) for piece in pieces])
    targets_M = np.concatenate([p.batch.targets_BT[p.rows].ravel() for p in pieces])
    scored_M = np.concatenate([p.batch.scored_BT[p.rows].ravel() for p in pieces])
    lengths_N = np.concatenate([piece.batch.lengths_B[piece.rows] for piece in pieces])
    widths_N = np.repeat([p.hidden_BTD.shape[1] for p in pieces], [len(p.rows) for p in pieces])
    starts_N = np.cumsum(widths_N) - widths_N
    order_N = np.argsort(lengths_N, kind="stable")
    while len(order_N):
        rows_B = order_N[: _rows_that_fit(lengths_N[order_N], tokens_per_pass())]
        order_N = order_N[len(rows_B) :]
        lengths_B1 = lengths_N[rows_B, None]
        position_T = np.arange(int(lengths_B1.max()))
        # Padding repeats the last position: under causal attention no real one sees it.
        index_BT = starts_N[rows_B, None] + np.minimum(position_T, lengths_B1 - 1)
        yield Pass(
            rows_B,
            flat_MD[torch.from_numpy(index_BT).to(flat_MD.device)],
            targets_M[index_BT],
            scored_M[index_BT] & (position_T < lengths_B1),
            lengths_N[rows_B],
        )


def _rows_that_fit(ascending_lengths_n: IntArray, tokens: int) -> int:
    """Return how many of the first rows make a pass, each padded to the longest: at least one."""
    padded_n = np.arange(1, len(ascending_lengths_n) + 1) * ascending_lengths_n
    return max(1, int(np.searchsorted(padded_n, tokens, side="right")))
