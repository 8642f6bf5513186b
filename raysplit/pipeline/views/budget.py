"""What a run's split points cost in seconds and joules, beside what it measured.

Shape suffixes: G link states (S: those shown), K link coordinates, P split points, N points.
"""

from __future__ import annotations

import numpy as np

from raysplit.base.arrays import BoolArray, FloatArray, IntArray
from raysplit.budget.costs import split_costs
from raysplit.budget.setup import Setup
from raysplit.figures import (
    OptimumTerms,
    TimeStack,
    TradePanel,
    TradeSeries,
    coordinate_label,
)
from raysplit.link.state import LOWER_IS_WORSE
from raysplit.model.sizes import Sizes
from raysplit.pipeline.budget import BudgetTerms, budget_terms
from raysplit.pipeline.experiment import Experiment
from raysplit.pipeline.oracles import Oracles
from raysplit.pipeline.views.panels import perplexity_band, shown_states, state_label
from raysplit.report import BudgetPart, BudgetRow

_MOST_STATES = 12  # on the axis of one coordinate


def budget_part(experiment: Experiment, sizes: Sizes, oracles: Oracles) -> BudgetPart | None:
    """Return what the report says of an experiment's budget, None where it has none."""
    if experiment.budget is None:
        return None
    terms, setup = budget_terms(experiment, sizes), experiment.budget.setup()
    optimum_G = oracles.measured.optimal_static_split_points()
    return BudgetPart(
        network=experiment.budget.network,
        codec=experiment.problem.codec.name,
        where=_where(experiment, setup),
        output_tokens=experiment.budget.output_tokens,
        rows=_rows(experiment, oracles, terms, optimum_G),
        stacks=[_stack(terms, optimum_G, experiment.budget.deadline_s)],
        trades=_trades(oracles, sizes, setup),
        terms=_optimum_terms(oracles, terms, optimum_G)
        if oracles.params.reward == "budget"
        else None,
    )


def pareto_front(x_N: FloatArray, y_N: FloatArray) -> BoolArray:
    """Return which points no other dominates: is at most as large in both, and smaller in one."""
    no_larger_NN = (x_N[None] <= x_N[:, None]) & (y_N[None] <= y_N[:, None])
    smaller_NN = (x_N[None] < x_N[:, None]) | (y_N[None] < y_N[:, None])
    return ~(no_larger_NN & smaller_NN).any(axis=1)


def _where(experiment: Experiment, setup: Setup) -> str:
    budget = experiment.budget
    assert budget is not None
    changed = [f"{kind}.{key}" for kind, numbers in budget.overrides.items() for key in numbers]
    overridden = f" (overridden: {', '.join(changed)})" if changed else ""
    return (
        f"phone {budget.phone}, edge {budget.edge}, network {budget.network} with "
        f"{setup.network.uplink_mbit_s:g} Mbit/s up and a round trip of {setup.network.rtt_ms:g} ms"
        f"{overridden}; {budget.prompt_tokens:,} tokens of prompt, {budget.output_tokens:,} of "
        "answer"
    )


def _mild_to_harsh(oracles: Oracles) -> IntArray:
    """Return indices of the grid's link states, the first coordinate's best value first."""
    states = np.arange(len(oracles.measured.link_states_GK))
    return states[::-1] if oracles.params.link_names[0] in LOWER_IS_WORSE else states


def _excess_G(oracles: Oracles, optimum_G: IntArray) -> FloatArray:
    """Measured perplexity of the optimum over the clean one, minus 1."""
    ppl_G = oracles.measured.source(optimum_G, oracles.measured.link_states_GK)
    return ppl_G / np.exp(oracles.table.clean_log_ppl) - 1


def _rows(
    experiment: Experiment, oracles: Oracles, terms: BudgetTerms, optimum_G: IntArray
) -> list[BudgetRow]:
    order = _mild_to_harsh(oracles)
    states_GK, excess_G = oracles.measured.link_states_GK, _excess_G(oracles, optimum_G)
    has_deadline = experiment.budget is not None and experiment.budget.deadline_s is not None
    rows: list[BudgetRow] = []
    for g in order[shown_states(order)]:
        i = int(optimum_G[g]) - oracles.params.min_split_point
        costs = terms.costs
        rows.append(
            BudgetRow(
                state=state_label(oracles.params.link_names, states_GK[g]),
                split_point=int(optimum_G[g]),
                first_token_s=float(costs.ttft_s_P[i]),
                next_token_s=float(costs.tpot_s_P[i]),
                energy_j=float(costs.ue_energy_j_P[i]),
                memory_gb=float(costs.ue_memory_bytes_P[i]) / 1e9,
                late=float(terms.late_P[i]) if has_deadline else None,
                perplexity_excess=float(excess_G[g]),
            )
        )
    return rows


def _stack(terms: BudgetTerms, optimum_G: IntArray, deadline_s: float | None) -> TimeStack:
    first = terms.costs.prefill
    return TimeStack(
        title="",
        split_points_P=terms.costs.split_points_P,
        seconds={
            "phone": first.ue_s_P,
            "air": first.air_s_P,
            "round trip": first.rtt_s_P,
            "edge": first.edge_s_P,
        },
        best=(int(optimum_G.min()), int(optimum_G.max())),
        deadline_s=deadline_s,
    )


def _optimum_terms(oracles: Oracles, terms: BudgetTerms, optimum_G: IntArray) -> OptimumTerms:
    names, states_GK = oracles.params.link_names, oracles.measured.link_states_GK
    order = _mild_to_harsh(oracles)
    one = len(names) == 1
    shown_S = order if one and len(order) <= _MOST_STATES else order[shown_states(order)]
    at_S = optimum_G[shown_S] - oracles.params.min_split_point
    return OptimumTerms(
        axis=coordinate_label(names[0]) if one else "link state",
        states=[
            f"{states_GK[g, 0]:g}" if one else state_label(names, states_GK[g]) for g in shown_S
        ],
        split_points_S=optimum_G[shown_S],
        percent={
            "perplexity beyond clean": 100 * _excess_G(oracles, optimum_G)[shown_S],
            "seconds": 100 * terms.seconds_P[at_S],
            "joules": 100 * terms.joules_P[at_S],
            "missed deadlines": 100 * terms.misses_P[at_S],
        },
    )


def _trades(oracles: Oracles, sizes: Sizes, setup: Setup) -> list[TradePanel]:
    """Perplexity against time and energy: the mildest, the middle and the harshest link state."""
    order = _mild_to_harsh(oracles)
    chosen_SK = oracles.measured.link_states_GK[order[[0, len(order) // 2, -1]]]
    costs = {
        codec: split_costs(sizes, setup, codec, oracles.params.split_points_P.tolist())
        for codec in oracles.table_by_codec
    }
    return [
        TradePanel(
            title="Perplexity against time",
            axis="seconds to the first token",
            series=_series(oracles, chosen_SK, {c: one.ttft_s_P for c, one in costs.items()}),
        ),
        TradePanel(
            title="Perplexity against energy",
            axis="joules of the phone a request",
            series=_series(oracles, chosen_SK, {c: one.ue_energy_j_P for c, one in costs.items()}),
        ),
    ]


def _series(
    oracles: Oracles, states_SK: FloatArray, x_by_codec: dict[str, FloatArray]
) -> list[TradeSeries]:
    series: list[TradeSeries] = []
    for state_K in states_SK:
        bands = {c: perplexity_band(t, state_K) for c, t in oracles.table_by_codec.items()}
        front_N = pareto_front(
            np.concatenate([x_by_codec[codec] for codec in bands]),
            np.concatenate([band.centre for band in bands.values()]),
        )
        fronts = np.split(front_N, len(bands))
        for (codec, band), front_P in zip(bands.items(), fronts, strict=True):
            state = state_label(oracles.params.link_names, state_K)
            series.append(
                TradeSeries(
                    state=state, codec=codec, x_N=x_by_codec[codec], ppl=band, front_N=front_P
                )
            )
    return series
