"""The edge's half: the link, the remaining layers, the norm and the head. Measures settings.

Shape suffixes: B sequences of a pass, T positions, R real positions of a batch, D hidden size,
N rows of all pieces, n sequences drawn, K anchors, M sequences of the anchors.
"""

# torch and safetensors type their NumPy bridges in part only:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from raysplit.base.arrays import BoolArray, FloatArray
from raysplit.base.halving import in_halves, is_out_of_memory
from raysplit.corpus.batches import BLOCK_SEQUENCES, Batch, TokenCorpus
from raysplit.link.channel import batch_generator, transmit
from raysplit.link.config import LinkConfig
from raysplit.measure.rows import AnchorBlock, Row
from raysplit.measure.setting import Setting
from raysplit.measure.shards.hidden import padded
from raysplit.measure.shards.packing import Pass, Piece, as_they_are, packed
from raysplit.measure.shards.passes import tuned_tokens_per_pass
from raysplit.measure.shards.reference import CleanReference
from raysplit.measure.shards.sample import Sample
from raysplit.model.chain import ModelPart, load_part
from raysplit.perplexity.anchored import (
    MIN_EFFECTIVE_ANCHORED,
    estimate_anchored,
    next_sample_sequences,
)
from raysplit.perplexity.estimate import Estimate, InvalidNLLError, should_stop
from raysplit.perplexity.nll import nll_sums

_FIRST_BLOCKS = 3
# Gathered before rows of similar length are put together: at most so many passes, or bytes.
_GATHERED_PASSES, _GATHERED_BYTES = 16, 2e9

HiddenOf = Callable[[int], Sequence[Tensor]]
"""Block number -> its batches' clean hidden states at one split point, each (R, D)."""


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
    def clean_nll(self, block: int, split_point: int, hidden: Sequence[Tensor]) -> FloatArray:
        """Return the clean NLL (nats) of a block's sequences, in drawing order."""
        batches = self._corpus.blocks[block]
        pieces = [
            Piece(batch, np.arange(len(batch.lengths_B)), self._padded(batch, state))
            for batch, state in zip(batches, hidden, strict=True)
        ]
        order = np.concatenate([batch.sequence_indices_B for batch in batches])
        nll = np.empty(len(order))
        nll[order - order.min()] = np.concatenate(self._suffix(pieces, split_point))
        return nll

    @torch.inference_mode()
    def anchor_block(
        self, setting: Setting, block: int, hidden: Sequence[Tensor], reference: CleanReference
    ) -> AnchorBlock:
        """Measure a block of the corpus under an anchor; a NaN or inf stays what it is."""
        start = time.perf_counter()
        sample = Sample()
        first = block * BLOCK_SEQUENCES
        last = min(first + BLOCK_SEQUENCES, len(self._corpus.sequences))
        self._draw(sample, setting, (first, last), lambda _: hidden, reference)
        damages_B = sample.in_drawing_order() - reference.corpus.nll_N[first:last]
        seconds = time.perf_counter() - start
        return AnchorBlock(setting, block, damages_B, sample.recomputed, seconds)

    @torch.inference_mode()
    def measure(
        self,
        setting: Setting,
        hidden_of: HiddenOf,
        reference: CleanReference,
        anchor_damages_KM: FloatArray | None = None,
    ) -> Row:
        """Measure one setting to the target standard error, a part of the corpus at a time.

        A NaN or inf makes the row `invalid`, with its reason; it is never averaged.

        Args:
            setting: The setting.
            hidden_of: Gives the clean hidden states at its split point.
            reference: The clean pass.
            anchor_damages_KM: What the anchors with the same seed did to the first M sequences, for
                `estimate_anchored`; None for `estimate`.
        """
        start = time.perf_counter()
        self._note = None
        sample = Sample()
        try:
            result = self._grow(sample, setting, hidden_of, reference, anchor_damages_KM)
        except InvalidNLLError as error:
            return Row(setting=setting, status="invalid", reason=str(error))
        return Row.of_estimate(
            setting,
            result,
            recomputed=sample.recomputed,
            seconds=time.perf_counter() - start,
            anchor_sequences=_anchor_sequences(anchor_damages_KM, result.sequences),
            note=self._note,
        )

    def _grow(
        self,
        sample: Sample,
        setting: Setting,
        hidden_of: HiddenOf,
        reference: CleanReference,
        anchor_damages_KM: FloatArray | None,
    ) -> Estimate:
        """Draw sequences until the estimate is precise, or none is left."""
        sequences = len(self._corpus.sequences)
        done = 0
        while True:
            if anchor_damages_KM is None:
                more = next_sample_blocks(done / BLOCK_SEQUENCES, self._target_stderr)
                stop = int(min(more * BLOCK_SEQUENCES, sequences))
            else:
                stop = min(next_sample_sequences(done), sequences)
            self._draw(sample, setting, (done, stop), hidden_of, reference)
            done = stop
            if anchor_damages_KM is None:
                result = sample.estimate(reference.corpus)
                precise = should_stop(result, self._target_stderr)
            else:
                nll_n = sample.in_drawing_order()
                result = estimate_anchored(nll_n, reference.corpus, anchor_damages_KM)
                precise = should_stop(result, self._target_stderr, MIN_EFFECTIVE_ANCHORED)
            if precise or done == sequences:
                return result

    def _gathered_tokens(self) -> float:
        in_memory = _GATHERED_BYTES / (self._chain.hidden_size * self._chain.dtype.itemsize)
        return max(self.tokens_per_pass, min(_GATHERED_PASSES * self.tokens_per_pass, in_memory))

    def _draw(
        self,
        sample: Sample,
        setting: Setting,
        span: tuple[int, int],
        hidden_of: HiddenOf,
        reference: CleanReference,
    ) -> None:
        """Measure the sequences from the first to before the second number, in drawing order.

        A batch puts sequences of similar length together. So a span that ends within a block takes
        from each of its batches the rows that are its own, which are a random part; whole batches
        would be its short or its long sequences. The link's randomness is that of the whole batch
        all the same. A sequence that the link left untouched keeps its clean NLL without any work.
        """
        start, stop = span
        finish = partial(sample.finish, partial(self._suffix, split_point=setting.split_point))
        for block in range(start // BLOCK_SEQUENCES, math.ceil(stop / BLOCK_SEQUENCES)):
            for batch, state in zip(self._corpus.blocks[block], hidden_of(block), strict=True):
                index_B = batch.sequence_indices_B
                drawn_B = (start <= index_B) & (index_B < stop)
                if drawn_B.any():
                    send = partial(self._send, setting, batch, state, drawn_B, reference)
                    piece = _or_after(send, finish)
                    sample.add(reference.corpus.nll_N[index_B], drawn_B, piece)
            if sample.waiting_tokens >= self._gathered_tokens():
                finish()
        finish()

    def _send(
        self,
        setting: Setting,
        batch: Batch,
        hidden_RD: Tensor,
        drawn_B: BoolArray,
        reference: CleanReference,
    ) -> Piece:
        device = self._chain.device
        received = transmit(
            self._padded(batch, hidden_RD),
            torch.from_numpy(batch.lengths_B).to(device),
            setting.link,
            self._link,
            batch_generator(setting.seed, batch.index, device),
            codec=setting.codec,
            signal_rms=reference.rms(setting.split_point),
            corpus_mean_D=reference.mean_D(setting.split_point).to(device),
        )
        rows = np.flatnonzero(received.touched_B.cpu().numpy() & drawn_B)
        if len(rows) == len(batch.lengths_B):
            return Piece(batch, rows, received.hidden_BTD)
        return Piece(batch, rows, received.hidden_BTD[torch.from_numpy(rows).to(device)])

    def _padded(self, batch: Batch, hidden_RD: Tensor) -> Tensor:
        return padded(hidden_RD.to(self._chain.device), batch.lengths_B)

    def _suffix(self, pieces: Sequence[Piece], split_point: int) -> list[FloatArray]:
        """Run the layers from the split point and return each piece's NLL sums.

        Where the memory does not suffice, each pass is run in halves, or fewer pieces are put
        together.
        """
        if not pieces:
            return []
        return in_halves(
            lambda some: self._together(pieces[some], split_point),
            slice(0, len(pieces)),
            lambda one, other: one + other,
        )

    def _together(self, pieces: Sequence[Piece], split_point: int) -> list[FloatArray]:
        sizes = [len(piece.rows) for piece in pieces]
        nll_N = np.empty(sum(sizes))
        together = packed(pieces, lambda: self.tokens_per_pass)
        for one in together if self.tokens_per_pass else as_they_are(pieces):
            nll_N[one.rows_B] = in_halves(
                lambda rows, one=one: self._one_pass(one.part(rows), split_point),
                slice(0, len(one.rows_B)),
                lambda first, second: np.concatenate([first, second]),
                self._on_halving,
            )
        return np.split(nll_N, np.cumsum(sizes)[:-1])

    def _on_halving(self, rows: int) -> None:
        """Note it in the row, and let later passes be smaller."""
        self.tokens_per_pass //= 2
        self._note = f"out of memory with {rows} sequences: run in halves"

    def _one_pass(self, one: Pass, split_point: int) -> FloatArray:
        lengths_B = torch.from_numpy(one.lengths_B)
        normed_BTD = self._chain.run_from(one.hidden_BTD, lengths_B, split_point)
        targets_BT, scored_BT = (
            torch.from_numpy(part).to(normed_BTD.device) for part in (one.targets_BT, one.scored_BT)
        )
        return nll_sums(normed_BTD, self._chain.logits, targets_BT, scored_BT).cpu().numpy()


def _or_after(send: Callable[[], Piece], make_room: Callable[[], None]) -> Piece:
    """Send a batch; where the memory does not suffice, once more after what waits has been run."""
    try:
        return send()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    make_room()
    return send()


def next_sample_blocks(blocks_done: float, target_stderr: float) -> float:
    """Blocks after which the precision is looked at next: nothing of the device enters here.

    Fewer than `_FIRST_BLOCKS` never suffice; later looks come a sixth of the sample apart.
    """
    if target_stderr == 0:
        return math.inf
    return max(_FIRST_BLOCKS, blocks_done + max(1, blocks_done // 6))


def _anchor_sequences(anchor_damages_KM: FloatArray | None, sequences: int) -> int:
    """Return the anchors' sequences behind an estimate, 0 where it made no use of any."""
    if anchor_damages_KM is None or not len(anchor_damages_KM):
        return 0
    measured = anchor_damages_KM.shape[1]
    return measured if sequences < measured else 0
