"""The link states of a trace: a table with a column a coordinate and a row a step."""

from __future__ import annotations

import numpy as np

from envs.problem import ProblemConfig
from raysplit.base.arrays import FloatArray
from raysplit.base.errors import UserError
from raysplit.base.tables import read_table


def read_trace(problem: ProblemConfig) -> FloatArray:
    """Return the trace's link states, shape (R, K); no rows for other link dynamics.

    Raises:
        UserError: The file cannot be read, is too short for an episode, or leaves the case's range.
    """
    ranges, path = problem.ranges(), problem.dynamics.path
    if path is None:
        return np.zeros((0, len(ranges)))
    table = read_table(path, tuple(ranges), "trace")
    trace_RK = table.values_RC
    if len(trace_RK) <= problem.episode_steps:
        raise UserError(
            f"trace {path} has {len(trace_RK)} rows; an episode of {problem.episode_steps} steps "
            f"needs {problem.episode_steps + 1}"
        )
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
