"""The measuring service: settings in, rows out; what the ledger holds is not measured again."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np

from raysplit.base.errors import UserError
from raysplit.base.files import sha256_of
from raysplit.base.progress import progress_bar
from raysplit.corpus.use import SentenceUse
from raysplit.link.codec import IDENTITY, Codec
from raysplit.measure.anchored import MeasuredAnchors
from raysplit.measure.clean_pass import clean_reference
from raysplit.measure.config import BackendConfig
from raysplit.measure.ledger import Ledger
from raysplit.measure.rows import Row
from raysplit.measure.setting import Setting
from raysplit.measure.shards.job import AnchorDamages, Backend, Job
from raysplit.measure.shards.reference import CleanReference
from raysplit.measure.table import Measurements
from raysplit.measure.workers import Workers

# So many failures in a row stop a run, if nothing has succeeded in it yet or if they are more than
# this share of what it was to measure.
_FAILURES_THAT_STOP, _FAILED_SHARE_THAT_STOPS = 8, 0.1


class MeasuringService:
    """Measures settings of one job; opens its backend only when something is missing."""

    def __init__(
        self, job: Job, card: dict[str, Any], ledger: Ledger, backend: BackendConfig | Workers
    ) -> None:
        """Take the job and where it runs.

        Args:
            job: Model, corpus, kind of link and precision.
            card: What the rows are measured under.
            ledger: Holds them.
            backend: Where workers are opened, for this service alone; or workers that outlive it.
        """
        self._job = job
        self._ledger = ledger
        self._borrowed = isinstance(backend, Workers)
        self._workers = backend if isinstance(backend, Workers) else Workers(backend)
        self.card = card
        self.card_sha256 = sha256_of(card)
        self.evaluations = 0  # settings measured anew by this object
        ledger.add_card(self.card_sha256, card)
        self._anchors = job.anchors and MeasuredAnchors(
            job, job.anchors, self.card_sha256, ledger, self._running
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if not self._borrowed:
            self._workers.close()

    @property
    def tokens_per_sequence(self) -> float:
        """Tokens that the UE runs for a sequence, in the mean; not all of a window are scored."""
        return float(self._job.corpus.inputs_N.mean())

    @property
    def sentence_use(self) -> SentenceUse | None:
        """What of the text is measured on, where it was cut into sentences."""
        return self._job.corpus.use

    def reference(self, keep: Collection[int] = ()) -> CleanReference:
        """What the clean pass over the corpus gives; it is run once for a range of split points.

        Args:
            keep: Split points of the settings that follow: their hidden states are kept.
        """
        return clean_reference(self._job, self.card_sha256, self._ledger, self._running, keep)

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
        reference = self.reference(self._split_points_of(missing))
        hits = len(known)
        damages: AnchorDamages | None = None
        if self._anchors is not None:
            damages = self._anchors.damages({setting.seed for setting in missing}, reference)
            self._keep(self._anchors.rows(missing, reference), known)
            missing = [s for s in missing if s.key(self.card_sha256) not in known]
        if missing:
            failures = _Failures(len(missing))
            with progress_bar(title, total=len(wanted), done=len(known)) as advance:
                for row in self._running().run(missing, reference, damages):
                    self._keep([row], known)
                    failures.count(row)
                    advance(1, f"{hits} from the ledger, {self._running().workers} workers")
        return {setting: known[key] for key, setting in wanted.items()}

    def seed_stderr(self, seeds: tuple[int, int]) -> float | None:
        """Return how far log PPL moves with the link's seed, as the anchors tell; else None."""
        if self._anchors is None:
            return None
        return self._anchors.seed_stderr(seeds, self.reference())

    def _keep(self, rows: Iterable[Row], known: dict[str, Row]) -> None:
        """Put new rows into the ledger, and among those known by their keys."""
        finished = [replace(row, finished=time.time()) for row in rows]
        self._ledger.add(self.card_sha256, finished)
        known |= {row.setting.key(self.card_sha256): row for row in finished}
        self.evaluations += len(finished)

    def _split_points_of(self, settings: Iterable[Setting]) -> set[int]:
        """Split points of settings and of the anchors that they need."""
        anchors = self._job.anchors.points if self._job.anchors else ()
        return {setting.split_point for setting in settings} | {p for p, _ in anchors}

    def _known(self, keys: Iterable[str]) -> dict[str, Row]:
        """Return the ledger's rows, without those that failed: they are tried again."""
        known = self._ledger.rows_of(keys)
        return {key: row for key, row in known.items() if row.status != "quarantined"}

    def _running(self) -> Backend:
        return self._workers.serving(self._job, self.card_sha256)


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


def as_table(
    rows: dict[Setting, Row],
    link_names: tuple[str, ...],
    clean_log_ppl: float,
    codecs: Sequence[Codec] = (IDENTITY,),
) -> Measurements:
    """Gather the rows that are `done`, under the coordinates and codecs that were asked for."""
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
        codecs=tuple(codec.name for codec in codecs),
        codecs_N=np.array([codecs.index(setting.codec) for setting in settings], dtype=np.int64),
    )
