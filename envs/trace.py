"""The link states of a trace: a CSV file with a column a coordinate and a row a step."""

from __future__ import annotations

import csv

import numpy as np

from envs.problem import ProblemConfig
from raysplit.base.arrays import FloatArray
from raysplit.base.errors import UserError


def read_trace(problem: ProblemConfig) -> FloatArray:
    """Return the trace's link states, shape (R, K); no rows for other link dynamics.

    Raises:
        UserError: The file cannot be read, is too short for an episode, or leaves the case's range.
    """
    ranges, path = problem.ranges(), problem.dynamics.path
    if path is None:
        return np.zeros((0, len(ranges)))
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets write a mark first
            rows = list(csv.DictReader(file))
    except (UnicodeError, csv.Error) as error:
        raise UserError(
            f"trace {path} is no CSV text in UTF-8 ({error}); save it as CSV, UTF-8"
        ) from None
    except OSError as error:
        raise UserError(
            f"problem.dynamics.path {path} cannot be read ({error.strerror}); it names a CSV file "
            f"with the column(s) {', '.join(ranges)}"
        ) from None
    try:
        trace_RK = np.array([[float(row[name]) for name in ranges] for row in rows])
    except KeyError as error:
        raise UserError(
            f"trace {path} lacks the column {error}; it needs {', '.join(ranges)}"
        ) from None
    except (TypeError, ValueError) as error:
        raise UserError(f"trace {path} is no CSV of numbers: {error}") from None
    if len(trace_RK) <= problem.episode_steps:
        raise UserError(
            f"trace {path} has {len(trace_RK)} rows; an episode of {problem.episode_steps} steps "
            f"needs {problem.episode_steps + 1}"
        )
    low_K, high_K = np.array(list(ranges.values())).T
    outside = ~((trace_RK >= low_K) & (trace_RK <= high_K))
    if outside.any():
        row, k = np.argwhere(outside)[0]
        raise UserError(
            f"trace {path}, row {row + 1}: {list(ranges)[k]} {trace_RK[row, k]:g} is outside "
            f"[{low_K[k]:g}, {high_K[k]:g}]; widen problem.link or choose case A"
        )
    return trace_RK
