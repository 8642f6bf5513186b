"""Open the tracker that the configuration asks for."""

from __future__ import annotations

import hashlib
import logging
import os
import uuid
from pathlib import Path

from raysplit.tracking.base import Tracker
from raysplit.tracking.config import TrackingConfig
from raysplit.tracking.guarded import GuardedTracker

_log = logging.getLogger(__name__)


def open_tracker(config: TrackingConfig, *, folder: Path, group: str, run: str) -> Tracker:
    """Open the tracker of one run (a stage, a trial or a seed) of an experiment.

    Args:
        config: Which backend, and its options.
        folder: The experiment's folder for tracking files; the same folder, group and run name give
            the same run again, so a resumed run goes on where it stopped.
        group: The experiment's name.
        run: The run's name within it.

    Returns:
        A tracker whose failures never reach the caller; where it cannot be opened, one that does
        nothing.
    """
    if config.backend == "none":
        return Tracker()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return GuardedTracker(_open(config, folder, group, run))
    except Exception as error:
        _log.warning(
            "tracking with %s could not start (%r); the run goes on without it",
            config.backend,
            error,
        )
        return Tracker()


def _open(config: TrackingConfig, folder: Path, group: str, run: str) -> Tracker:
    if config.backend == "tensorboard":
        from raysplit.tracking.tensorboard import TensorBoardTracker

        return TensorBoardTracker(folder / "tensorboard" / run)
    from raysplit.tracking.weights_and_biases import WandbTracker

    run_id = hashlib.sha256(f"{_folder_id(folder)}/{group}/{run}".encode()).hexdigest()[:16]
    return WandbTracker(config, folder, group=group, run=run, run_id=run_id)


def _folder_id(folder: Path) -> str:
    """Return a random name for the folder, kept in it: two experiments never share a run's id."""
    path = folder / "id"
    if not path.exists():
        candidate = folder / f"id.{uuid.uuid4().hex}"
        candidate.write_text(uuid.uuid4().hex)
        try:
            # Of several processes that get here at once, the first one wins.
            os.link(candidate, path)
        except FileExistsError:
            pass
        finally:
            candidate.unlink()
    return path.read_text()
