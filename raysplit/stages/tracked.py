"""The tracker of one stage, agent or trial of a run: one group an experiment."""

from __future__ import annotations

from raysplit.run_folder import RunFolder
from raysplit.tracking import Tracker, open_tracker


def tracker_of(folder: RunFolder, run: str) -> Tracker:
    """Open a run's tracker and log the experiment; it does nothing unless tracking is chosen."""
    experiment = folder.experiment
    tracker = open_tracker(
        experiment.tracking, folder=folder.path / "tracking", group=experiment.name, run=run
    )
    tracker.log_config(experiment.model_dump(mode="json", by_alias=True))
    return tracker
