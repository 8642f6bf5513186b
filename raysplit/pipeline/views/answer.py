"""The answer of a run: where to split over the link, and how that moves with lambda.

Shape suffixes: G link states, C choices, P places (`envs.params`), K link coordinates.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from envs.oracle import Oracle
from envs.params import LayerSplitParams
from raysplit.base.arrays import FloatArray, IntArray
from raysplit.figures import AnswerLine, AnswerPlane, Band, CostWeightSweep
from raysplit.pipeline.baselines import best_fixed_place
from raysplit.pipeline.oracles import Oracles
from raysplit.pipeline.views.convergence import converged_places
from raysplit.pipeline.views.panels import shown_states, state_labels

_WEIGHT_FACTORS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


def answer_map(oracles: Oracles) -> AnswerLine | AnswerPlane:
    """Return the best split point over the measured link states, and where the agents converge."""
    params, measured = oracles.params, oracles.measured
    states_GK = measured.link_states_GK
    optimum_G = measured.optimal_static_split_points()
    converged = {
        name: np.concatenate([converged_places(params, p, states_GK) for p in by_seed.values()], 1)
        for name, by_seed in oracles.agents.items()
    }
    points_P = params.split_points_P
    best_G, fixed = measured.optimal_static_places(), best_fixed_place(oracles)
    ends = (params.min_split_point, params.max_split_point)
    if len(params.link_names) == 1:
        return AnswerLine(
            coordinate=params.link_names[0],
            values_X=states_GK[:, 0],
            split_points=ends,
            optimum_X=optimum_G,
            optimal_objective_X=_objective(measured, best_G[:, None]),
            choices={
                name: _spread(states_GK[:, 0], points_P[chosen])
                for name, chosen in converged.items()
            },
            objectives={name: _objective(measured, chosen) for name, chosen in converged.items()}
            | {
                _fixed_label(params, fixed): _objective(
                    measured, np.full_like(best_G, fixed)[:, None]
                )
            },
        )
    axes, (rows, keep) = _plane(states_GK)
    return AnswerPlane(
        coordinates=(params.link_names[0], params.link_names[1]),
        values_X=axes[0],
        values_Y=axes[1],
        split_points=ends,
        optimum_YX=optimum_G[keep].reshape(rows).T,
        choices={
            name: np.median(points_P[chosen], 1)[keep].reshape(rows).T
            for name, chosen in converged.items()
        },
    )


def weight_sweep(oracles: Oracles) -> CostWeightSweep | None:
    """Return how the optimum moves with lambda, on measured perplexity.

    With the reward `budget` all its weights move together, by a factor.
    """
    own, reward = oracles.params.cost_weight, oracles.params.reward
    if reward == "authors" or own == 0:
        return None
    weights = np.array([factor * own for factor in _WEIGHT_FACTORS])
    solved = [
        Oracle(
            dataclasses.replace(oracles.params, cost_weight=float(w)),
            oracles.measured.source,
            grid_points=oracles.measured.grid_points,
        )
        for w in weights
    ]
    states = oracles.measured.link_states_GK
    shown = shown_states(states)
    return CostWeightSweep(
        weights_W=weights,
        axis="factor on all weights" if reward == "budget" else "λ, weight of the UE's cost",
        chosen=_WEIGHT_FACTORS.index(1.0),
        states=state_labels(oracles.params.link_names, states[shown]),
        optimum_SW=np.stack([o.optimal_static_split_points()[shown] for o in solved], axis=1),
        split_points=(oracles.params.min_split_point, oracles.params.max_split_point),
        best_fixed_share_W=np.array([o.share_of_gap(o.best_fixed()[1]) for o in solved]),
    )


def _plane(states_GK: FloatArray) -> tuple[list[FloatArray], tuple[tuple[int, int], IntArray]]:
    """The first two coordinates' axes and the states with every other one at its lowest value."""
    axes = [np.unique(states_GK[:, k]) for k in (0, 1)]
    keep = np.flatnonzero((states_GK[:, 2:] == states_GK[:, 2:].min(axis=0)).all(axis=1))
    return axes, ((len(axes[0]), len(axes[1])), keep)


def _fixed_label(params: LayerSplitParams, place: int) -> str:
    codec = f", {params.codecs[params.codecs_P[place]]}" if params.chooses_codec else ""
    return f"fixed p = {params.split_points_P[place]}{codec}"


def _objective(oracle: Oracle, places_GC: IntArray) -> FloatArray:
    """Mean objective (the reward's negative) of choices over link states."""
    rewards_GC = np.take_along_axis(oracle.static_rewards_PG.T, places_GC, axis=1)
    return -rewards_GC.mean(axis=1)


def _spread(x: FloatArray, chosen_GC: IntArray) -> Band:
    return Band(
        x=x,
        centre=np.asarray(np.median(chosen_GC, axis=1)),
        low=chosen_GC.min(axis=1).astype(float),
        high=chosen_GC.max(axis=1).astype(float),
    )
