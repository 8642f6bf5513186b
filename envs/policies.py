"""Policies to compare agents with, and what a policy is.

A policy is any callable (split_points_N, link_states_NK, steps_N) -> actions_N in {0, 1, 2}, which
mean -1, 0, +1. One that also has `action_probabilities` is evaluated as stochastic.

Shape suffixes: N states, n of them at one split point, K link coordinates, T steps, P split points,
M nodes of the link.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from envs.checks import checked_actions
from envs.params import ACTIONS
from raysplit.base.arrays import FloatArray, IntArray

_MOST_DISTANCES = 2**22  # held at a time: 32 MiB


class Policy(Protocol):
    """Chooses an action in each of N states."""

    def __call__(
        self, split_points_N: IntArray, link_states_NK: FloatArray, steps_N: IntArray
    ) -> IntArray:
        """Return actions in {0, 1, 2}, shape (N,)."""
        ...


@runtime_checkable
class StochasticPolicy(Policy, Protocol):
    """A policy that gives its action probabilities."""

    def action_probabilities(
        self, split_points_N: IntArray, link_states_NK: FloatArray, steps_N: IntArray
    ) -> FloatArray:
        """Return the probability of each action, shape (N, 3)."""
        ...


def action_probabilities(
    policy: Policy, split_points_N: IntArray, link_states_NK: FloatArray, steps_N: IntArray
) -> FloatArray:
    """Return the probability of each action, shape (N, 3), of either kind of policy.

    Raises:
        UserError: If a policy does not give one action 0, 1 or 2 for each state.
    """
    if isinstance(policy, StochasticPolicy):
        return policy.action_probabilities(split_points_N, link_states_NK, steps_N)
    actions = policy(split_points_N, link_states_NK, steps_N)
    return np.eye(ACTIONS)[checked_actions(actions, len(split_points_N))]


class RandomPolicy:
    """Every action with the same probability."""

    def __init__(self, seed: int | np.random.Generator = 0) -> None:
        """Seed the draws of actions; `action_probabilities` draws nothing."""
        self._generator = np.random.default_rng(seed)

    def __call__(
        self, split_points_N: IntArray, link_states_NK: FloatArray, steps_N: IntArray
    ) -> IntArray:
        """Draw actions."""
        return self._generator.integers(0, ACTIONS, size=len(split_points_N))

    def action_probabilities(
        self, split_points_N: IntArray, link_states_NK: FloatArray, steps_N: IntArray
    ) -> FloatArray:
        """Return one third for each action."""
        return np.full((len(split_points_N), ACTIONS), 1 / ACTIONS)


class StayPolicy:
    """Never moves."""

    def __call__(
        self, split_points_N: IntArray, link_states_NK: FloatArray, steps_N: IntArray
    ) -> IntArray:
        """Return action 1 everywhere."""
        return np.ones(len(split_points_N), dtype=np.int64)


@dataclass(frozen=True, slots=True)
class FixedPolicy:
    """Goes to one split point, a layer a step, and stays there."""

    split_point: int

    def __call__(
        self, split_points_N: IntArray, link_states_NK: FloatArray, steps_N: IntArray
    ) -> IntArray:
        """Return the action towards the split point."""
        # In int64: the difference of unsigned numbers has no sign.
        return np.sign(int(self.split_point) - split_points_N.astype(np.int64, copy=False)) + 1


@dataclass(frozen=True, slots=True, eq=False)
class TabularPolicy:
    """Looks its action up at the nearest node of a table (`Oracle.optimal_policy` and others).

    Attributes:
        first_split_point: The split point of index 0.
        links_PMK: Link state of each node.
        span_K: Width of each coordinate's range; distances are relative to it.
        actions_TPM: Action at each step, split point and node.
    """

    first_split_point: int
    links_PMK: FloatArray
    span_K: FloatArray
    actions_TPM: IntArray

    def __call__(
        self, split_points_N: IntArray, link_states_NK: FloatArray, steps_N: IntArray
    ) -> IntArray:
        """Return the actions of the nearest nodes, the first of those equally near."""
        actions_N = np.empty(len(split_points_N), dtype=np.int64)
        index_N = split_points_N - self.first_split_point
        for p in np.unique(index_N):
            of_p = index_N == p
            nodes_n = self._nearest(int(p), link_states_NK[of_p])
            actions_N[of_p] = self.actions_TPM[steps_N[of_p], p, nodes_n]
        return actions_N

    def _nearest(self, p: int, links_nK: FloatArray) -> IntArray:
        """Return the nodes nearest to link states, a slice of them at a time.

        A long trace has as many nodes as it has states to look up.
        """
        from scipy.spatial.distance import cdist  # loads slowly; no agent needs it

        nodes_MK = self.links_PMK[p]
        rows = max(1, _MOST_DISTANCES // len(nodes_MK))
        slices = (links_nK[begin : begin + rows] for begin in range(0, len(links_nK), rows))
        distances = (cdist(links, nodes_MK, "sqeuclidean", w=self.span_K**-2) for links in slices)
        return np.concatenate([distance_nM.argmin(axis=1) for distance_nM in distances])
