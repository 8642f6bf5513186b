"""The edge's half: the link, the remaining layers, the norm and the head. Measures settings.

Shape suffixes: B sequences of a pass, T positions, D hidden size.
"""

from __future__ import annotations

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
from raysplit.perplexity.estimate import InvalidNLLError, estimate, should_stop
from raysplit.perplexity.nll import nll_sums
from raysplit.shards.model import ModelPart, load_part
from raysplit.shards.reference import CleanReference

HiddenOf = Callable[[int], Sequence[Tensor]]
"""Block number -> its batches' clean hidden states at one split point, each (B, T, D)."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """Rows of one batch, on their way through the suffix."""

    batch: Batch
    rows: NDArray[np.int64]  # which rows of the batch
    hidden_BTD: Tensor


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
        self._depth = part.stop
        self.tokens_per_pass = 0  # 0: every batch on its own

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
        """Measure one setting to the target standard error, block by block.

        A NaN or inf makes the row `invalid`, with its reason; it is never averaged.
        """
        start = time.perf_counter()
        noisy: list[NDArray[np.float64]] = []
        indices: list[NDArray[np.int64]] = []
        recomputed = 0
        for block in range(len(self._corpus.blocks)):
            for batch, nll_B, touched in self._noisy_block(
                setting, block, hidden_of(block), reference
            ):
                noisy.append(nll_B)
                indices.append(batch.sequence_indices_B)
                recomputed += touched
            try:
                result = estimate(np.concatenate(noisy), np.concatenate(indices), reference.corpus)
            except InvalidNLLError as error:
                return Row(setting=setting, status="invalid", reason=str(error))
            if should_stop(result, self._target_stderr):
                break
        return Row(
            setting=setting,
            status="done",
            log_ppl=result.log_ppl,
            stderr=result.stderr,
            sequences=result.sequences,
            tokens=result.tokens,
            recomputed=recomputed,
            seconds=time.perf_counter() - start,
        )

    def _noisy_block(
        self, setting: Setting, block: int, hidden: Sequence[Tensor], reference: CleanReference
    ) -> Iterable[tuple[Batch, NDArray[np.float64], int]]:
        """Yield each batch with its NLL under the link and the number of rows recomputed.

        A sequence that the link left untouched keeps its clean NLL without any work.
        """
        batches = self._corpus.blocks[block]
        pieces = [
            self._send(setting, b, h, reference) for b, h in zip(batches, hidden, strict=True)
        ]
        work = [piece for piece in pieces if len(piece.rows)]
        results = dict(
            zip((p.batch.index for p in work), self._suffix(work, setting.split_point), strict=True)
        )
        for piece in pieces:
            nll_B = reference.corpus.nll_N[piece.batch.sequence_indices_B]
            if len(piece.rows):
                nll_B[piece.rows] = results[piece.batch.index]
            yield piece.batch, nll_B, len(piece.rows)

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
        return [nll for group in self._passes(pieces) for nll in self._one_pass(group, split_point)]

    def _passes(self, pieces: Sequence[_Piece]) -> Iterable[list[_Piece]]:
        group: list[_Piece] = []
        tokens = 0
        for piece in pieces:
            size = piece.hidden_BTD.shape[0] * piece.hidden_BTD.shape[1]
            if group and tokens + size > self.tokens_per_pass:
                yield group
                group, tokens = [], 0
            group.append(piece)
            tokens += size
        if group:
            yield group

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
