"""Anchors measured: what each did to the first sequences of the corpus, kept in the ledger.

Shape suffixes: K anchors, M sequences of the anchors.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from raysplit.base.arrays import BoolArray, FloatArray
from raysplit.base.progress import progress_bar
from raysplit.corpus.batches import BLOCK_SEQUENCES
from raysplit.measure.anchors import AnchorPlan
from raysplit.measure.ledger import Ledger
from raysplit.measure.rows import Row
from raysplit.measure.setting import Setting
from raysplit.measure.shards.job import AnchorDamages, Backend, Job
from raysplit.measure.shards.reference import CleanReference
from raysplit.perplexity.anchored import (
    MIN_EFFECTIVE_ANCHORED,
    best_anchor_sequences,
    estimate_anchored,
    seed_stderr,
)
from raysplit.perplexity.estimate import should_stop

_PILOT_BLOCKS = 2  # of every anchor; they tell how many pay


class MeasuredAnchors:
    """The anchors of one job, under every seed that is asked for."""

    def __init__(
        self,
        job: Job,
        plan: AnchorPlan,
        card_sha256: str,
        ledger: Ledger,
        running: Callable[[], Backend],
    ) -> None:
        """Measure nothing yet; `running` gives the backend once something is missing."""
        self._job = job
        self._plan = plan
        self._card_sha256 = card_sha256
        self._ledger = ledger
        self._running = running
        self._damages_KM: dict[int, FloatArray] = {}  # by the link's seed; some may be NaN

    def damages(self, seeds: set[int], reference: CleanReference) -> AnchorDamages:
        """What the anchors did to the first sequences under each seed, measured where it lacks."""
        for seed in sorted(seeds - self._damages_KM.keys()):
            self._damages_KM[seed] = self._enough(seed, reference)
        of_seeds = {seed: self._damages_KM[seed] for seed in seeds}
        return {seed: damages_KM[_sound(damages_KM)] for seed, damages_KM in of_seeds.items()}

    def seed_stderr(self, seeds: tuple[int, int], reference: CleanReference) -> float | None:
        """Return what another seed of the link would change: `raysplit.perplexity.anchored`.

        Of the anchor for which it is largest; None where no anchor is sound under both seeds.
        """
        self.damages(set(seeds), reference)
        both = zip(*(self._damages_KM[seed] for seed in seeds), strict=True)
        found = [seed_stderr(one_M, other_M, reference.corpus) for one_M, other_M in both]
        return max((value for value in found if math.isfinite(value)), default=None)

    def rows(self, settings: Iterable[Setting], reference: CleanReference) -> Iterator[Row]:
        """Yield the rows of settings that are anchors and were measured precisely as such.

        `damages` has been asked for their seeds before.
        """
        clean = reference.corpus
        for setting in settings:
            if not self._plan.holds(setting):
                continue
            sequences = self._damages_KM[setting.seed].shape[1]
            blocks = math.ceil(sequences / BLOCK_SEQUENCES)
            found = self._ledger.anchor_blocks(self._card_sha256, [setting], blocks)
            damages_M = np.concatenate([found[setting, block].damages_B for block in range(blocks)])
            if not np.isfinite(damages_M).all():
                continue
            result = estimate_anchored(clean.nll_N[:sequences] + damages_M, clean, np.empty((0, 0)))
            if sequences == len(clean.nll_N) or should_stop(
                result, self._job.target_stderr, MIN_EFFECTIVE_ANCHORED
            ):
                yield Row.of_estimate(
                    setting,
                    result,
                    recomputed=sum(block.recomputed for block in found.values()),
                    seconds=sum(block.seconds for block in found.values()),
                )

    def _enough(self, seed: int, reference: CleanReference) -> FloatArray:
        """Measure the anchors, (K, M), on as many sequences as pay, as the first of them tell.

        What a ledger holds decides alike in every run that goes on with it.
        """
        anchors = self._plan.with_seed(seed)
        blocks = min(_PILOT_BLOCKS, len(self._job.corpus.blocks))
        while True:
            damages_KM = self._first_blocks(anchors, blocks, reference)
            sequences = best_anchor_sequences(
                damages_KM[_sound(damages_KM)],
                reference.corpus,
                settings=self._plan.settings,
                target_stderr=self._job.target_stderr,
                step=BLOCK_SEQUENCES,
            )
            if sequences <= damages_KM.shape[1]:
                return damages_KM
            blocks = math.ceil(sequences / BLOCK_SEQUENCES)

    def _first_blocks(
        self, anchors: list[Setting], blocks: int, reference: CleanReference
    ) -> FloatArray:
        """Return the damages (K, M) of the first blocks, measuring those that the ledger lacks."""
        known = self._ledger.anchor_blocks(self._card_sha256, anchors, blocks)
        wanted = list(itertools.product(anchors, range(blocks)))
        missing = [unit for unit in wanted if unit not in known]
        if missing:
            with progress_bar("anchors", total=len(wanted), done=len(known)) as advance:
                for found in self._running().anchor_blocks(missing, reference):
                    self._ledger.add_anchor_block(self._card_sha256, found)
                    known[found.setting, found.block] = found
                    advance(1)
        return np.stack(
            [np.concatenate([known[a, b].damages_B for b in range(blocks)]) for a in anchors]
        )


def _sound(damages_KM: FloatArray) -> BoolArray:
    """Which anchors gave a number on every sequence."""
    return np.logical_and.reduce(np.isfinite(damages_KM), axis=1)
