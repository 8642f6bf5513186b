"""A measured table as a benchmark problem on disk: one sealed JSON file of a few kilobytes.

It holds the decision problem, PPL and standard error of every setting of a grid, where they come
from, and the datasheet: what optimum and baselines return on exactly these numbers.

Shape suffixes: P split points, G grid points of a link coordinate (one axis for each of K).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from envs.grid_sources import TableSource
from envs.oracle import Oracle
from envs.params import LayerSplitParams, params_from
from envs.policies import StayPolicy
from envs.problem import ProblemConfig
from raysplit.base.arrays import FloatArray
from raysplit.base.errors import UserError
from raysplit.base.sealed_json import read_sealed, write_sealed

FORMAT = 1
INTERPOLATION = "log PPL, multilinear between the grid's link states"
_FINER = 8  # intervals of the fine grid for each of the table's


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BenchmarkTable:
    """A decision problem whose perplexities were measured once and for all.

    Attributes:
        problem: The decision problem; its link does not follow a trace.
        clean_log_ppl: The model's log PPL over a perfect link.
        cost_by_split_point: C_UE of each split point: its share of the whole model, or raw.
        axes: The measured values of each of the K link coordinates, ascending.
        log_ppl: Measured log PPL, shape (P, G1, .., GK).
        stderr: Its standard error, of the same shape.
        provenance: Where the numbers come from: the protocol card, versions, dates.
    """

    problem: ProblemConfig
    clean_log_ppl: float
    cost_by_split_point: tuple[float, ...]
    axes: tuple[FloatArray, ...]
    log_ppl: FloatArray
    stderr: FloatArray
    provenance: dict[str, Any]

    def params(self) -> LayerSplitParams:
        """Return the problem as environments and oracle take it."""
        return params_from(
            self.problem, float(np.exp(self.clean_log_ppl)), self.cost_by_split_point
        )

    def source(self) -> TableSource:
        """Return the perplexities: the measured ones on the grid, interpolated in between."""
        ends = (self.problem.min_split_point, self.problem.max_split_point)
        return TableSource(
            ends, self.axes, np.exp(self.log_ppl), link_names=self.problem.link_names
        )

    def datasheet(self) -> dict[str, Any]:
        """Return what optimum and baselines return, exactly.

        On the measured link states, which is what scores are made of; and, as `between_nodes`, on a
        grid eight times as fine, which says what the interpolation in between adds.
        """
        params, source = self.params(), self.source()
        oracle = Oracle(params, source)
        best_fixed, best_fixed_return = oracle.best_fixed()
        fine = [_FINER * (points - 1) + 1 for points in params.grid_points]
        finer = Oracle(params, source, grid_points=fine)
        return {
            "optimal_return": oracle.optimal_return,
            "random_return": oracle.random_return,
            "greedy_return": oracle.policy_return(oracle.greedy_policy()),
            "stay_return": oracle.policy_return(StayPolicy(params)),
            "best_fixed_split_point": best_fixed,
            "best_fixed_return": best_fixed_return,
            "interpolation": INTERPOLATION,
            "between_nodes": {
                "grid_points": fine,
                "optimal_return": finer.optimal_return,
                "random_return": finer.random_return,
            },
        }

    def save(self, path: Path) -> None:
        """Write the table with its datasheet.

        Raises:
            UserError: If the link follows a trace, which the file would not hold.
        """
        if self.problem.dynamics.kind == "trace":
            raise UserError(
                "a benchmark problem holds no trace: take another problem.dynamics.kind"
            )
        names = self.problem.link_names
        content = {
            "format": FORMAT,
            "problem": self.problem.model_dump(mode="json", by_alias=True),
            "clean_log_ppl": self.clean_log_ppl,
            "cost_by_split_point": list(self.cost_by_split_point),
            "axes": {name: axis.tolist() for name, axis in zip(names, self.axes, strict=True)},
            "log_ppl": self.log_ppl.tolist(),
            "stderr": self.stderr.tolist(),
            "datasheet": self.datasheet(),
            "provenance": self.provenance,
        }
        write_sealed(path, content)

    @classmethod
    def load(cls, path: Path) -> tuple[BenchmarkTable, dict[str, Any]]:
        """Read a table and its datasheet.

        Raises:
            UserError: If the file is missing, was changed, or is of another format.
        """
        content = read_sealed(path, "install raysplit again")
        if content["format"] != FORMAT:
            raise UserError(f"{path} is of format {content['format']}, and this reads {FORMAT}")
        problem = ProblemConfig.model_validate(content["problem"])
        table = cls(
            problem=problem,
            clean_log_ppl=content["clean_log_ppl"],
            cost_by_split_point=tuple(content["cost_by_split_point"]),
            axes=tuple(np.array(content["axes"][name]) for name in problem.link_names),
            log_ppl=np.array(content["log_ppl"]),
            stderr=np.array(content["stderr"]),
            provenance=content["provenance"],
        )
        return table, content["datasheet"]
