"""The surrogate's error on measured rows that it has not seen, by the rows it was fitted on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.report import BenchReport
from raysplit.measure.table import Measurements
from raysplit.pipeline.experiment import load_experiment
from raysplit.pipeline.oracles import EVALUATION_TABLE
from raysplit.pipeline.run import run_stages
from raysplit.surrogate import Surrogate, SurrogateConfig, fit
from raysplit.surrogate.quality import ErrorStatistics


def surrogate_error(report: BenchReport, demo: Path) -> None:
    """Error of g on the evaluation grid, which no row of the plan is on."""
    held_out = Measurements.from_parquet(demo / EVALUATION_TABLE)
    found = _gain_errors(Surrogate.load(demo / "surrogate"), held_out)
    report.add({"surrogate_mse": found.mse, "surrogate_mae": found.mae})


def error_by_rows(report: BenchReport, demo: Path, numbers: tuple[int, ...]) -> None:
    """The same error by the rows it was fitted on: the first ones of one long plan."""
    folder = demo.with_name("bench-rows")
    experiment = load_experiment("demo", [f"plan.settings={numbers[-1]}"])
    run_stages(experiment, folder, ("measure",))
    ends = (experiment.problem.min_split_point, experiment.problem.max_split_point)
    table = Measurements.from_parquet(folder / "measurements.parquet")
    held_out = Measurements.from_parquet(demo / EVALUATION_TABLE)
    for rows in numbers:
        surrogate, _ = fit(
            table.select(np.arange(rows)),
            SurrogateConfig(),
            0,
            split_points=ends,
            perfect_link=experiment.perfect_link(),
        )
        errors = _gain_errors(surrogate, held_out)
        report.add(
            {f"surrogate_mse_{rows}_rows": errors.mse, f"surrogate_mae_{rows}_rows": errors.mae}
        )


def _gain_errors(surrogate: Surrogate, table: Measurements) -> ErrorStatistics:
    """Errors of g = 1 - PPL(p, state) / PPL(p_min, state) on a measured grid."""
    first = table.split_points_N == table.split_points_N.min()
    base = {
        tuple(s): i for i, s in zip(np.flatnonzero(first), table.link_states_NK[first], strict=True)
    }
    base_N = np.array([base[tuple(state)] for state in table.link_states_NK])
    predicted_N, _ = surrogate.predict_log_ppl(table.split_points_N, table.link_states_NK)
    gain_N = [1 - np.exp(log_N - log_N[base_N]) for log_N in (table.log_ppl_N, predicted_N)]
    return ErrorStatistics.of(gain_N[0][~first], gain_N[1][~first])
