"""Make an evaluated run a benchmark problem that ships: a table in `envs/tables`.

    python -m tools.make_problem runs/demo Embedded-Noise-v0

The name is that of the environment, `raysplit/NAME`. A table that was published is never replaced:
one that was measured again gets the next version.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import numpy as np

from bench.report import commit
from envs.benchmark_table import BenchmarkTable
from envs.benchmarks import TABLES
from envs.grid import Grid
from raysplit.base.arrays import FloatArray
from raysplit.base.errors import UserError
from raysplit.measure.table import Measurements
from raysplit.pipeline.oracles import EVALUATION_TABLE
from raysplit.pipeline.problem import measured_problem
from raysplit.pipeline.run_folder import RunFolder

_NAME = r"[A-Z][A-Za-z0-9]*(-[A-Z][A-Za-z0-9]*)*-v\d+"


def make_problem(
    run: Path, name: str, tables: Path = TABLES, measured_at: str | None = None
) -> Path:
    """Write the table of an evaluated run and return its path.

    Args:
        run: The run's folder.
        name: The environment's name, such as "SmolLM2-Noise-v0".
        tables: Where the table goes.
        measured_at: The commit that the run was measured at; by default that of this tree.

    Raises:
        UserError: If the name is none or taken, or the run is not evaluated.
    """
    if not re.fullmatch(_NAME, name):
        raise UserError(f"'{name}' is no name: take words and a version, such as SmolLM2-Noise-v0")
    path = tables / f"{name}.json"
    if path.exists():
        raise UserError(f"{path} is published and stays as it is: take the next version")
    table = table_of(RunFolder.read(run), measured_at or commit())
    table.save(path)
    return path


def table_of(folder: RunFolder, measured_at: str) -> BenchmarkTable:
    """Return the problem of a run with its evaluation grid.

    Raises:
        UserError: If the run is not evaluated, or over a digital link.
    """
    if folder.experiment.radio is not None:
        raise UserError(
            f"{folder.path} was measured by loss for link.mode: digital, and a benchmark problem "
            "holds no radio: take a run over an analogue link"
        )
    record = folder.stage_record("evaluate")
    if record is None:
        raise UserError(f"stage 'evaluate' is not done in {folder.path}: finish the run first")
    params, card = measured_problem(folder)
    by_codec = Measurements.from_parquet(folder.path / EVALUATION_TABLE).by_codec()
    measured = by_codec[folder.experiment.problem.codec.name]
    axes = tuple(np.unique(x_N) for x_N in measured.link_states_NK.T)
    grid = Grid((params.min_split_point, params.max_split_point), axes)
    order_N = grid.nearest(measured.split_points_N, measured.link_states_NK)

    def on_grid(values_N: FloatArray) -> FloatArray:
        table = np.full(grid.shape, np.nan)
        table.flat[order_N] = values_N
        return table

    return BenchmarkTable(
        problem=folder.experiment.problem,
        clean_log_ppl=card["clean_log_ppl"],
        cost_by_split_point=tuple(params.cost_P.tolist()),
        axes=axes,
        log_ppl=on_grid(measured.log_ppl_N),
        stderr=on_grid(measured.stderr_N),
        provenance={
            "protocol_card": card,
            "measured": record["started"],
            "versions": record["versions"],
            "commit": measured_at,
        },
    )


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tools.make_problem", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN_FOLDER")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--commit", help="where it was measured (default: this tree's)")
    arguments = parser.parse_args()
    try:
        print(make_problem(arguments.run, arguments.name, measured_at=arguments.commit))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
