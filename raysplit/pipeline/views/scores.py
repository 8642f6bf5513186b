"""What evaluation.json says of each policy, as the report's rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raysplit.base.statistics import Interval
from raysplit.pipeline.verdict import doubt_of
from raysplit.report import MemberRow, Performance, PolicyResult, SurrogateCheck, TrainingCostRow

_ASKS_NOTHING = frozenset({"stay", "random"})


def policy_results(
    evaluation: Mapping[str, Any], planned: int = 0, times_us: Mapping[str, float] | None = None
) -> list[PolicyResult]:
    """Return a row for each agent and baseline, the best on measured perplexity first.

    Args:
        evaluation: The content of evaluation.json.
        planned: Settings that the surrogate was fitted on.
        times_us: Time of a decision by policy, in microseconds.
    """
    times_us = times_us or {}
    fixed = evaluation["problem"]["best_fixed"]
    shown: dict[str, tuple[str, str]] = {
        "optimum": ("optimum", "exact dynamic programming"),
        "planner": ("planner", "dynamic programming on the surrogate and the link's own chain"),
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
            decision_us=times_us.get(name),
            llm_evaluations=agent["rewards"]["llm_evaluations"],
        )
        for name, agent in evaluation["agents"].items()
    ]
    for name, (label, detail) in shown.items():
        if name not in evaluation["baselines"]:
            continue  # over a trace nothing plans with a chain of what comes
        scores = evaluation["baselines"][name]
        rows.append(
            PolicyResult(
                name=label,
                detail=detail,
                kind="fixed" if name == fixed else "baseline",
                surrogate=_performance(scores["surrogate"]),
                measured=_performance(scores["measured"]),
                decision_us=times_us.get(name),
                llm_evaluations=_asked(name, planned),
            )
        )
    return sorted(rows, key=lambda row: -row.measured.share_of_gap if row.measured else 0.0)


def _asked(name: str, planned: int) -> float | None:
    """Return the settings that a baseline needs; the optimum is made of all that is known."""
    if name == "optimum":
        return None
    return 0 if name in _ASKS_NOTHING else planned


def member_rows(evaluation: Mapping[str, Any]) -> list[MemberRow]:
    """Return a row for each member of the family that no training drew."""
    return [
        MemberRow(
            values=one["values"],
            shares={
                **{name: a["measured"]["share_of_gap"] for name, a in one["agents"].items()},
                "greedy": one["greedy"]["measured"]["share_of_gap"],
            },
        )
        for one in evaluation["members"]
    ]


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
        warning=doubt_of(evaluation) or found["warning"],
    )


def _performance(scores: Mapping[str, Any]) -> Performance:
    low, high = scores.get("return_ci95", [scores["return"]] * 2)
    return Performance(
        episode_return=Interval(value=scores["return"], low=low, high=high),
        regret=scores["regret"],
        share_of_gap=scores["share_of_gap"],
        shares_by_seed=tuple(scores.get("share_of_gap_by_seed", ())),
        moving_cost=scores.get("moving_cost", 0.0),  # the optimum has none: it is no policy
    )
