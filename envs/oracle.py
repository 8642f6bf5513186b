"""The exact optimum of a problem by dynamic programming, and the exact return of any policy.

States are (step, split point, link state); the link is a finite chain (`link_chain.py`): exact for
a constant link started from the grid and for a trace, and as fine as its grid for a random link.
Returns are expectations over the case's starts, discounted by the problem's `discount` (default 1).

Shape suffixes: T steps, A actions, P split points, M nodes of the link, G grid points,
K link coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from envs.checks import check_source, checked_actions
from envs.dynamics import reward, targets_of_actions
from envs.link_chain import grid_states, link_chain
from envs.params import ACTIONS, LayerSplitParams
from envs.policies import (
    FixedPolicy,
    Policy,
    RandomPolicy,
    StayPolicy,
    TabularPolicy,
    action_probabilities,
)
from envs.sources import PPLSource
from raysplit.base.arrays import FloatArray, IntArray
from raysplit.base.errors import UserError

_MOST_SETTINGS = 2_000_000


class Oracle:
    """Exact values on one problem with one source of perplexity.

    Attributes:
        params: The problem.
        grid_points: Grid points per link coordinate.
        link_states_GK: The link states of the grid.
        chain: The finite chain that stands for the link.
        source: Where perplexities come from.
        rewards_PM: Reward of arriving at each split point and node.
        static_rewards_PG: The same at each link state of the grid.
        values_TPM: Optimal value before each step.
        actions_TPM: Optimal action at each step; of equal ones the first (-1 before 0 before +1).
        optimal_return: Expected return of the optimal policy.
        random_return: Expected return of the uniformly random policy.
    """

    def __init__(
        self,
        params: LayerSplitParams,
        source: PPLSource,
        *,
        grid_points: Sequence[int] | None = None,
    ) -> None:
        """Ask the source for every split point and node, and solve the problem.

        Under drift and on a trace the nodes are not the grid's link states, and the source is asked
        for those too.

        Args:
            params: The problem.
            source: Where perplexities come from.
            grid_points: Grid points per link coordinate; by default the problem's own.

        Raises:
            UserError: If the source cannot serve the reward or gives a value that is not finite.
        """
        check_source(params, source)
        self.params = params
        self.source = source
        self.grid_points = tuple(
            map(int, params.grid_points if grid_points is None else grid_points)
        )
        self.link_states_GK = grid_states(params, self.grid_points)
        self.chain = link_chain(params, self.grid_points)
        self._targets_AP = targets_of_actions(params)
        self.rewards_PM = self._rewards(self.chain.links_PMK)
        self.static_rewards_PG = self._rewards_on_grid()
        self.values_TPM, self.actions_TPM = self._optimum()
        self.optimal_return = self._expected(self.values_TPM[0])
        self.random_return = self.policy_return(RandomPolicy())

    def policy_values(self, policy: Policy) -> FloatArray:
        """Return a policy's expected return from each split point and node, shape (P, M)."""
        values_PM = np.zeros_like(self.rewards_PM)
        for step in reversed(range(self.params.episode_steps)):
            chance_APM = self._probabilities(policy, step)
            values_PM = (chance_APM * self._action_values(values_PM)).sum(axis=0)
        return values_PM

    def policy_return(self, policy: Policy) -> float:
        """Return a policy's expected return over the case's starts, by exact enumeration."""
        return self._expected(self.policy_values(policy))

    def plan_return(self, actions_TPM: ArrayLike) -> float:
        """Return the expected return of another oracle's plan, made on the same grid.

        Raises:
            UserError: If it is not an action 0, 1 or 2 for each step, split point and node.
        """
        plan_TPM = checked_actions(np.ravel(actions_TPM), self.actions_TPM.size)
        values_PM = np.zeros_like(self.rewards_PM)
        for actions_PM in plan_TPM.reshape(self.actions_TPM.shape)[::-1]:
            q_APM = self._action_values(values_PM)
            values_PM = np.take_along_axis(q_APM, actions_PM[None], axis=0)[0]
        return self._expected(values_PM)

    def regret(self, policy_return: float) -> float:
        """Return how far a return is below the optimum."""
        return self.optimal_return - policy_return

    def share_of_gap(self, policy_return: float) -> float:
        """Return (return - random) / (optimum - random), see `share_of_gap`."""
        return share_of_gap(policy_return, self.random_return, self.optimal_return)

    def best_fixed(self) -> tuple[int, float]:
        """Return the best fixed split point and its expected return (see `FixedPolicy`)."""
        returns = [self.policy_return(FixedPolicy(int(p))) for p in self.params.split_points_P]
        best = int(np.argmax(returns))
        return self.params.min_split_point + best, returns[best]

    def optimal_static_split_points(self) -> IntArray:
        """Return the split point with the best reward at each grid link state (Eq. 7), shape (G,).

        The best place to end up while the link does not change.
        """
        return self.params.min_split_point + self.static_rewards_PG.argmax(axis=0)

    def optimal_policy(self) -> TabularPolicy:
        """Return the optimal policy; between grid points it takes the nearest one's action.

        Raises:
            UserError: If the link follows a trace: its optimum uses the rows to come.
        """
        if self.params.link_dynamics == "trace":
            raise UserError(
                "the optimum over a trace uses the rows to come, so it is no policy of the state; "
                "compare returns with optimal_return"
            )
        return self._tabular(self.actions_TPM)

    def greedy_policy(self) -> TabularPolicy:
        """Return the policy that takes the best next reward as if the link stayed as it is."""
        actions_PM = self.rewards_PM[self._targets_AP].argmax(axis=0)
        steps = self.params.episode_steps
        return self._tabular(np.broadcast_to(actions_PM, (steps, *actions_PM.shape)))

    def baselines(self) -> dict[str, Policy]:
        """Return the policies that agents are compared with, by name."""
        fixed = {f"fixed {p}": FixedPolicy(int(p)) for p in self.params.split_points_P}
        return {
            "random": RandomPolicy(),
            "stay": StayPolicy(),
            "greedy": self.greedy_policy(),
            **fixed,
        }

    def _optimum(self) -> tuple[FloatArray, IntArray]:
        shape = (self.params.episode_steps, *self.rewards_PM.shape)
        values_TPM, actions_TPM = np.zeros(shape), np.zeros(shape, dtype=np.int64)
        later_PM = np.zeros_like(self.rewards_PM)
        for step in reversed(range(self.params.episode_steps)):
            q_APM = self._action_values(later_PM)
            actions_TPM[step] = q_APM.argmax(axis=0)
            values_TPM[step] = later_PM = q_APM.max(axis=0)
        return values_TPM, actions_TPM

    def _action_values(self, later_PM: FloatArray) -> FloatArray:
        """Return Q of each action, given the values after it (Bellman's equation)."""
        arrived_PM = self.rewards_PM + self.params.discount * later_PM
        return self.chain.expected(arrived_PM)[self._targets_AP]

    def _probabilities(self, policy: Policy, step: int) -> FloatArray:
        split_points_N, links_NK = _flat_states(self.params, self.chain.links_PMK)
        steps_N = np.full(len(split_points_N), step)
        chance_NA = action_probabilities(policy, split_points_N, links_NK, steps_N)
        return chance_NA.T.reshape(ACTIONS, *self.rewards_PM.shape)

    def _expected(self, values_PM: FloatArray) -> float:
        return float((self.chain.start_PM * values_PM).sum())

    def _rewards(self, links_PMK: FloatArray) -> FloatArray:
        split_points_N, links_NK = _flat_states(self.params, links_PMK)
        rewards_N = reward(self.params, self.source, split_points_N, links_NK)
        return rewards_N.reshape(links_PMK.shape[:2])

    def _rewards_on_grid(self) -> FloatArray:
        if self.params.link_dynamics != "trace" and not self.params.drift_per_layer:
            return self.rewards_PM  # the nodes are the grid
        shape = (len(self.params.split_points_P), *self.link_states_GK.shape)
        return self._rewards(np.broadcast_to(self.link_states_GK, shape))

    def _tabular(self, actions_TPM: IntArray) -> TabularPolicy:
        return TabularPolicy(
            self.params.min_split_point,
            self.chain.links_PMK,
            self.params.link_high_K - self.params.link_low_K,
            actions_TPM,
        )


def share_of_gap(policy_return: float, random_return: float, optimal_return: float) -> float:
    """Return (return - random) / (optimum - random): 0 for random, 1 for the optimum.

    NaN where random is already optimal, so that there is no gap.
    """
    gap = optimal_return - random_return
    return (policy_return - random_return) / gap if gap > 0 else float("nan")


def moved_by_grid(oracle: Oracle) -> float | None:
    """Return how far a random link's optimum moves on a grid twice as fine, as a share of the gap.

    None where the grid decides nothing (a constant link is scored at the grid's own link states, a
    trace at its rows) and where the finer grid has more than two million settings.
    """
    if oracle.params.link_dynamics not in ("iid", "gauss_markov"):
        return None
    gap = oracle.optimal_return - oracle.random_return
    finer = [2 * points - 1 for points in oracle.grid_points]
    settings = math.prod(finer) * len(oracle.params.split_points_P)
    if settings > _MOST_SETTINGS or gap <= 0:
        return None
    refined = Oracle(oracle.params, oracle.source, grid_points=finer)
    return abs(refined.optimal_return - oracle.optimal_return) / gap


def _flat_states(params: LayerSplitParams, links_PMK: FloatArray) -> tuple[IntArray, FloatArray]:
    """Return split points (N,) and link states (N, K) of all N = P * M states."""
    nodes, coordinates = links_PMK.shape[1:]
    return np.repeat(params.split_points_P, nodes), links_PMK.reshape(-1, coordinates)
