"""What evaluation.json says of each policy, as the report's rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raysplit.base.statistics import Interval
from raysplit.report import Performance, PolicyResult, SurrogateCheck, TrainingCostRow


def policy_results(evaluation: Mapping[str, Any]) -> list[PolicyResult]:
    """Return a row for each agent and baseline, the best on measured perplexity first."""
    fixed = evaluation["problem"]["best_fixed"]
    shown: dict[str, tuple[str, str]] = {
        "optimum": ("optimum", "exact dynamic programming"),
        "planner": ("planner", "value iteration on the surrogate and the link's own chain"),
        "receding horizon": ("receding horizon", "the same, three steps ahead"),
        "greedy": ("greedy", "best next reward on the surrogate"),
        "threshold": ("threshold rule", "two split points, one threshold of the link"),
        "linucb": ("LinUCB", "linear bandit, upper confidence bounds"),
        "thompson": ("linear Thompson", "linear bandit, drawn parameters"),
        fixed: (f"best fixed p = {fixed.removeprefix('fixed ')}", "the best fixed split point"),
        "stay": ("stay", "never moves"),
        "random": ("random", "uniform actions"),
    }
    rows = [
        PolicyResult(
            name=name,
            detail=f"{agent['algorithm'].upper()}, preset {agent['preset']}, "
            f"{len(agent['seeds'])} seed{'s' if len(agent['seeds']) > 1 else ''}",
            kind="agent",
            surrogate=_performance(agent["surrogate"]),
            measured=_performance(agent["measured"]),
        )
        for name, agent in evaluation["agents"].items()
    ]
    for name, (label, detail) in shown.items():
        scores = evaluation["baselines"][name]
        rows.append(
            PolicyResult(
                name=label,
                detail=detail,
                kind="fixed" if name == fixed else "baseline",
                surrogate=_performance(scores["surrogate"]),
                measured=_performance(scores["measured"]),
            )
        )
    return sorted(rows, key=lambda row: -row.measured.share_of_gap if row.measured else 0.0)


def training_costs(evaluation: Mapping[str, Any]) -> list[TrainingCostRow]:
    """Return what each agent's training cost."""
    return [
        TrainingCostRow(
            agent=name,
            rewards=agent["rewards"]["from"],
            llm_evaluations=agent["rewards"]["llm_evaluations"],
            worker_seconds=agent["rewards"]["worker_seconds"],
            first_seed_seconds=agent["rewards"]["first_seed_seconds"],
            peak_resident_bytes=agent["peak_resident_bytes"],
            measured=_performance(agent["measured"]).episode_return,
        )
        for name, agent in evaluation["agents"].items()
    ]


def fidelity(evaluation: Mapping[str, Any]) -> SurrogateCheck:
    """Return the check of the surrogate."""
    found = evaluation["fidelity"]
    return SurrogateCheck(
        rank_correlation=found["rank_correlation"],
        planned_share_of_gap=1 - found["share_lost"],
        warning=found["warning"],
    )


def _performance(scores: Mapping[str, Any]) -> Performance:
    low, high = scores.get("return_ci95", [scores["return"]] * 2)
    return Performance(
        episode_return=Interval(value=scores["return"], low=low, high=high),
        regret=scores["regret"],
        share_of_gap=scores["share_of_gap"],
        shares_by_seed=tuple(scores.get("share_of_gap_by_seed", ())),
    )
