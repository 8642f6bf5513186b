"""The exact optimum of a problem by dynamic programming, and the exact return of any policy.

States are (step, split point, link state); the link is a finite chain (`link_chain.py`): exact for
a constant link started from the grid and for a trace, and as fine as its grid for a random link.
Returns are expectations over the case's starts, discounted by the problem's `discount` (default 1).

Moving may cost something (`envs.dynamics.moving_cost`), over the link that the step meets. A link
that follows a path of fading is the Markov chain fitted to the path; one that follows a trace is
the trace, whose optimum knows the rows to come (see `planning_problem`).

Shape suffixes: T steps, A actions, P places (`envs.params`), M nodes of the link, G grid points,
K link coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from envs.actions import number_of_actions, targets_of_actions
from envs.checks import check_source, checked_actions
from envs.dynamics import moving_cost, reward
from envs.link_chain import MOST_FITTED_NODES, grid_states, link_chain
from envs.params import LayerSplitParams
from envs.policies import (
    FixedPolicy,
    Policy,
    RandomPolicy,
    StayPolicy,
    TabularPolicy,
    ThresholdPolicy,
    action_probabilities,
)
from envs.sources import PPLSource
from raysplit.base.arrays import FloatArray, IntArray
from raysplit.base.errors import UserError

_MOST_SETTINGS = 2_000_000
_MOST_VALUES = 100_000_000  # steps x places x nodes: 1.6 GB with the actions
_HORIZON = 3  # steps that `receding_horizon_policy` looks ahead


class Oracle:
    """Exact values on one problem with one source of perplexity.

    Attributes:
        params: The problem.
        grid_points: Grid points per link coordinate.
        link_states_GK: The link states of the grid.
        chain: The finite chain that stands for the link.
        source: Where perplexities come from.
        rewards_PM: Reward of arriving at each place and node.
        static_rewards_PG: The same at each link state of the grid.
        moving_APM: What each action's move costs at each node; zeros (A, 1, 1) where it is free.
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
        if params.contexts:
            raise UserError("a family is solved member by member (envs.family.member)")
        self.params = params
        self.source = source
        self.grid_points = tuple(
            map(int, params.grid_points if grid_points is None else grid_points)
        )
        self.link_states_GK = grid_states(params, self.grid_points)
        self.chain = link_chain(params, self.grid_points)
        self._targets_AP = targets_of_actions(params)
        self.rewards_PM = self._rewards(self.chain.links_PMK)
        self.moving_APM = self._moving()
        self._expected_moving_APM = self.moving_APM
        if params.moving_PPX.size:
            self._expected_moving_APM = np.stack(list(map(self.chain.expected, self.moving_APM)))
        self.static_rewards_PG = self._rewards_on_grid()
        self.values_TPM, self.actions_TPM = self._optimum(params.episode_steps)
        self.optimal_return = self._expected(self.values_TPM[0])
        self.random_return = self.policy_return(RandomPolicy(actions=len(self._targets_AP)))

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

    def moving_cost(self, policy: Policy) -> float:
        """Return how much of a policy's expected return its moves cost, at least 0."""
        paid_PM = np.zeros_like(self.rewards_PM)
        for step in reversed(range(self.params.episode_steps)):
            later_PM = self.chain.expected(self.params.discount * paid_PM)
            paid_APM = later_PM[self._targets_AP] + self._expected_moving_APM
            paid_PM = (self._probabilities(policy, step) * paid_APM).sum(axis=0)
        return self._expected(paid_PM)

    def plan_return(self, actions_TPM: ArrayLike) -> float:
        """Return the expected return of another oracle's plan, made on the same grid.

        Raises:
            UserError: If it is not one of the problem's actions for each step, place and node.
        """
        plan_TPM = checked_actions(
            np.ravel(actions_TPM), self.actions_TPM.size, len(self._targets_AP)
        )
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
        """Return the best fixed split point and its expected return (see `FixedPolicy`).

        Where the problem chooses the codec, with the codec that is best with it.
        """
        place, best_return = self.best_fixed_place()
        return int(self.params.split_points_P[place]), best_return

    def best_fixed_place(self) -> tuple[int, float]:
        """Return the index of the best fixed place and its expected return."""
        returns = [self.policy_return(policy) for policy in fixed_policies(self.params).values()]
        best = int(np.argmax(returns))
        return best, returns[best]

    def optimal_static_places(self) -> IntArray:
        """Return the place with the best reward at each grid link state (Eq. 7), shape (G,).

        The best one to end up in while the link does not change.
        """
        return self.static_rewards_PG.argmax(axis=0)

    def optimal_static_split_points(self) -> IntArray:
        """Return the split points of `optimal_static_places`, shape (G,)."""
        return self.params.split_points_P[self.optimal_static_places()]

    def optimal_policy(self) -> TabularPolicy:
        """Return the optimal policy; between grid points it takes the nearest one's action.

        Raises:
            UserError: If the link follows a trace: its optimum uses the rows to come.
        """
        self._refuse_trace()
        return self._tabular(self.actions_TPM)

    def greedy_policy(self) -> TabularPolicy:
        """Return the policy that takes the best next reward as if the link stayed as it is."""
        next_APM = self.rewards_PM[self._targets_AP] - self.moving_APM
        return self._tabular(next_APM.argmax(axis=0)[None])

    def threshold_policy(self) -> ThresholdPolicy:
        """Return a rule of one threshold on the first link coordinate and two places.

        Fitted on the same rewards: of all thresholds between grid points the one whose two places
        have the best expected reward over where episodes start, as if the link stayed and moves
        cost nothing.
        """
        order_G = np.argsort(self.link_states_GK[:, 0], kind="stable")
        x_G = self.link_states_GK[order_G, 0]
        weighted_PG = (self.static_rewards_PG * self.chain.grid_shares_G)[:, order_G]
        below_PG = np.cumsum(weighted_PG, axis=1)
        above_PG = below_PG[:, -1:] - below_PG
        cuts = np.flatnonzero(np.diff(x_G) > 0)
        best = int(cuts[np.argmax((below_PG.max(axis=0) + above_PG.max(axis=0))[cuts])])
        return ThresholdPolicy(
            self.params,
            float((x_G[best] + x_G[best + 1]) / 2),
            int(below_PG[:, best].argmax()),
            int(above_PG[:, best].argmax()),
        )

    def receding_horizon_policy(self, horizon: int = _HORIZON) -> TabularPolicy:
        """Return the policy that plans so many steps ahead at each step, under the link's chain.

        Raises:
            UserError: If the link follows a trace, whose chain knows the rows to come.
        """
        self._refuse_trace()
        values_TPM, actions_TPM = self._optimum(min(horizon, self.params.episode_steps))
        steps_left = np.arange(self.params.episode_steps, 0, -1)
        ahead = np.minimum(steps_left, len(values_TPM))
        return self._tabular(actions_TPM[len(values_TPM) - ahead])

    def stationary_policy(self, discount: float, tolerance: float = 1e-9) -> TabularPolicy:
        """Return the optimal policy of an endless episode, by value iteration.

        Args:
            discount: Of later rewards, below 1.
            tolerance: Values are this near to the optimal ones, relative to the largest reward.

        Raises:
            UserError: If the discount is not below 1, or the link follows a trace.
        """
        return self._tabular(self._endless(discount, tolerance)[1][None])

    def endless_values(self, discount: float, tolerance: float = 1e-9) -> FloatArray:
        """Return the optimal values (P, M) of an endless episode; raises as `stationary_policy`."""
        return self._endless(discount, tolerance)[0]

    def baselines(self) -> dict[str, Policy]:
        """Return the policies that agents are compared with, by name."""
        return {
            "random": RandomPolicy(actions=number_of_actions(self.params)),
            "stay": StayPolicy(self.params),
            "greedy": self.greedy_policy(),
            "threshold": self.threshold_policy(),
            **fixed_policies(self.params),
        }

    def planners(self) -> dict[str, Policy]:
        """Return what plans with the link's own chain, by name; nothing over a trace."""
        if self.params.link_dynamics == "trace":
            return {}
        return {
            "receding horizon": self.receding_horizon_policy(),
            "planner": self.optimal_policy(),
        }

    def _optimum(self, steps: int) -> tuple[FloatArray, IntArray]:
        shape = (steps, *self.rewards_PM.shape)
        _refuse_too_large(shape)
        values_TPM, actions_TPM = np.zeros(shape), np.zeros(shape, dtype=np.int64)
        later_PM = np.zeros_like(self.rewards_PM)
        for step in reversed(range(steps)):
            q_APM = self._action_values(later_PM)
            actions_TPM[step] = q_APM.argmax(axis=0)
            values_TPM[step] = later_PM = q_APM.max(axis=0)
        return values_TPM, actions_TPM

    def _endless(self, discount: float, tolerance: float) -> tuple[FloatArray, IntArray]:
        self._refuse_trace()
        if not 0 <= discount < 1:
            raise UserError(
                f"discount {discount:g}: an endless episode needs one from 0 to below 1"
            )
        values_PM = np.zeros_like(self.rewards_PM)
        close = tolerance * max(float(np.abs(self.rewards_PM).max()), 1e-300)
        # A change below that leaves the values within `close` (Puterman 1994, Theorem 6.3.1).
        close *= (1 - discount) / max(2 * discount, 1e-300)
        while True:
            q_APM = self._action_values(values_PM, discount)
            change = float(np.abs(q_APM.max(axis=0) - values_PM).max())
            values_PM = q_APM.max(axis=0)
            if change <= close:
                return values_PM, q_APM.argmax(axis=0)

    def _action_values(self, later_PM: FloatArray, discount: float | None = None) -> FloatArray:
        """Return Q of each action, given the values after it (Bellman's equation)."""
        discount = self.params.discount if discount is None else discount
        arrived_PM = self.rewards_PM + discount * later_PM
        return self.chain.expected(arrived_PM)[self._targets_AP] - self._expected_moving_APM

    def _moving(self) -> FloatArray:
        """Return what each action's move costs at each node, (A, P, M)."""
        actions, (places, nodes) = len(self._targets_AP), self.rewards_PM.shape
        if not self.params.moving_PPX.size:
            return np.zeros((actions, 1, 1))
        from_P = np.arange(places, dtype=np.int64)
        from_N: IntArray = np.tile(np.repeat(from_P, nodes), actions)
        to_N = np.repeat(self._targets_AP.ravel(), nodes)
        # Where the action leads: under drift the link is another there.
        links_NK = self.chain.links_PMK[self._targets_AP].reshape(len(to_N), -1)
        return moving_cost(self.params, from_N, to_N, links_NK).reshape(actions, places, nodes)

    def _probabilities(self, policy: Policy, step: int) -> FloatArray:
        split_points_N, links_NK, codecs_N = _flat_states(self.params, self.chain.links_PMK)
        steps_N = np.full(len(split_points_N), step)
        chance_NA = action_probabilities(
            self.params, policy, split_points_N, links_NK, steps_N, codecs_N
        )
        return chance_NA.T.reshape(-1, *self.rewards_PM.shape)

    def _expected(self, values_PM: FloatArray) -> float:
        return float((self.chain.start_PM * values_PM).sum())

    def _rewards(self, links_PMK: FloatArray) -> FloatArray:
        rewards_N = reward(self.params, self.source, *_flat_states(self.params, links_PMK))
        return rewards_N.reshape(links_PMK.shape[:2])

    def _rewards_on_grid(self) -> FloatArray:
        if self.params.link_dynamics != "trace" and not self.params.drift_per_layer:
            return self.rewards_PM  # the nodes are the grid
        shape = (len(self.rewards_PM), *self.link_states_GK.shape)
        return self._rewards(np.broadcast_to(self.link_states_GK, shape))

    def _tabular(self, actions_TPM: IntArray) -> TabularPolicy:
        return TabularPolicy(self.params, self.chain.links_PMK, actions_TPM)

    def _refuse_trace(self) -> None:
        if self.params.link_dynamics == "trace":
            raise UserError(
                "the optimum over a trace uses the rows to come, so it is no policy of the state; "
                "plan on envs.oracle.planning_problem, or compare returns with optimal_return"
            )


def fixed_policies(params: LayerSplitParams) -> dict[str, FixedPolicy]:
    """Return a policy that goes to each place, by the name that reports show."""
    found: dict[str, FixedPolicy] = {}
    for p, codec in zip(params.split_points_P.tolist(), params.codecs_P.tolist(), strict=True):
        with_codec = f" {params.codecs[codec]}" if params.chooses_codec else ""
        found[f"fixed {p}{with_codec}"] = FixedPolicy(params, p, codec)
    return found


def share_of_gap(policy_return: float, random_return: float, optimal_return: float) -> float:
    """Return (return - random) / (optimum - random): 0 for random, 1 for the optimum.

    NaN where random is already optimal, so that there is no gap.
    """
    gap = optimal_return - random_return
    return (policy_return - random_return) / gap if gap > 0 else float("nan")


def moved_by_grid(oracle: Oracle) -> float | None:
    """Return how far a random link's optimum moves on a grid twice as fine, as a share of the gap.

    None where the grid decides nothing (a constant link is scored at the grid's own link states, a
    trace at its rows) and where the finer grid would be too large to solve.
    """
    if oracle.params.link_dynamics not in ("iid", "gauss_markov", "fading"):
        return None
    gap = oracle.optimal_return - oracle.random_return
    finer = [2 * points - 1 for points in oracle.grid_points]
    settings = math.prod(finer) * len(oracle.params.split_points_P)
    values = settings * oracle.params.episode_steps
    fitted = oracle.params.link_dynamics == "fading" and math.prod(finer) > MOST_FITTED_NODES
    if settings > _MOST_SETTINGS or values > _MOST_VALUES or fitted or gap <= 0:
        return None
    refined = Oracle(oracle.params, oracle.source, grid_points=finer)
    return abs(refined.optimal_return - oracle.optimal_return) / gap


def planning_problem(params: LayerSplitParams) -> LayerSplitParams:
    """Return a problem over a trace as what can be known of it: a chain fitted to its rows.

    Others are returned as they are. With `params.for_training()` no row of the later part is used.
    """
    if params.link_dynamics != "trace":
        return params
    return replace(params, link_dynamics="fading")


def _refuse_too_large(shape: tuple[int, ...]) -> None:
    if math.prod(shape) > _MOST_VALUES:
        steps, places, nodes = shape
        raise UserError(
            f"{steps} steps x {places} places x {nodes} nodes of the link are too many to solve "
            f"({math.prod(shape):,}; {_MOST_VALUES:,} fit): lower episode_steps or grid_points"
        )


def _flat_states(
    params: LayerSplitParams, links_PMK: FloatArray
) -> tuple[IntArray, FloatArray, IntArray]:
    """Return split points (N,), link states (N, K) and codecs (N,) of all N = P * M states."""
    nodes, coordinates = links_PMK.shape[1:]
    split_points_N, codecs_N = (
        np.repeat(x_P, nodes) for x_P in (params.split_points_P, params.codecs_P)
    )
    return split_points_N, links_PMK.reshape(-1, coordinates), codecs_N
