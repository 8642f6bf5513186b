"""The interface of a tracker, and the one that does nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

Cell = str | float | int | bool | None


class Tracker:
    """Logs one run; this one does nothing, so that callers need not ask whether to log.

    As a context manager it finishes the run, marked as failed where an exception passes.
    """

    def log_config(self, config: Mapping[str, object]) -> None:
        """Log the run's resolved configuration: plain JSON values, nested as in the YAML."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Log numbers at a step; each metric's steps must not decrease."""

    def log_figure(self, name: str, png: Path) -> None:
        """Log a picture."""

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        """Log a table."""

    def log_artifact(self, path: Path, *, name: str, kind: str) -> None:
        """Log a file or a folder, such as a data set, that stays as it is from now on."""

    def finish(self, *, failed: bool = False) -> None:
        """End the run; nothing may be logged after it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.finish(failed=kind is not None)
