"""Policies to compare agents with, and what a policy is.

A policy is any callable (split_points_N, link_states_NK, steps_N) -> actions_N (`envs.actions`),
and gets codecs_N besides where the problem chooses the codec. One that also has
`action_probabilities` is evaluated as stochastic.

Shape suffixes: N states, n of them at one place, K link coordinates, T steps, P places, M nodes of
the link, A actions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from envs.actions import number_of_actions, towards
from envs.checks import checked_actions
from envs.params import LayerSplitParams
from raysplit.base.arrays import FloatArray, IntArray

_MOST_DISTANCES = 2**22  # held at a time: 32 MiB


class Policy(Protocol):
    """Chooses an action in each of N states."""

    def __call__(
        self,
        split_points_N: IntArray,
        link_states_NK: FloatArray,
        steps_N: IntArray,
        /,
        *codecs_N: IntArray,
    ) -> IntArray:
        """Return actions, shape (N,)."""
        ...


@runtime_checkable
class StochasticPolicy(Policy, Protocol):
    """A policy that gives its action probabilities."""

    def action_probabilities(
        self,
        split_points_N: IntArray,
        link_states_NK: FloatArray,
        steps_N: IntArray,
        /,
        *codecs_N: IntArray,
    ) -> FloatArray:
        """Return the probability of each action, shape (N, A)."""
        ...


def asked_of_policy(params: LayerSplitParams, codecs_N: IntArray) -> tuple[IntArray, ...]:
    """Return what a policy gets besides split points, link states and steps."""
    return (codecs_N,) if params.chooses_codec else ()


def action_probabilities(
    params: LayerSplitParams,
    policy: Policy,
    split_points_N: IntArray,
    link_states_NK: FloatArray,
    steps_N: IntArray,
    codecs_N: IntArray,
) -> FloatArray:
    """Return the probability of each action, shape (N, A), of either kind of policy.

    Raises:
        UserError: If a policy does not give one of the problem's actions for each state.
    """
    asked = split_points_N, link_states_NK, steps_N, *asked_of_policy(params, codecs_N)
    if isinstance(policy, StochasticPolicy):
        return policy.action_probabilities(*asked)
    actions = number_of_actions(params)
    return np.eye(actions)[checked_actions(policy(*asked), len(split_points_N), actions)]


class RandomPolicy:
    """Every action with the same probability."""

    def __init__(self, seed: int | np.random.Generator = 0, actions: int = 3) -> None:
        """Seed the draws of so many actions; `action_probabilities` draws nothing."""
        self._generator = np.random.default_rng(seed)
        self._actions = actions

    def __call__(
        self,
        split_points_N: IntArray,
        link_states_NK: FloatArray,
        steps_N: IntArray,
        /,
        *codecs_N: IntArray,
    ) -> IntArray:
        """Draw actions."""
        return self._generator.integers(0, self._actions, size=len(split_points_N))

    def action_probabilities(
        self,
        split_points_N: IntArray,
        link_states_NK: FloatArray,
        steps_N: IntArray,
        /,
        *codecs_N: IntArray,
    ) -> FloatArray:
        """Return the same probability for each action."""
        return np.full((len(split_points_N), self._actions), 1 / self._actions)


@dataclass(frozen=True, slots=True, eq=False)
class GoalPolicy(ABC):
    """Goes to a place as fast as may be, and stays there.

    Attributes:
        params: The problem.
    """

    params: LayerSplitParams

    @abstractmethod
    def goals(self, places_N: IntArray, link_states_NK: FloatArray) -> IntArray:
        """Return the places to go to, from where each state is."""

    def __call__(
        self,
        split_points_N: IntArray,
        link_states_NK: FloatArray,
        steps_N: IntArray,
        /,
        *codecs_N: IntArray,
    ) -> IntArray:
        """Return the actions towards the goals."""
        # In int64: the difference of unsigned numbers has no sign.
        places_N = self.params.places(split_points_N.astype(np.int64, copy=False), *codecs_N)
        return towards(self.params, places_N, self.goals(places_N, link_states_NK))


@dataclass(frozen=True, slots=True, eq=False)
class StayPolicy(GoalPolicy):
    """Never moves."""

    def goals(self, places_N: IntArray, link_states_NK: FloatArray) -> IntArray:
        """Return where each state is."""
        return places_N


@dataclass(frozen=True, slots=True, eq=False)
class FixedPolicy(GoalPolicy):
    """Goes to one place, a layer and a codec a step, and stays there.

    Attributes:
        params: The problem.
        split_point: Where to.
        codec: Index of the codec that is taken there.
    """

    split_point: int
    codec: int = 0

    def goals(self, places_N: IntArray, link_states_NK: FloatArray) -> IntArray:
        """Return the one place."""
        row = int(self.split_point) - self.params.min_split_point
        return np.full_like(places_N, row * len(self.params.codecs) + self.codec)


@dataclass(frozen=True, slots=True, eq=False)
class ThresholdPolicy(GoalPolicy):
    """Goes to one place where the first link coordinate is below a threshold, else to another.

    `Oracle.threshold_policy` fits it.

    Attributes:
        params: The problem.
        threshold: Of the first link coordinate.
        place_below: Index of the place.
        place_above: Index of the other.
    """

    threshold: float
    place_below: int
    place_above: int

    def goals(self, places_N: IntArray, link_states_NK: FloatArray) -> IntArray:
        """Return the place of each link state."""
        below_N = link_states_NK[:, 0] < self.threshold
        return np.where(below_N, self.place_below, self.place_above)


@dataclass(frozen=True, slots=True, eq=False)
class TabularPolicy:
    """Looks its action up at the nearest node of a table (`Oracle.optimal_policy` and others).

    Attributes:
        params: The problem.
        links_PMK: Link state of each node.
        actions_TPM: Action at each step, place and node. Of a single step: at every step.
    """

    params: LayerSplitParams
    links_PMK: FloatArray
    actions_TPM: IntArray

    def __call__(
        self,
        split_points_N: IntArray,
        link_states_NK: FloatArray,
        steps_N: IntArray,
        /,
        *codecs_N: IntArray,
    ) -> IntArray:
        """Return the actions of the nearest nodes, the first of those equally near."""
        actions_N = np.empty(len(split_points_N), dtype=np.int64)
        index_N = self.params.places(split_points_N.astype(np.int64, copy=False), *codecs_N)
        if len(self.actions_TPM) == 1:
            steps_N = np.zeros_like(steps_N)
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
        # Distances are relative to the width of each coordinate's range.
        span_K = self.params.link_high_K - self.params.link_low_K
        rows = max(1, _MOST_DISTANCES // len(nodes_MK))
        slices = (links_nK[begin : begin + rows] for begin in range(0, len(links_nK), rows))
        distances = (cdist(links, nodes_MK, "sqeuclidean", w=span_K**-2) for links in slices)
        return np.concatenate([distance_nM.argmin(axis=1) for distance_nM in distances])
