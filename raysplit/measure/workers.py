"""The workers that measure: a backend, opened when the first setting needs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from raysplit.measure.config import BackendConfig

if TYPE_CHECKING:  # they load torch, and a run folder is opened without
    from raysplit.measure.shards.job import Backend, Job


class Workers:
    """At most one backend at a time, for one service after the other.

    Two stages of a run measure under the same card; the second finds the first's actors, with the
    weights loaded and the clean hidden states at hand, instead of starting Ray and them again.
    """

    def __init__(self, config: BackendConfig) -> None:
        self._config = config
        self._backend: Backend | None = None
        self._serves: tuple[str, tuple[int, int]] | None = None

    def serving(self, job: Job, card_sha256: str) -> Backend:
        """Return the backend for a job under a card; one for another job is closed before."""
        wanted = (card_sha256, job.split_points)
        if self._backend is None or self._serves != wanted:
            self.close()
            self._backend, self._serves = _open_backend(job, self._config), wanted
        return self._backend

    def close(self) -> None:
        """Give back all that the backend holds; it is opened again when it is needed."""
        if self._backend is not None:
            self._backend.close()
            self._backend = None


def _open_backend(job: Job, config: BackendConfig) -> Backend:
    # Imported here, so that `inprocess` runs where there is no Ray.
    open_: Callable[[Job, BackendConfig], Backend]
    if config.kind == "ray":
        from raysplit.measure.on_ray.backend import RayBackend as open_
    else:
        from raysplit.measure.shards.local import LocalBackend as open_
    return open_(job, config)
