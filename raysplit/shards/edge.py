"""The edge's half: the link, the remaining layers, the norm and the head. Measures settings.

Shape suffixes: B sequences of a pass, T positions, D hidden size.
"""

# torch and safetensors type their NumPy bridges in part only:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raysplit.corpus.batches import Batch, TokenCorpus
from raysplit.ledger import Row
from raysplit.link.channel import batch_generator, transmit
from raysplit.link.config import LinkConfig
from raysplit.measure.setting import Setting
from raysplit.perplexity.estimate import (
    CleanCorpus,
    Estimate,
    InvalidNLLError,
    estimate,
    should_stop,
)
from raysplit.perplexity.nll import nll_sums
from raysplit.shards.model import ModelPart, load_part
from raysplit.shards.passes import tuned_tokens_per_pass
from raysplit.shards.reference import CleanReference

_FIRST_BLOCKS = 3

HiddenOf = Callable[[int], Sequence[Tensor]]
"""Block number -> its batches' clean hidden states at one split point, each (B, T, D)."""


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    """Rows of one batch, on their way through the suffix."""

    batch: Batch
    rows: NDArray[np.int64]  # which rows of the batch
    hidden_BTD: Tensor

    @property
    def tokens(self) -> int:
        return self.hidden_BTD.shape[0] * self.hidden_BTD.shape[1]

    def halves(self) -> tuple[_Piece, _Piece]:
        middle = len(self.rows) // 2
        return (
            _Piece(self.batch, self.rows[:middle], self.hidden_BTD[:middle]),
            _Piece(self.batch, self.rows[middle:], self.hidden_BTD[middle:]),
        )


class _Sample:
    """The sequences drawn so far, and the pieces of this round that still have to be run."""

    def __init__(self) -> None:
        self.recomputed = 0
        self._nll: list[NDArray[np.float64]] = []
        self._indices: list[NDArray[np.int64]] = []
        self._waiting: list[tuple[_Piece, NDArray[np.float64]]] = []

    @property
    def waiting_tokens(self) -> int:
        """Tokens that still have to be run."""
        return sum(piece.tokens for piece, _ in self._waiting)

    def add(self, clean_nll_B: NDArray[np.float64], piece: _Piece) -> None:
        """Take a batch with its clean NLL and those of its rows that the link touched."""
        self._nll.append(clean_nll_B)
        self._indices.append(piece.batch.sequence_indices_B)
        if len(piece.rows):
            self._waiting.append((piece, clean_nll_B))
            self.recomputed += len(piece.rows)

    def finish(self, run: Callable[[list[_Piece]], list[NDArray[np.float64]]]) -> None:
        """Replace the touched rows' NLL by what the suffix gives."""
        results = run([piece for piece, _ in self._waiting])
        for (piece, nll_B), nll in zip(self._waiting, results, strict=True):
            nll_B[piece.rows] = nll
        self._waiting.clear()

    def estimate(self, corpus: CleanCorpus) -> Estimate:
        """Estimate log PPL from what was drawn."""
        return estimate(np.concatenate(self._nll), np.concatenate(self._indices), corpus)


class EdgeShard:
    """Layers [first_split_point, depth), norm and head, for one corpus and one kind of link."""

    def __init__(
        self, part: ModelPart, corpus: TokenCorpus, link: LinkConfig, target_stderr: float
    ) -> None:
        """Load the part's layers, norm and head, and nothing else of the checkpoint."""
        self._corpus = corpus
        self._link = link
        self._target_stderr = target_stderr
        self._chain = load_part(part)
        # On a CPU every batch runs on its own: larger ones only leave its caches.
        on_cpu = self._chain.device.type == "cpu"
        self.tokens_per_pass = 0 if on_cpu else tuned_tokens_per_pass(self._chain, part.start)
        self._note: str | None = None

    @torch.inference_mode()
    def clean_nll(
        self, block: int, split_point: int, hidden: Sequence[Tensor]
    ) -> NDArray[np.float64]:
        """Return the clean NLL (nats) of a block's sequences, in drawing order."""
        batches = self._corpus.blocks[block]
        pieces = [
            _Piece(batch, np.arange(len(batch.lengths_B)), state.to(self._chain.device))
            for batch, state in zip(batches, hidden, strict=True)
        ]
        order = np.concatenate([batch.sequence_indices_B for batch in batches])
        nll = np.empty(len(order))
        nll[order - order.min()] = np.concatenate(self._suffix(pieces, split_point))
        return nll

    @torch.inference_mode()
    def measure(self, setting: Setting, hidden_of: HiddenOf, reference: CleanReference) -> Row:
        """Measure one setting to the target standard error, a round of blocks at a time.

        A NaN or inf makes the row `invalid`, with its reason; it is never averaged.
        """
        start = time.perf_counter()
        self._note = None
        sample = _Sample()
        try:
            result = self._grow(sample, setting, hidden_of, reference)
        except InvalidNLLError as error:
            return Row(setting=setting, status="invalid", reason=str(error))
        return Row(
            setting=setting,
            status="done",
            log_ppl=result.log_ppl,
            stderr=result.stderr,
            sequences=result.sequences,
            tokens=result.tokens,
            recomputed=sample.recomputed,
            seconds=time.perf_counter() - start,
            reason=self._note,
        )

    def _grow(
        self, sample: _Sample, setting: Setting, hidden_of: HiddenOf, reference: CleanReference
    ) -> Estimate:
        blocks = len(self._corpus.blocks)
        done = 0
        while True:
            look = int(min(_next_look(done, self._target_stderr), blocks))
            for block in range(done, look):
                self._send_block(sample, setting, block, hidden_of(block), reference)
                if sample.waiting_tokens >= self.tokens_per_pass:
                    sample.finish(lambda pieces: self._suffix(pieces, setting.split_point))
            sample.finish(lambda pieces: self._suffix(pieces, setting.split_point))
            done = look
            result = sample.estimate(reference.corpus)
            if done == blocks or should_stop(result, self._target_stderr):
                return result

    def _send_block(
        self,
        sample: _Sample,
        setting: Setting,
        block: int,
        hidden: Sequence[Tensor],
        reference: CleanReference,
    ) -> None:
        """Send a block's batches across the link.

        A sequence that the link left untouched keeps its clean NLL without any work.
        """
        for batch, state in zip(self._corpus.blocks[block], hidden, strict=True):
            clean_nll_B = reference.corpus.nll_N[batch.sequence_indices_B]
            sample.add(clean_nll_B, self._send(setting, batch, state, reference))

    def _send(
        self, setting: Setting, batch: Batch, hidden_BTD: Tensor, reference: CleanReference
    ) -> _Piece:
        device = self._chain.device
        received = transmit(
            hidden_BTD.to(device),
            torch.from_numpy(batch.lengths_B).to(device),
            setting.link,
            self._link,
            batch_generator(setting.seed, batch.index, device),
            signal_rms=reference.rms(setting.split_point),
            corpus_mean_D=reference.mean_D(setting.split_point).to(device),
        )
        rows = np.flatnonzero(received.touched_B.cpu().numpy())
        if len(rows) == len(batch.lengths_B):
            return _Piece(batch, rows, received.hidden_BTD)
        return _Piece(batch, rows, received.hidden_BTD[torch.from_numpy(rows).to(device)])

    def _suffix(self, pieces: Sequence[_Piece], split_point: int) -> list[NDArray[np.float64]]:
        """Run the layers from the split point and return each piece's NLL sums."""
        return [nll for group in self._passes(pieces) for nll in self._pass(group, split_point)]

    def _passes(self, pieces: Sequence[_Piece]) -> Iterable[list[_Piece]]:
        """Group pieces that run as one batch: up to `tokens_per_pass` tokens."""
        group: list[_Piece] = []
        for piece in pieces:
            if group and sum(p.tokens for p in group) + piece.tokens > self.tokens_per_pass:
                yield group
                group = []
            group.append(piece)
        if group:
            yield group

    def _pass(self, group: list[_Piece], split_point: int) -> list[NDArray[np.float64]]:
        """Run one group; where the memory does not suffice, in halves from then on."""
        try:
            return self._one_pass(group, split_point)
        except torch.OutOfMemoryError:
            rows = sum(len(piece.rows) for piece in group)
            if rows == 1:
                raise
        self.tokens_per_pass //= 2
        self._note = f"out of memory with {rows} sequences: run in halves"
        if len(group) > 1:
            middle = len(group) // 2
            return self._pass(group[:middle], split_point) + self._pass(group[middle:], split_point)
        first, second = group[0].halves()
        return [
            np.concatenate(self._pass([first], split_point) + self._pass([second], split_point))
        ]

    def _one_pass(self, group: Sequence[_Piece], split_point: int) -> list[NDArray[np.float64]]:
        longest = max(piece.hidden_BTD.shape[1] for piece in group)
        targets_BT = _stacked([p.batch.targets_BT[p.rows] for p in group], longest)
        scored_BT = _stacked([p.batch.scored_BT[p.rows] for p in group], longest)
        normed_BTD = self._chain.run_from(_joined(group, longest), split_point)
        device = normed_BTD.device
        nll_B = nll_sums(
            normed_BTD, self._chain.logits, targets_BT.to(device), scored_BT.to(device)
        )
        sizes = [len(piece.rows) for piece in group]
        return [part.cpu().numpy() for part in nll_B.split(sizes)]


def _next_look(blocks_done: int, target_stderr: float) -> float:
    """Blocks after which the precision is looked at next: nothing of the device enters here.

    Fewer than `_FIRST_BLOCKS` never suffice; later looks come a sixth of the sample apart.
    """
    if target_stderr == 0:
        return math.inf
    return max(_FIRST_BLOCKS, blocks_done + max(1, blocks_done // 6))


def _joined(group: Sequence[_Piece], longest: int) -> Tensor:
    if len(group) == 1:
        return group[0].hidden_BTD
    padded = [
        torch.nn.functional.pad(p.hidden_BTD, (0, 0, 0, longest - p.hidden_BTD.shape[1]))
        for p in group
    ]
    return torch.cat(padded)


def _stacked(parts: Sequence[NDArray[np.generic]], longest: int) -> Tensor:
    rows = [np.pad(part, ((0, 0), (0, longest - part.shape[1]))) for part in parts]
    return torch.from_numpy(np.concatenate(rows))
