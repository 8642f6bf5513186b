"""What the best agent and the exact optimum choose along a trace.

Shape suffixes: T decision steps, K link coordinates, P split points, M and R rows of the trace.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from envs.actions import arrived
from envs.params import LayerSplitParams
from envs.policies import asked_of_policy
from raysplit.base.arrays import IntArray
from raysplit.figures import TraceWalk
from raysplit.pipeline.oracles import Oracles
from raysplit.pipeline.views.decisions import best_agent

_MOST_STEPS = 240


def trace_walk(oracles: Oracles, evaluation: Mapping[str, Any]) -> TraceWalk | None:
    """Return the walk along the trace's first rows, None where the link follows no trace.

    Episodes follow one another; the first starts in the middle of the problem's starts, every
    other where its policy ended the one before. The agent that is best on measured perplexity
    plays with its first seed. Split points stand beside the link state that they are paid in.
    """
    params = oracles.params
    if params.link_dynamics != "trace":
        return None
    name = best_agent(evaluation)
    policy = next(iter(oracles.agents[name].values()))
    optimum_TPM = oracles.measured.actions_TPM

    def of_agent(place_1: IntArray, row: int, step: int) -> IntArray:
        codecs = asked_of_policy(params, params.codecs_P[place_1])
        seen = params.split_points_P[place_1], params.trace_RK[[row]], np.array([step])
        return policy(*seen, *codecs)

    def of_optimum(place_1: IntArray, row: int, step: int) -> IntArray:
        return optimum_TPM[[step], place_1, row]

    episodes = min(len(params.trace_RK) - 1, _MOST_STEPS) // params.episode_steps
    steps = max(episodes, 1) * params.episode_steps
    paid_RK = params.trace_RK[1 : steps + 1]
    return TraceWalk(
        links={link: paid_RK[:, k] for k, link in enumerate(params.link_names)},
        agent=name,
        chosen_T=_walked(params, of_agent, steps),
        optimum_T=_walked(params, of_optimum, steps),
        split_points=(params.min_split_point, params.max_split_point),
        episode_steps=params.episode_steps,
    )


def _walked(
    params: LayerSplitParams, action: Callable[[IntArray, int, int], IntArray], steps: int
) -> IntArray:
    """Return the split point after each step, (T,).

    Args:
        params: The problem.
        action: The action (1,) at a place (1,), a row of the trace and a step of the episode.
        steps: How many.
    """
    first_1 = np.array([sum(params.start_split_points) // 2])
    place_1 = params.places(first_1, np.zeros_like(first_1))
    chosen: list[int] = []
    for row in range(steps):
        chosen_action = action(place_1, row, row % params.episode_steps)
        place_1 = arrived(params, place_1, chosen_action)
        chosen.append(int(params.split_points_P[place_1][0]))
    return np.array(chosen)
