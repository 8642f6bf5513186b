"""The policies that agents are compared with; all that is learned, is learned on the surrogate."""

from __future__ import annotations

import timeit
from collections.abc import Mapping
from functools import partial
from statistics import median

import numpy as np

from envs.oracle import Oracle, fixed_policies, planning_problem
from envs.params import LayerSplitParams
from envs.policies import Policy, asked_of_policy
from raysplit.pipeline.oracles import Oracles
from tuning.bandits import BANDITS, train_bandit

_SEED = 2**20 + 2  # of the bandits; no agent's


def decision_us(params: LayerSplitParams, policies: Mapping[str, Policy]) -> dict[str, float]:
    """Return how long each policy takes for one decision, in microseconds: a median of 50."""
    middle_1K = (params.link_low_K + params.link_high_K)[None] / 2
    place_1 = np.array([len(params.split_points_P) // 2])
    codecs = asked_of_policy(params, params.codecs_P[place_1])
    state = params.split_points_P[place_1], middle_1K, np.zeros(1, dtype=np.int64), *codecs
    found: dict[str, float] = {}
    for name, policy in policies.items():
        policy(*state)  # what is loaded or made at the first call
        found[name] = 1e6 * median(timeit.repeat(partial(policy, *state), number=1, repeat=50))
    return found


def best_fixed_name(oracles: Oracles) -> str:
    """Return the name of the fixed policy at `best_fixed_place`."""
    return list(fixed_policies(oracles.params))[best_fixed_place(oracles)]


def best_fixed_place(oracles: Oracles) -> int:
    """Return the index of the fixed place that is best on the surrogate, as agents learn on it."""
    return _planner(oracles).best_fixed_place()[0]


def _planner(oracles: Oracles) -> Oracle:
    """The surrogate's problem as far as it can be known: of a trace its first part."""
    return Oracle(
        planning_problem(oracles.trained_params),
        oracles.surrogate.source,
        grid_points=oracles.surrogate.grid_points,
    )


def baseline_policies(oracles: Oracles, bandit_steps: int) -> dict[str, Policy]:
    """Return the baselines by name.

    Over a trace, what is fitted or planned has seen its first part alone, as the agents have.

    Args:
        oracles: The solved problem.
        bandit_steps: Steps that each bandit learns from: as many as the agents.
    """
    source = oracles.surrogate.source
    planner = _planner(oracles)
    bandits: dict[str, Policy] = {
        kind: train_bandit(oracles.trained_params, source, kind, bandit_steps, _SEED)
        for kind in BANDITS
    }
    return {**planner.baselines(), **planner.planners(), **bandits}
