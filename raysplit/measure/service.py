"""The measuring service: settings in, rows out; what the ledger holds is not measured again."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, Self

import numpy as np

from raysplit.base.arrays import FloatArray
from raysplit.base.errors import UserError
from raysplit.base.files import sha256_of
from raysplit.base.progress import progress_bar
from raysplit.corpus.batches import BLOCK_SEQUENCES
from raysplit.measure.anchors import AnchorPlan
from raysplit.measure.config import BackendConfig
from raysplit.measure.ledger import Ledger
from raysplit.measure.rows import Row
from raysplit.measure.setting import Setting
from raysplit.measure.shards.job import AnchorDamages, Backend, Job
from raysplit.measure.shards.reference import CleanBlock, CleanReference
from raysplit.measure.table import Measurements
from raysplit.perplexity.anchored import (
    MIN_EFFECTIVE_ANCHORED,
    best_anchor_sequences,
    estimate_anchored,
)
from raysplit.perplexity.estimate import InvalidNLLError, should_stop

# So many failures in a row stop a run, if nothing has succeeded in it yet or if they are more than
# this share of what it was to measure.
_FAILURES_THAT_STOP, _FAILED_SHARE_THAT_STOPS = 8, 0.1
_PILOT_BLOCKS = 2  # of every anchor; they tell how many pay


class MeasuringService:
    """Measures settings of one job; opens its backend only when something is missing."""

    def __init__(
        self, job: Job, card: dict[str, Any], ledger: Ledger, backend: BackendConfig
    ) -> None:
        self._job = job
        self._ledger = ledger
        self._backend_config = backend
        self._backend: Backend | None = None
        self.card = card
        self.card_sha256 = sha256_of(card)
        self.evaluations = 0  # settings measured anew by this object
        self._anchors: dict[int, FloatArray] = {}  # by the link's seed
        ledger.add_card(self.card_sha256, card)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._backend is not None:
            self._backend.close()

    @property
    def tokens_per_sequence(self) -> float:
        """Tokens that the UE runs for a sequence, in the mean; not all of a window are scored."""
        return float(self._job.corpus.inputs_N.mean())

    def reference(self) -> CleanReference:
        """What the clean pass over the corpus gives; it is run once for a range of split points."""
        known = self._ledger.clean_reference(self.card_sha256)
        if known is not None:
            found = CleanReference.from_bytes(known)
            if found.covers(self._job.split_points):  # another experiment's may be a narrower one
                return found
        reference = self._clean_pass()
        self._ledger.add_clean_reference(self.card_sha256, reference.to_bytes())
        return reference

    def measure(self, settings: Iterable[Setting], title: str = "measure") -> dict[Setting, Row]:
        """Return a row for every setting, measuring those that the ledger does not hold.

        Every row is in the ledger before the next one is waited for, so an interruption loses at
        most what was in flight.
        """
        wanted = {setting.key(self.card_sha256): setting for setting in settings}
        known = self._known(wanted)
        missing = in_measuring_order(setting for key, setting in wanted.items() if key not in known)
        if not missing:
            return {setting: known[key] for key, setting in wanted.items()}
        reference = self.reference()
        hits = len(known)
        anchors = self._anchors_of({setting.seed for setting in missing}, reference)
        rows_of_anchors = {row.setting: row for row in self._rows_of_anchors(missing, reference)}
        for row in rows_of_anchors.values():
            self._ledger.add(self.card_sha256, [row])
            known[row.setting.key(self.card_sha256)] = row
            self.evaluations += 1
        left = [setting for setting in missing if setting not in rows_of_anchors]
        if left:
            run = _Failures(len(left))
            with progress_bar(title, total=len(wanted), done=len(known)) as advance:
                for measured in self._running().run(left, reference, anchors):
                    row = replace(measured, finished=time.time())
                    self._ledger.add(self.card_sha256, [row])
                    known[row.setting.key(self.card_sha256)] = row
                    run.count(row)
                    self.evaluations += 1
                    advance(1, f"{hits} from the ledger, {self._running().workers} workers")
        return {setting: known[key] for key, setting in wanted.items()}

    def _known(self, keys: Iterable[str]) -> dict[str, Row]:
        """Return the ledger's rows, without those that failed: they are tried again."""
        known = self._ledger.rows_of(keys)
        return {key: row for key, row in known.items() if row.status != "quarantined"}

    def _rows_of_anchors(
        self, settings: Iterable[Setting], reference: CleanReference
    ) -> Iterator[Row]:
        """Yield the rows of settings that are anchors and were measured precisely as such."""
        points = self._job.anchors.points if self._job.anchors else ()
        for setting in settings:
            if (setting.split_point, setting.link) not in points:
                continue
            sequences = self._anchors[setting.seed].shape[1]
            blocks = math.ceil(sequences / BLOCK_SEQUENCES)
            found = self._ledger.anchor_blocks(self.card_sha256, [setting], blocks)
            damages_M = np.concatenate([found[setting, block].damages_B for block in range(blocks)])
            if not np.isfinite(damages_M).all():
                continue
            clean = reference.corpus
            nll_M = clean.nll_N[:sequences] + damages_M
            result = estimate_anchored(nll_M, clean, np.empty((0, 0)))
            if sequences == len(clean.nll_N) or should_stop(
                result, self._job.target_stderr, MIN_EFFECTIVE_ANCHORED
            ):
                yield Row(
                    setting=setting,
                    status="done",
                    log_ppl=result.log_ppl,
                    stderr=result.stderr,
                    sequences=result.sequences,
                    tokens=result.tokens,
                    recomputed=sum(block.recomputed for block in found.values()),
                    seconds=sum(block.seconds for block in found.values()),
                    finished=time.time(),
                )

    def _anchors_of(self, seeds: set[int], reference: CleanReference) -> AnchorDamages | None:
        """What the anchors did to the first sequences under each seed, measured where it lacks."""
        if self._job.anchors is None:
            return None
        for seed in sorted(seeds - self._anchors.keys()):
            damages_KM = self._enough_of(self._job.anchors, seed, reference)
            sound_K = np.isfinite(damages_KM).all(axis=1)
            self._anchors[seed] = damages_KM[sound_K]
        return {seed: self._anchors[seed] for seed in seeds}

    def _enough_of(self, plan: AnchorPlan, seed: int, reference: CleanReference) -> FloatArray:
        """Measure the anchors, (K, M), on as many sequences as pay, as the first of them tell.

        What a ledger holds decides alike in every run that goes on with it.
        """
        blocks = min(_PILOT_BLOCKS, len(self._job.corpus.blocks))
        while True:
            damages_KM = self._anchor_damages(plan.with_seed(seed), blocks, reference)
            sequences = best_anchor_sequences(
                damages_KM[np.isfinite(damages_KM).all(axis=1)],
                reference.corpus,
                settings=plan.settings,
                target_stderr=self._job.target_stderr,
                step=BLOCK_SEQUENCES,
            )
            if sequences <= damages_KM.shape[1]:
                return damages_KM
            blocks = math.ceil(sequences / BLOCK_SEQUENCES)

    def _anchor_damages(
        self, anchors: list[Setting], blocks: int, reference: CleanReference
    ) -> FloatArray:
        """Return the damages (K, M) of the first blocks, measuring those that the ledger lacks."""
        known = self._ledger.anchor_blocks(self.card_sha256, anchors, blocks)
        wanted = list(itertools.product(anchors, range(blocks)))
        missing = [unit for unit in wanted if unit not in known]
        if missing:
            with progress_bar("anchors", total=len(wanted), done=len(known)) as advance:
                for found in self._running().anchor_blocks(missing, reference):
                    self._ledger.add_anchor_block(self.card_sha256, found)
                    known[found.setting, found.block] = found
                    advance(1)
        return np.stack(
            [np.concatenate([known[a, b].damages_B for b in range(blocks)]) for a in anchors]
        )

    def _clean_pass(self) -> CleanReference:
        corpus = self._job.corpus
        done: dict[int, CleanBlock] = {}
        with progress_bar("clean pass", total=len(corpus.blocks)) as advance:
            for block, part in self._running().clean_blocks():
                done[block] = part
                advance(1)
        try:
            return CleanReference.gather(done, corpus.tokens_N, self._job.split_points[0])
        except InvalidNLLError as error:
            raise UserError(
                f"{self._job.model.name} cannot be measured: {error}; check its weights, or set "
                "model.dtype to float32"
            ) from None

    def _running(self) -> Backend:
        if self._backend is None:
            self._backend = _open_backend(self._job, self._backend_config)
        return self._backend


def in_measuring_order(settings: Iterable[Setting]) -> list[Setting]:
    """Settings of one split point together, as their hidden states are then at hand.

    The longest suffixes come first, so that workers end at nearly the same time.
    """
    return sorted(settings, key=lambda setting: setting.split_point)


class _Failures:
    """Poisoned settings are put aside; too many of them mean that nothing works any more.

    They are retried, so they fail last and one after the other, however few they are.
    """

    def __init__(self, settings: int) -> None:
        self._settings = settings
        self._in_a_row = 0
        self._succeeded = False

    def count(self, row: Row) -> None:
        """Take a row.

        Raises:
            UserError: It is one failure too many.
        """
        if row.status != "quarantined":
            self._in_a_row, self._succeeded = 0, True
            return
        self._in_a_row += 1
        few = self._in_a_row <= _FAILED_SHARE_THAT_STOPS * self._settings
        if self._in_a_row >= _FAILURES_THAT_STOP and not (self._succeeded and few):
            raise UserError(
                f"the last {self._in_a_row} settings all failed, this one because of {row.reason}: "
                "mend that and start again; what was measured is kept"
            )


def _open_backend(job: Job, config: BackendConfig) -> Backend:
    # Imported here, so that `inprocess` runs where there is no Ray.
    open_: Callable[[Job, BackendConfig], Backend]
    if config.kind == "ray":
        from raysplit.measure.on_ray.backend import RayBackend as open_
    else:
        from raysplit.measure.shards.local import LocalBackend as open_
    return open_(job, config)


def as_table(
    rows: dict[Setting, Row], link_names: tuple[str, ...], clean_log_ppl: float
) -> Measurements:
    """Gather the rows that are `done` into a table, under the coordinates that were asked for."""
    settings = [setting for setting, row in rows.items() if row.status == "done"]
    done = [rows[setting] for setting in settings]
    states = [[getattr(setting.link, name) for name in link_names] for setting in settings]
    return Measurements(
        split_points_N=np.array([setting.split_point for setting in settings], dtype=np.int64),
        link_names=link_names,
        link_states_NK=np.array(states, dtype=np.float64).reshape(len(done), len(link_names)),
        log_ppl_N=np.array([row.log_ppl for row in done], dtype=np.float64),
        stderr_N=np.array([row.stderr for row in done], dtype=np.float64),
        anchor_sequences_N=np.array([row.anchor_sequences for row in done], dtype=np.int64),
        clean_log_ppl=clean_log_ppl,
    )
