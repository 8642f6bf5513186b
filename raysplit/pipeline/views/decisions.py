"""What the best agent decides as the link gets worse: the paper's Fig. 7.

Shape suffixes: N decisions, G link states of the grid, K link coordinates, P starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from raysplit.base.arrays import FloatArray, IntArray
from raysplit.figures import Decisions
from raysplit.pipeline.oracles import Oracles
from raysplit.pipeline.views.convergence import converged_places

_DECISIONS = 500
_SEED = 2**20 + 1  # apart from the episodes' and from every agent's


def best_agents_decisions(oracles: Oracles, evaluation: Mapping[str, Any]) -> Decisions:
    """Return where the agent that is best on measured perplexity converges in random link states.

    Link states are uniform on their ranges and starts are the problem's own (with its first codec);
    the agent's seeds take turns. With several link coordinates, the optimum is averaged over all
    but the first.
    """
    params = oracles.params
    best = best_agent(evaluation)
    rng = np.random.default_rng(_SEED)
    span_K = params.link_high_K - params.link_low_K
    states_NK = params.link_low_K + span_K * rng.random((_DECISIONS, len(span_K)))
    first, last = params.start_split_points
    starts_N = rng.integers(first, last + 1, size=_DECISIONS)
    chosen_N = np.empty(_DECISIONS, dtype=np.int64)
    policies = list(oracles.agents[best].values())
    for turn, policy in enumerate(policies):
        mine = slice(turn, None, len(policies))
        converged_NP = converged_places(params, policy, states_NK[mine])
        column_N = params.places(starts_N[mine], np.zeros_like(starts_N[mine]))[:, None]
        places_N = np.take_along_axis(converged_NP, column_N, axis=1)[:, 0]
        chosen_N[mine] = params.split_points_P[places_N]
    return Decisions(
        coordinate=params.link_names[0],
        agent=best,
        seeds=len(policies),
        x_N=states_NK[:, 0],
        split_points_N=chosen_N,
        optimum=_optimum(oracles.measured.link_states_GK, oracles),
        split_points=(params.min_split_point, params.max_split_point),
    )


def best_agent(evaluation: Mapping[str, Any]) -> str:
    """Return the agent that closes most of the gap on measured perplexity."""
    agents: Mapping[str, Any] = evaluation["agents"]
    return max(agents, key=lambda name: agents[name]["measured"]["share_of_gap"])


def _optimum(states_GK: FloatArray, oracles: Oracles) -> tuple[FloatArray, FloatArray]:
    """The best split point along the first coordinate."""
    optimum_G: IntArray = oracles.measured.optimal_static_split_points()
    values = np.unique(states_GK[:, 0])
    return values, np.array([optimum_G[states_GK[:, 0] == value].mean() for value in values])
