"""Stage 5: write the report and its figures."""

# JSON values and NumPy's curve arithmetic have no precise types:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import dataclasses
import json
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from envs.oracle import Oracle
from raysplit.figures import (
    AnswerLine,
    AnswerPlane,
    Band,
    CostWeightSweep,
    LearningPanel,
    PPLCurve,
    PPLPanel,
    Score,
    coordinate_label,
)
from raysplit.ledger import Ledger
from raysplit.report import (
    Fidelity,
    Performance,
    PolicyResult,
    ReportData,
    RewardCost,
    write_report,
)
from raysplit.run_folder import RunFolder, versions
from raysplit.stages.measuring import ledger_path
from raysplit.stages.oracles import Oracles, load_oracles
from raysplit.stages.settling import settled_split_points
from raysplit.stages.tracked import tracker_of
from raysplit.stages.train import agent_folder
from raysplit.statistics import bootstrap_band
from raysplit.surrogate import FitReport
from tuning.train import load_agent

_SHOWN_STATES = 6
_CURVE_POINTS = 60
_Z95 = 1.96
_WEIGHT_FACTORS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


def run(folder: RunFolder) -> list[Path]:
    """Write report.html and figures/."""
    data = report_data(folder)
    path = write_report(data, folder.path)
    with tracker_of(folder, "report") as tracker:
        for png in sorted((folder.path / "figures").glob("*.png")):
            tracker.log_figure(png.stem, png)
    return [path, *sorted((folder.path / "figures").iterdir())]


def report_data(folder: RunFolder) -> ReportData:
    """Gather what the report says from the run folder."""
    experiment = folder.experiment
    oracles = load_oracles(folder)
    card = json.loads((folder.path / "protocol_card.json").read_text())
    evaluation = json.loads((folder.path / "evaluation.json").read_text())
    return ReportData(
        title=experiment.name,
        model=f"{experiment.model.name} ({card['model']['architecture']}, "
        f"{card['model']['layers']} layers)",
        corpus=f"{experiment.corpus.source}, {card['corpus']['sequences']:,} sequences, "
        f"{card['corpus']['scored_tokens']:,} scored tokens",
        link=_link_phrase(folder),
        created=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        clean_ppl=float(np.exp(card["clean_log_ppl"])),
        cost_weight=experiment.problem.cost_weight,
        cost_weight_reason=experiment.description,
        answer=_answer(oracles),
        perplexity=[_perplexity(oracles)],
        policies=_policies(evaluation),
        learning=[_learning(folder, oracles)],
        reward_costs=_reward_costs(evaluation),
        fit=FitReport.load(folder.path / "surrogate"),
        fidelity=_fidelity(evaluation),
        sweep=_weights(oracles),
        settings=_settings_measured(folder, card["card_sha256"]),
        protocol=_flat(card),
        versions=versions(),
        seconds=_seconds(folder),
        reproduce=[f"raysplit run {folder.path / 'experiment.yaml'} --out NEW_FOLDER"],
    )


def _link_phrase(folder: RunFolder) -> str:
    link, problem = folder.experiment.link, folder.experiment.problem
    fading = "no fading" if link.fading == "none" else f"{link.fading} fading"
    ranges = ", ".join(f"{n} {low:g} to {high:g}" for n, (low, high) in problem.ranges().items())
    return f"{fading}, one packet per {link.packet}; {ranges}"


def _answer(oracles: Oracles) -> AnswerLine | AnswerPlane:
    params, measured = oracles.params, oracles.measured
    states_GK = measured.link_states_GK
    optimum_G = measured.optimal_static_split_points()
    settled = {
        name: np.concatenate(
            [settled_split_points(params, p, states_GK) for p in by_seed.values()], 1
        )
        for name, by_seed in oracles.agents.items()
    }
    ends = (params.min_split_point, params.max_split_point)
    if len(params.link_names) == 1:
        return AnswerLine(
            coordinate=params.link_names[0],
            values_X=states_GK[:, 0],
            split_points=ends,
            optimum_X=optimum_G,
            optimal_objective_X=_objective(measured, optimum_G[:, None]),
            choices={name: _spread(states_GK[:, 0], chosen) for name, chosen in settled.items()},
            objectives={name: _objective(measured, chosen) for name, chosen in settled.items()}
            | {f"fixed p = {_best_fixed(measured)}": _fixed_objective(measured)},
        )
    axes, (rows, keep) = _plane(states_GK)
    return AnswerPlane(
        coordinates=(params.link_names[0], params.link_names[1]),
        values_X=axes[0],
        values_Y=axes[1],
        split_points=ends,
        optimum_YX=optimum_G[keep].reshape(rows).T,
        choices={name: np.median(s, 1)[keep].reshape(rows).T for name, s in settled.items()},
    )


def _plane(states_GK: np.ndarray) -> tuple[list[np.ndarray], tuple[tuple[int, int], np.ndarray]]:
    """The first two coordinates' axes and the states with every other one at its lowest value."""
    axes = [np.unique(states_GK[:, k]) for k in (0, 1)]
    keep = (states_GK[:, 2:] == states_GK[:, 2:].min(axis=0)).all(axis=1)
    return axes, ((len(axes[0]), len(axes[1])), keep)


def _objective(oracle: Oracle, split_points_GC: np.ndarray) -> np.ndarray:
    """Mean objective (the reward's negative) of choices over link states."""
    rewards_GC = np.take_along_axis(
        oracle.static_rewards_PG.T, split_points_GC - oracle.params.min_split_point, axis=1
    )
    return -rewards_GC.mean(axis=1)


def _best_fixed(oracle: Oracle) -> int:
    return oracle.best_fixed()[0]


def _fixed_objective(oracle: Oracle) -> np.ndarray:
    return -oracle.static_rewards_PG[_best_fixed(oracle) - oracle.params.min_split_point]


def _spread(x: np.ndarray, chosen_GC: np.ndarray) -> Band:
    return Band(x=x, centre=np.median(chosen_GC, 1), low=chosen_GC.min(1), high=chosen_GC.max(1))


def _shown_states(states_GK: np.ndarray) -> np.ndarray:
    """Indices of a handful of link states, spread over the grid, the mildest and harshest in it."""
    return np.unique(np.linspace(0, len(states_GK) - 1, _SHOWN_STATES).round().astype(int))


def _label(names: tuple[str, ...], state_K: np.ndarray) -> str:
    return ", ".join(
        f"{coordinate_label(name)} = {value:g}" for name, value in zip(names, state_K, strict=True)
    )


def _perplexity(oracles: Oracles) -> PPLPanel:
    table = oracles.table
    curves: list[PPLCurve] = []
    for state_K in oracles.measured.link_states_GK[_shown_states(oracles.measured.link_states_GK)]:
        here_N = np.asarray(np.isclose(table.link_states_NK, state_K).all(axis=1))
        part = table.select(here_N)
        order = np.argsort(part.split_points_N)
        log_ppl, half = part.log_ppl_N[order], _Z95 * part.stderr_N[order]
        band = Band(
            x=part.split_points_N[order].astype(float),
            centre=np.exp(log_ppl),
            low=np.exp(log_ppl - half),
            high=np.exp(log_ppl + half),
        )
        curves.append(PPLCurve(label=_label(table.link_names, state_K), band=band))
    return PPLPanel(
        title="PPL against the split point",
        curves=curves,
        clean_ppl=float(np.exp(table.clean_log_ppl)),
    )


def _policies(evaluation: Mapping[str, Any]) -> list[PolicyResult]:
    fixed = evaluation["problem"]["best_fixed_split_point"]
    shown = {
        "optimum": "exact dynamic programming",
        "greedy": "best next reward",
        f"fixed {fixed}": "the best fixed split point",
        "stay": "never moves",
        "random": "uniform actions",
    }
    rows = [
        PolicyResult(
            name=name,
            detail=f"{agent['algorithm'].upper()}, preset {agent['preset']}, "
            f"{len(agent['seeds'])} seed{'s' if len(agent['seeds']) > 1 else ''}",
            is_agent=True,
            surrogate=_performance(agent["surrogate"]),
            measured=_performance(agent["measured"]),
        )
        for name, agent in evaluation["agents"].items()
    ]
    for name, detail in shown.items():
        scores = evaluation["baselines"][name]
        label = f"best fixed p = {fixed}" if name.startswith("fixed") else name
        rows.append(
            PolicyResult(
                name=label,
                detail=detail,
                surrogate=_performance(scores["surrogate"]),
                measured=_performance(scores["measured"]),
            )
        )
    return sorted(rows, key=lambda row: -row.measured.share_of_gap if row.measured else 0.0)


def _reward_costs(evaluation: Mapping[str, Any]) -> list[RewardCost]:
    return [
        RewardCost(
            agent=name,
            rewards=agent["rewards"]["from"],
            llm_evaluations=agent["rewards"]["llm_evaluations"],
            worker_seconds=agent["rewards"]["worker_seconds"],
            first_seed_seconds=agent["rewards"]["first_seed_seconds"],
        )
        for name, agent in evaluation["agents"].items()
    ]


def _performance(scores: Mapping[str, Any]) -> Performance:
    low, high = scores.get("return_ci95", [scores["return"]] * 2)
    return Performance(
        score=Score(mean=scores["return"], low=low, high=high),
        regret=scores["regret"],
        share_of_gap=scores["share_of_gap"],
    )


def _learning(folder: RunFolder, oracles: Oracles) -> LearningPanel:
    curves = {}
    for name, config in folder.experiment.agents.items():
        agents = [load_agent(agent_folder(folder, name, seed)) for seed in config.seeds]
        runs = [
            np.array(
                [(p.step, p.episode_return) for p in agent.curve if p.episode_return is not None]
            )
            for agent in agents
        ]
        last = min(run[-1, 0] for run in runs)
        steps_X = np.linspace(max(run[0, 0] for run in runs), last, _CURVE_POINTS)
        curves_SX = np.stack([np.interp(steps_X, run[:, 0], run[:, 1]) for run in runs])
        curves[name] = _over_seeds(steps_X, curves_SX)
    return LearningPanel(
        title=f"Case {folder.experiment.problem.case}",
        curves=curves,
        random_return=oracles.surrogate.random_return,
        optimal_return=oracles.surrogate.optimal_return,
    )


def _over_seeds(steps_X: np.ndarray, curves_SX: np.ndarray) -> Band:
    if len(curves_SX) == 1:
        return Band(x=steps_X, centre=curves_SX[0], low=curves_SX[0], high=curves_SX[0])
    band = bootstrap_band(curves_SX, 0)
    return Band(x=steps_X, centre=band.value_X, low=band.low_X, high=band.high_X)


def _fidelity(evaluation: Mapping[str, Any]) -> Fidelity:
    found = evaluation["fidelity"]
    return Fidelity(
        rank_correlation=found["rank_correlation"],
        greedy_share_of_gap=1 - found["share_lost"],
        warning=found["warning"],
    )


def _weights(oracles: Oracles) -> CostWeightSweep | None:
    """How the optimum moves with lambda, on measured perplexity."""
    own = oracles.params.cost_weight
    if oracles.params.reward != "objective" or own == 0:
        return None
    weights = np.array([factor * own for factor in _WEIGHT_FACTORS])
    solved = [
        Oracle(dataclasses.replace(oracles.params, cost_weight=float(w)), oracles.measured.source)
        for w in weights
    ]
    states = oracles.measured.link_states_GK
    shown = _shown_states(states)
    return CostWeightSweep(
        weights_W=weights,
        chosen=_WEIGHT_FACTORS.index(1.0),
        states=[_label(oracles.params.link_names, states[i]) for i in shown],
        optimum_SW=np.stack([o.optimal_static_split_points()[shown] for o in solved], axis=1),
        split_points=(oracles.params.min_split_point, oracles.params.max_split_point),
        best_fixed_share_W=np.array([o.share_of_gap(o.best_fixed()[1]) for o in solved]),
    )


def _settings_measured(folder: RunFolder, card_sha256: str) -> tuple[int, int]:
    """Settings that were measured under this protocol card, and how many gave no value."""
    with Ledger(ledger_path(folder)) as ledger:
        status = Counter(row.status for row in ledger.rows(card_sha256).values())
    return status["done"], status.total() - status["done"]


def _flat(card: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    out: dict[str, str] = {}
    for key, value in card.items():
        if isinstance(value, dict):
            out |= _flat(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = f"{value:.6g}" if isinstance(value, float) else str(value)
    return out


def _seconds(folder: RunFolder) -> dict[str, float]:
    stages = ("measure", "fit", "train", "evaluate")
    records = {stage: folder.stage_record(stage) for stage in stages}
    return {stage: record["seconds"] for stage, record in records.items() if record}
