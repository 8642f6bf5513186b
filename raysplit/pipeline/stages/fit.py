"""Stage 2: fit the surrogate to the measurements."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from raysplit.base.progress import console
from raysplit.measure.table import Measurements
from raysplit.pipeline.run_folder import RunFolder
from raysplit.pipeline.tracked import tracker_of
from raysplit.surrogate import fit


def run(folder: RunFolder) -> list[Path]:
    """Fit and save: surrogate/."""
    table = Measurements.from_parquet(folder.path / "measurements.parquet")
    experiment, problem = folder.experiment, folder.experiment.problem
    surrogate, report = fit(
        table,
        experiment.surrogate,
        experiment.plan.seed,
        split_points=(problem.min_split_point, problem.max_split_point),
        perfect_link=experiment.perfect_link(),
    )
    target = folder.path / "surrogate"
    surrogate.save(target)
    report.save(target)
    errors = report.log_ppl
    console.print(
        f"surrogate  held-out log PPL: MSE {errors.mse:.2g}, MAE {errors.mae:.2g}, "
        f"R2 {errors.r2:.4f}, rank correlation {errors.rank_correlation:.4f}"
    )
    with tracker_of(folder, "fit") as tracker:
        found = {"mse": errors.mse, "mae": errors.mae, "r2": errors.r2}
        tracker.log_metrics({f"log_ppl_{name}": value for name, value in found.items()}, step=0)
        pairs = np.stack([report.measured_log_ppl_N, report.predicted_log_ppl_N], axis=1).tolist()
        tracker.log_table("held-out log PPL", ("measured", "predicted"), pairs)
        tracker.log_artifact(target, name="surrogate", kind="model")
    return sorted(p for p in target.iterdir() if p.is_file())
