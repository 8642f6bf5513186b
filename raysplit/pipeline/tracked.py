"""The tracker of one stage, agent or trial of a run: one group an experiment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raysplit.pipeline.run_folder import RunFolder
from raysplit.tracking import Tracker, open_tracker
from tuning.settings import TrainConfig


def tracker_of(folder: RunFolder, run: str, **further: Mapping[str, object]) -> Tracker:
    """Open a run's tracker and log its configuration; it does nothing unless tracking is chosen.

    Args:
        folder: The run folder, whose experiment is logged.
        run: The run's name.
        further: Sections that are logged beside the experiment's.
    """
    experiment = folder.experiment
    tracker = open_tracker(
        experiment.tracking, folder=folder.path / "tracking", group=experiment.name, run=run
    )
    tracker.log_config({**experiment.model_dump(mode="json", by_alias=True), **further})
    return tracker


def training_config(config: TrainConfig, seed: int) -> dict[str, object]:
    """Return what one training is decided by, the preset's hyper-parameters written out."""
    return {
        **config.model_dump(mode="json", exclude={"seeds"}),
        "hyperparameters": config.hyperparameters().model_dump(mode="json"),
        "seed": seed,
    }


def score_table(policies: Mapping[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """Return columns and rows of an evaluation's agents or baselines."""
    values = ["return", "regret", "share_of_gap"]
    rows = [
        [name, source, *(scores[source][value] for value in values)]
        for name, scores in policies.items()
        for source in ("surrogate", "measured")
    ]
    return ["policy", "source", *values], rows
