"""A tracker whose failures never reach the run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from typing_extensions import override

from raysplit.tracking.base import Cell, Tracker

_log = logging.getLogger(__name__)


class GuardedTracker(Tracker):
    """Passes every call on; the first failure is warned of, and further calls are still tried."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._warned = False

    @override
    def log_config(self, config: Mapping[str, object]) -> None:
        self._try(lambda: self._tracker.log_config(config))

    @override
    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        self._try(lambda: self._tracker.log_metrics(metrics, step))

    @override
    def log_figure(self, name: str, png: Path) -> None:
        self._try(lambda: self._tracker.log_figure(name, png))

    @override
    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        self._try(lambda: self._tracker.log_table(name, columns, rows))

    @override
    def log_artifact(self, path: Path, *, name: str, kind: str) -> None:
        self._try(lambda: self._tracker.log_artifact(path, name=name, kind=kind))

    @override
    def finish(self, *, failed: bool = False) -> None:
        self._try(lambda: self._tracker.finish(failed=failed))

    def _try(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:
            if not self._warned:
                _log.warning("tracking failed (%r); the run goes on without it", error)
            self._warned = True
