"""The paper's Fig. 8 as `raysplit sweep demo` makes it: how long, and how much is training."""

from __future__ import annotations

import os
import time
from pathlib import Path
from statistics import mean

from bench.sweep_folder import finish_sweep, ready_for_a_sweep
from raysplit.pipeline.experiment import load_experiment
from tuning.sweep.plan import planned_settings
from tuning.sweep.records import trial_folders


def fig8(home: Path, quick: bool) -> dict[str, float]:
    """Run the command from a measured and fitted demo to Fig. 8 and the best settings.

    The overhead is everything that is not training: starting Python and Ray, importing, building,
    scoring, records, the figure. Each core counts for the whole time.
    """
    small = ["agents.ppo.total_steps=2400", "sweep.seeds=[0]"] if quick else []
    folder = ready_for_a_sweep(home / "fig8", *small)
    started = time.perf_counter()
    finish_sweep(folder)
    seconds = time.perf_counter() - started
    assert (folder / "sweep" / "figures" / "fig8.png").exists()
    records = [record for trial in trial_folders(folder / "sweep") if (record := trial.record())]
    training_s = [record.progress.seconds for record in records]
    config = load_experiment(str(folder / "experiment.yaml")).sweep
    curves = len(planned_settings(config)) * len(config.seeds)
    cores = os.cpu_count() or 1
    return {
        "fig8_minutes": seconds / 60,
        "fig8_curves": curves,
        # The agent's own values stand in each of the four panels and are trained once.
        "fig8_trainings": len(records),
        "fig8_minutes_if_none_were_shared": seconds / 60 * curves / len(records),
        "training_s_per_trial": mean(training_s),
        "overhead_s_per_trial": (seconds * cores - sum(training_s)) / len(records),
    }
