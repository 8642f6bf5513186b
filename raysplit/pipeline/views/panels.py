"""What one run shows of perplexity and of learning: the panels of Fig. 3 and Fig. 5; its plan.

They read a run folder and need neither its surrogate nor its policies, so that several runs can be
put side by side.

Shape suffixes: N rows, G link states of the grid, S those shown, K link coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from raysplit.base.arrays import FloatArray, IntArray
from raysplit.base.number_texts import distinct_texts
from raysplit.figures import (
    Band,
    EvaluationCurves,
    LearningPanel,
    PPLCurve,
    PPLPanel,
    band_over_seeds,
    coordinate_value,
)
from raysplit.link.codec import IDENTITY
from raysplit.link.state import LOWER_IS_WORSE
from raysplit.measure.table import Measurements
from raysplit.pipeline.active import read_choices
from raysplit.pipeline.oracles import read_evaluation
from raysplit.pipeline.run_folder import RunFolder
from tuning.agent import load_agent

_SHOWN_STATES = 6
_Z95 = 1.96


def perplexity_panels(tables: Mapping[str, Measurements]) -> list[PPLPanel]:
    """Return a panel for each codec, named by it unless hidden states are sent as computed."""
    title = "PPL against the split point"
    if len(tables) == 1:
        codec, table = next(iter(tables.items()))
        return [perplexity_panel(table, title if codec == IDENTITY.name else f"{title}, {codec}")]
    return [perplexity_panel(table, codec) for codec, table in tables.items()]


def perplexity_panel(table: Measurements, title: str) -> PPLPanel:
    """Return measured PPL against the split point for a handful of the table's link states."""
    states_GK = np.unique(table.link_states_NK, axis=0)
    if table.link_names[0] in LOWER_IS_WORSE:
        states_GK = states_GK[::-1]  # a panel goes from mild to harsh
    shown_SK = states_GK[shown_states(states_GK)]
    labels = state_labels(table.link_names, shown_SK)
    return PPLPanel(
        title=title,
        curves=[
            PPLCurve(label=label, band=perplexity_band(table, state_K))
            for label, state_K in zip(labels, shown_SK, strict=True)
        ],
        clean_ppl=float(np.exp(table.clean_log_ppl)),
    )


def perplexity_band(table: Measurements, state_K: FloatArray) -> Band:
    """Return measured PPL and its 95 % interval over the split points, at one link state."""
    # One of the table's own states, bit by bit: a narrow range has others close by.
    part = table.select(np.asarray((table.link_states_NK == state_K).all(axis=1)))
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

    Curves and lines are exact expectations on the surrogate, for every agent: also for one that
    learned from measured rewards, which is judged there and not taught.
    """
    ends = read_evaluation(folder)["problem"]["surrogate"]
    return LearningPanel(
        title=title or f"Case {folder.experiment.problem.case}",
        curves={name: learning_curve(folder, name) for name in folder.experiment.agents},
        random_return=ends["random_return"],
        optimal_return=ends["optimal_return"],
    )


def learning_curve(folder: RunFolder, name: str) -> Band:
    """Return what an agent's policy was worth over env steps, with its band over the seeds."""
    seeds = folder.experiment.agents[name].seeds
    agents = [load_agent(folder.agent_folder(name, seed)) for seed in seeds]
    points = [[(p.step, p.judged_return) for p in agent.curve] for agent in agents]
    return band_over_seeds([np.array(of_seed, dtype=np.float64) for of_seed in points])


def expected_shares(folder: RunFolder) -> EvaluationCurves | None:
    """Return what an active plan expected of its settings after each batch; None of other plans."""
    plan = folder.experiment.plan
    if plan.kind != "active":
        return None
    steps = read_choices(folder)
    settings = np.array([len(step.settings) for step in steps], dtype=np.float64)
    share = np.array([1 - step.expected_regret for step in steps])
    expected = Band(x=settings, centre=share, low=share, high=share)
    return EvaluationCurves(curves={"expected": expected}, target=1 - plan.target_regret)


def shown_states(states_GK: FloatArray) -> IntArray:
    """Return indices of a handful of link states, spread over the grid, both ends among them."""
    return np.unique(np.linspace(0, len(states_GK) - 1, _SHOWN_STATES).round().astype(int))


def state_labels(names: Sequence[str], states_SK: FloatArray) -> list[str]:
    """Return link states in words, such as "noise σ = 0.4", no two alike."""
    texts = [distinct_texts(values_S.tolist()) for values_S in states_SK.T]
    return [
        ", ".join(
            coordinate_value(name, text[float(value)])
            for name, text, value in zip(names, texts, state_K, strict=True)
        )
        for state_K in states_SK
    ]
