"""What one run shows of perplexity and of learning: the panels of Fig. 3 and Fig. 5.

They read a run folder and need neither its surrogate nor its policies, so that several runs can be
put side by side.
"""

from __future__ import annotations

import json

import numpy as np

from envs.grid import FloatArray, IntArray
from envs.problem import LOWER_IS_WORSE
from raysplit.figures import (
    Band,
    LearningPanel,
    PPLCurve,
    PPLPanel,
    band_over_seeds,
    coordinate_label,
)
from raysplit.measure.table import Measurements
from raysplit.run_folder import RunFolder
from raysplit.stages.train import agent_folder
from tuning.train import load_agent

_SHOWN_STATES = 6
_Z95 = 1.96
_WINDOWS = 10  # a learning curve is a moving mean over a tenth of the run


def perplexity_panel(table: Measurements, title: str = "PPL against the split point") -> PPLPanel:
    """Return measured PPL against the split point for a handful of the table's link states."""
    states_GK = np.unique(table.link_states_NK, axis=0)
    if table.link_names[0] in LOWER_IS_WORSE:
        states_GK = states_GK[::-1]  # a panel goes from mild to harsh
    return PPLPanel(
        title=title,
        curves=[
            PPLCurve(
                label=state_label(table.link_names, state_K), band=perplexity_band(table, state_K)
            )
            for state_K in states_GK[shown_states(states_GK)]
        ],
        clean_ppl=float(np.exp(table.clean_log_ppl)),
    )


def perplexity_band(table: Measurements, state_K: FloatArray) -> Band:
    """Return measured PPL and its 95 % interval over the split points, at one link state."""
    here_N = np.asarray(np.isclose(table.link_states_NK, state_K).all(axis=1))
    part = table.select(here_N)
    order = np.argsort(part.split_points_N)
    log_ppl, half = part.log_ppl_N[order], _Z95 * part.stderr_N[order]
    return Band(
        x=part.split_points_N[order].astype(float),
        centre=np.exp(log_ppl),
        low=np.exp(log_ppl - half),
        high=np.exp(log_ppl + half),
    )


def learning_panel(folder: RunFolder, title: str | None = None) -> LearningPanel:
    """Return the learning curves of an evaluated run, each agent's over its seeds.

    The two lines are the surrogate's, unless no agent learned from it. An agent that learned from
    another source is drawn at the share of that source's gap: the two differ by what the
    surrogate gets wrong, which is no learning.
    """
    ends = json.loads((folder.path / "evaluation.json").read_text())["problem"]
    agents = folder.experiment.agents
    source_of = {
        name: "surrogate" if config.rewards == "surrogate" else "measured"
        for name, config in agents.items()
    }
    shown = "surrogate" if "surrogate" in source_of.values() else "measured"
    return LearningPanel(
        title=title or f"Case {folder.experiment.problem.case}",
        curves={
            name: _at_equal_share(learning_curve(folder, name), ends[source_of[name]], ends[shown])
            for name in agents
        },
        random_return=ends[shown]["random_return"],
        optimal_return=ends[shown]["optimal_return"],
    )


def _at_equal_share(band: Band, own: dict[str, float], shown: dict[str, float]) -> Band:
    """Return the curve on the scale of `shown`, at the share of the gap that it has on its own."""
    if own is shown:
        return band
    gaps = [ends["optimal_return"] - ends["random_return"] for ends in (own, shown)]
    stretch = gaps[1] / gaps[0] if gaps[0] > 0 else 1.0
    centre, low, high = (
        shown["random_return"] + (returns - own["random_return"]) * stretch
        for returns in (band.centre, band.low, band.high)
    )
    return Band(x=band.x, centre=centre, low=low, high=high)


def learning_curve(folder: RunFolder, name: str) -> Band:
    """Return an agent's mean return over env steps, with its band over the seeds.

    It is the return of the episodes played in training, as a moving mean: a single iteration's
    episodes say more about the link states they met than about the agent.
    """
    seeds = folder.experiment.agents[name].seeds
    agents = [load_agent(agent_folder(folder, name, seed)) for seed in seeds]
    points = [
        [(p.step, p.episode_return) for p in agent.curve if p.episode_return is not None]
        for agent in agents
    ]
    return band_over_seeds([_moving_mean(np.array(of_seed)) for of_seed in points])


def _moving_mean(curve_T2: FloatArray) -> FloatArray:
    window = max(1, len(curve_T2) // _WINDOWS)
    kernel = np.full(window, 1 / window)
    steps, returns = (np.convolve(column, kernel, mode="valid") for column in curve_T2.T)
    return np.stack([steps, returns], axis=1)


def shown_states(states_GK: FloatArray) -> IntArray:
    """Return indices of a handful of link states, spread over the grid, both ends among them."""
    return np.unique(np.linspace(0, len(states_GK) - 1, _SHOWN_STATES).round().astype(int))


def state_label(names: tuple[str, ...], state_K: FloatArray) -> str:
    """Return a link state in words, such as "noise σ = 0.4"."""
    return ", ".join(
        f"{coordinate_label(name)} = {value:g}" for name, value in zip(names, state_K, strict=True)
    )
