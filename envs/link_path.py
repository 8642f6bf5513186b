"""The link states of a path: a trace's rows, or a simulated path of fading; a row a step."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from envs.problem import ProblemConfig
from raysplit.base.arrays import FloatArray
from raysplit.base.errors import UserError
from raysplit.base.tables import read_table
from raysplit.radio.cell import load_cell
from raysplit.radio.path import fading_path_db
from raysplit.radio.reading import read_trace_file
from raysplit.radio.trace import equivalent_snr_db


def link_path(problem: ProblemConfig) -> FloatArray:
    """Return the path's link states (R, K); no rows for links without a path.

    Raises:
        UserError: The file cannot be read, is too short for an episode, or leaves the case's range.
    """
    dynamics = problem.dynamics
    if dynamics.kind == "fading":
        assert dynamics.fading is not None
        return fading_path_db(dynamics.fading)[:, None]  # may leave the range; states do not
    if dynamics.path is None:
        return np.zeros((0, len(problem.link)))
    if dynamics.step_s is None:
        trace_RK = _rows_of_table(problem, dynamics.path)
    else:
        trace_RK = _steps_of_radio_trace(problem, dynamics.path, dynamics.step_s)
    if len(trace_RK) <= problem.episode_steps:
        raise UserError(
            f"trace {dynamics.path} has {len(trace_RK)} rows; an episode of "
            f"{problem.episode_steps} steps needs {problem.episode_steps + 1}"
        )
    return trace_RK


def trained_rows(problem: ProblemConfig, rows: int) -> int:
    """Return how many of a trace's rows, the first, agents learn from; 0 without a trace."""
    return round(problem.dynamics.trained_share * rows) if problem.dynamics.path else 0


def refuse_short_parts(rows: int, trained: int, episode_steps: int) -> None:
    """Refuse a trace of which a part, to learn from or to be judged on, is shorter than an episode.

    Raises:
        UserError: One is.
    """
    if min(trained, rows - trained) <= episode_steps:
        raise UserError(
            f"the trace has {rows} rows, {trained} to learn from and {rows - trained} to be judged "
            f"on; an episode of {episode_steps} steps needs {episode_steps + 1} in each: take a "
            "longer trace, or change problem.dynamics.trained_share"
        )


def _rows_of_table(problem: ProblemConfig, path: Path) -> FloatArray:
    ranges = problem.ranges()
    table = read_table(path, tuple(ranges), "trace")
    trace_RK = table.values_RC
    low_K, high_K = np.array(list(ranges.values())).T
    outside = ~((trace_RK >= low_K) & (trace_RK <= high_K))
    if outside.any():
        row, k = np.argwhere(outside)[0]
        value, *ends = (float(x) for x in (trace_RK[row, k], low_K[k], high_K[k]))
        raise UserError(
            f"trace {path}, {table.places[row]}: {list(ranges)[k]} {value!r} is outside {ends}; "
            "widen problem.link or choose case A"
        )
    return trace_RK


def _steps_of_radio_trace(problem: ProblemConfig, path: Path, step_s: float) -> FloatArray:
    """Return the SNR of a recorded link; of a capacity the SNR at which the cell has that rate."""
    cell = load_cell(problem.dynamics.cell)
    steps = read_trace_file(path).steps(step_s)  # of a capacity: bits add up
    share = problem.dynamics.cell_share
    snr_db_S = equivalent_snr_db(steps.quantity, steps.values_S, cell, share)
    return _clipped(problem, snr_db_S[:, None])


def _clipped(problem: ProblemConfig, path_RK: FloatArray) -> FloatArray:
    """Return a path within the case's range: what lies beyond counts as its border."""
    low_K, high_K = np.array(list(problem.ranges().values())).T
    return np.clip(path_RK, low_K, high_K)
