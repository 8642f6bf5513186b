"""What the interactive panel computes with: the measured table, and the run's own weights.

Shape suffixes: C codecs, P split points, G measured link states, X SNRs, K attempts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from envs.dynamics import GAIN_WEIGHT
from raysplit.base.arrays import FloatArray
from raysplit.base.errors import UserError
from raysplit.budget.bits import bits_per_token
from raysplit.budget.config import BudgetConfig
from raysplit.budget.presets import presets
from raysplit.budget.setup import Setup
from raysplit.measure.table import Measurements
from raysplit.model.sizes import Sizes
from raysplit.pipeline.experiment import Experiment
from raysplit.pipeline.oracles import Oracles
from raysplit.pipeline.problem import ue_computation
from raysplit.radio.transport import attempt_probabilities, sustained_rate_mbit_s
from raysplit.report import Explorer, Moving, RadioTable, Start

_KINDS = ("phone", "edge", "network")


def explorer(
    experiment: Experiment, card: Mapping[str, Any], sizes: Sizes, oracles: Oracles
) -> Explorer:
    """Return the panel of a run.

    Args:
        experiment: The run's.
        card: Its protocol card.
        sizes: The model's.
        oracles: The problem, its measured tables and what its radio loses.
    """
    problem, tables = experiment.problem, oracles.table_by_codec
    budget = experiment.budget or BudgetConfig()
    setup = budget.setup()
    names = {kind: _name(budget, kind) for kind in _KINDS}
    on_grid = [_on_grid(table) for table in tables.values()]
    axes = _axes(next(iter(tables.values())))
    radio = None
    if experiment.radio is not None:
        snr_db_X = _snr_db(experiment, oracles)
        radio = _radio(experiment, oracles, axes[0], snr_db_X)
        axes = [snr_db_X]
    computation_P, words = _computation(experiment, card)
    return Explorer(
        coordinates=problem.link_names,
        axes=axes,
        split_points=(problem.min_split_point, problem.max_split_point),
        codecs=tuple(tables),
        log_ppl_CPG=np.stack([log_ppl_PG for log_ppl_PG, _ in on_grid]),
        stderr_CPG=np.stack([stderr_PG for _, stderr_PG in on_grid]),
        clean_log_ppl=oracles.table.clean_log_ppl,
        computation_P=computation_P,
        computation=words,
        relative_to_first=problem.reward == "authors",
        sizes=sizes,
        bits_C=[bits_per_token(codec, sizes.hidden_size) for codec in tables],
        presets=_with_own(setup, names),
        radio=radio,
        moving=_moving(experiment, card, sizes, tuple(tables)),
        start=Start(
            weights=_weights(experiment),
            setup=setup,
            phone=names["phone"],
            edge=names["edge"],
            network=names["network"],
            deadline_s=budget.deadline_s,
            codecs=problem.decision_codecs,
            only_fitting=experiment.budget is not None,
        ),
    )


def _axes(table: Measurements) -> list[FloatArray]:
    return [np.unique(values_N) for values_N in table.link_states_NK.T]


def _on_grid(table: Measurements) -> tuple[FloatArray, FloatArray]:
    """Return log PPL and its standard error, (P, G): the evaluation measures a whole grid."""
    order_N = np.lexsort((*table.link_states_NK.T[::-1], table.split_points_N))
    states = int(np.prod([len(axis) for axis in _axes(table)]))
    return (
        table.log_ppl_N[order_N].reshape(-1, states),
        table.stderr_N[order_N].reshape(-1, states),
    )


def _snr_db(experiment: Experiment, oracles: Oracles) -> FloatArray:
    """Return the SNRs at which the problem's costs are known, within the case's range."""
    low, high = experiment.problem.ranges()["snr_db"]
    snr_db_X = oracles.losses[experiment.problem.codec.name].snr_db_X
    return snr_db_X[(snr_db_X >= low) & (snr_db_X <= high)]


def _radio(
    experiment: Experiment, oracles: Oracles, losses_L: FloatArray, snr_db_X: FloatArray
) -> RadioTable:
    radio = experiment.radio
    assert radio is not None
    attempts = [attempt_probabilities(radio, snr_db) for snr_db in snr_db_X.tolist()]
    return RadioTable(
        loss_axis_L=losses_L,
        loss_CX=np.stack([oracles.losses[name].at(snr_db_X) for name in oracles.table_by_codec]),
        rate_mbit_s_X=np.array([sustained_rate_mbit_s(radio, x) for x in snr_db_X.tolist()]),
        block_bits_X=np.array([bits for bits, _ in attempts]),
        attempts_XK=np.stack([attempts_K for _, attempts_K in attempts]),
        slot_s=radio.load().grid.uplink_slot_ms * 1e-3,
    )


def _computation(experiment: Experiment, card: Mapping[str, Any]) -> tuple[FloatArray, str]:
    """Return what lambda weighs, as a share of the clean PPL, and what it is in words."""
    problem = experiment.problem
    split_points_P = np.arange(problem.min_split_point, problem.max_split_point + 1)
    if problem.reward == "authors":
        return split_points_P / problem.max_split_point, "the share of split points, p / p_max"
    computation_P = np.array(ue_computation(experiment, round(card["tokens_per_sequence"])))
    if problem.raw:
        return computation_P / np.exp(card["clean_log_ppl"]), "C_UE of Eq. 2 / clean PPL"
    return computation_P, "the phone's share of the computation"


def _moving(
    experiment: Experiment, card: Mapping[str, Any], sizes: Sizes, codecs: tuple[str, ...]
) -> Moving | None:
    """Return what the problem's moves cost, in the panel's objective; None where they are free."""
    problem, switching = experiment.problem, experiment.problem.switching
    if not switching.per_layer and not switching.context_tokens:
        return None
    unit = 1 / GAIN_WEIGHT if problem.reward == "authors" else 1.0
    if problem.raw:
        unit = 1 / float(np.exp(card["clean_log_ppl"]))
    return Moving(
        per_layer=switching.per_layer * unit,
        context_tokens=switching.context_tokens,
        kv_bits_C=[_bits(codec, sizes.kv_elements) for codec in codecs],
        current=problem.start_split_points[0],
    )


def _bits(codec: str, elements: int) -> int | None:
    try:
        return bits_per_token(codec, elements)
    except UserError:  # its groups do not divide the vector; no decision is made for such a codec
        return None


def _weights(experiment: Experiment) -> dict[str, float]:
    """Return the weights at which the panel's objective is the run's own."""
    problem = experiment.problem
    weight = {"authors": 1 / GAIN_WEIGHT, "budget": 0.0}.get(problem.reward, problem.cost_weight)
    return {"lambda": weight, **problem.budget_weights}


def _name(budget: BudgetConfig, kind: str) -> str:
    name: str = getattr(budget, kind)
    return f"{name}, as in this run" if budget.overrides.get(kind) else name


def _with_own(setup: Setup, names: Mapping[str, str]) -> dict[str, dict[str, dict[str, float]]]:
    """Return the constants of all presets, and of what the experiment made of one."""
    found = presets()
    known = {"phone": found.phone, "edge": found.edge, "network": found.network}
    return {
        kind: {
            name: {key: constant.value for key, constant in preset.constants.items()}
            for name, preset in of_kind.items()
        }
        | {names[kind]: getattr(setup, kind).model_dump()}
        for kind, of_kind in known.items()
    }
