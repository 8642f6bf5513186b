"""The frozen parameters that the environments and the oracle compute with.

Shape suffixes: N settings, K link coordinates, P split points (index 0 is the first), R rows of a
trace.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from envs.problem import ProblemConfig, Reward
from envs.trace import read_trace
from raysplit.base.arrays import FloatArray, IntArray
from raysplit.base.errors import UserError

ACTIONS = 3
"""0, 1, 2 move the split point by -1, 0, +1."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerSplitParams:
    """Everything that the transition, the observation and the reward depend on.

    Attributes:
        link_names: The link coordinates that vary.
        link_low_K: Lower end of each coordinate's range.
        link_high_K: Upper end.
        grid_points: Evaluation grid's points per coordinate.
        min_split_point: Fewest layers on the device.
        max_split_point: Most layers on the device.
        start_split_points: First and last split point that an episode starts from.
        episode_steps: Decisions in an episode.
        discount: Discount of reported returns.
        reward: Which reward.
        cost_weight: lambda of Eq. 7; 1 for the reward `budget`.
        cost_P: What is weighed against PPL at each split point. C_UE as a share of the whole
            model, or raw; for the reward `budget` seconds, joules and misses, each weighted, as a
            share of the clean PPL.
        cost_PX: The same over the first link coordinate, where the cost depends on the link, too;
            linear between the values of `cost_axis_X`. No columns where it does not.
        cost_axis_X: Those values, ascending.
        ppl_scale: The PPL that counts as 1 in the objective: the clean PPL, or 1 in the raw form.
        link_dynamics: How the link changes within an episode.
        drift_per_layer: Relative change of a constant link per layer moved.
        correlation: rho of the Gauss-Markov link, else 0.
        trace_RK: Link states of the trace, one row a step; no rows for the other dynamics.
        observe_step: Whether the observation ends with the number of steps taken.
    """

    link_names: tuple[str, ...]
    link_low_K: FloatArray
    link_high_K: FloatArray
    grid_points: tuple[int, ...]
    min_split_point: int
    max_split_point: int
    start_split_points: tuple[int, int]
    episode_steps: int
    discount: float
    reward: Reward
    cost_weight: float
    cost_P: FloatArray
    cost_PX: FloatArray
    cost_axis_X: FloatArray
    ppl_scale: float
    link_dynamics: Literal["constant", "iid", "gauss_markov", "trace"]
    drift_per_layer: float
    correlation: float
    trace_RK: FloatArray
    observe_step: bool

    @property
    def split_points_P(self) -> IntArray:
        """All split points, ascending."""
        return np.arange(self.min_split_point, self.max_split_point + 1)

    def link_states_at(self, shares_NK: FloatArray) -> FloatArray:
        """Return link states that lie at shares (0 to 1) of each coordinate's range."""
        return self.link_low_K + shares_NK * (self.link_high_K - self.link_low_K)


def params_from(
    problem: ProblemConfig,
    clean_ppl: float | None = None,
    cost_by_split_point: Sequence[float] | FloatArray | None = None,
    cost_by_link: tuple[FloatArray, FloatArray] | None = None,
) -> LayerSplitParams:
    """Return the parameters of a problem.

    Args:
        problem: The YAML section.
        clean_ppl: PPL over a perfect link. All rewards but `authors` need it, unless `raw`.
        cost_by_split_point: C(p) for p = min_split_point .. max_split_point; all rewards but
            `authors` need it. C_UE(p) divided by the whole model's cost, or as it is with `raw`;
            for the reward `budget` the weighted sum of seconds, joules and misses, as a share of
            the clean PPL.
        cost_by_link: Values of the first link coordinate (X,), ascending and over its range, and
            C(p) at each of them (P, X), in place of `cost_by_split_point`.

    Raises:
        UserError: If the reward lacks one of them, or the trace file does not serve.
    """
    split_points = problem.max_split_point - problem.min_split_point + 1
    cost_P = np.zeros(split_points)
    cost_axis_X, cost_PX = np.zeros(0), np.zeros((split_points, 0))
    if problem.reward != "authors":
        has_cost = cost_by_split_point is not None or cost_by_link is not None
        if not has_cost or (clean_ppl is None and not problem.raw):
            raise UserError(
                f"reward: {problem.reward} needs the clean PPL and the cost of each split point"
            )
        if cost_by_link is not None:
            cost_axis_X, cost_PX = cost_by_link
        elif cost_by_split_point is not None:
            cost_P = np.array(cost_by_split_point, dtype=np.float64)
        for costs in (len(cost_P), len(cost_PX)):
            if costs != split_points:
                raise UserError(
                    f"{costs} costs for {split_points} split points: give one for each of "
                    f"{problem.min_split_point}..{problem.max_split_point}"
                )
    ranges = problem.ranges()
    low_K, high_K = np.array(list(ranges.values()), dtype=np.float64).T
    dynamics = problem.dynamics
    return LayerSplitParams(
        link_names=problem.link_names,
        link_low_K=low_K,
        link_high_K=high_K,
        grid_points=tuple(link.grid_points for link in problem.link.values()),
        min_split_point=problem.min_split_point,
        max_split_point=problem.max_split_point,
        start_split_points=problem.start_split_points,
        episode_steps=problem.episode_steps,
        discount=problem.discount,
        reward=problem.reward,
        cost_weight=1.0 if problem.reward == "budget" else problem.cost_weight,
        cost_P=cost_P,
        cost_PX=cost_PX,
        cost_axis_X=cost_axis_X,
        ppl_scale=1.0 if problem.raw or clean_ppl is None else clean_ppl,
        link_dynamics=dynamics.kind,
        drift_per_layer=dynamics.drift_per_layer,
        correlation=dynamics.correlation or 0.0,
        trace_RK=read_trace(problem),
        observe_step=problem.observe_step,
    )
