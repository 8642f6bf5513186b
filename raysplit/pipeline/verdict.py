"""The last lines on the terminal: whether what was found can be used, and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raysplit.base.errors import command
from raysplit.base.progress import say
from raysplit.measure.plan import PlanConfig
from raysplit.pipeline.oracles import read_evaluation
from raysplit.pipeline.problem import ledger_path
from raysplit.pipeline.run_folder import RunFolder
from tuning.evaluate import LOWEST_RANK_CORRELATION
from tuning.settings import TrainConfig

_LEARNED = 0.5  # of the gap on the surrogate: an agent below it has not learned what it was shown


def say_if_not_usable(folder: RunFolder) -> None:
    """Say where agents learned on a surrogate that misleads, or do worse than random moves."""
    evaluation = read_evaluation(folder)
    reasons = reasons_against(evaluation)
    for reason in reasons:
        say("not usable", "red", f" {reason}")
    if reasons:
        say("to do     ", "yellow", f" {_remedy(folder, evaluation)}")
    if doubt := doubt_of(evaluation):
        say("to check  ", "yellow", f" {doubt}: to know, {_more_exactly(folder)}")


def reasons_against(evaluation: Mapping[str, Any]) -> list[str]:
    """Return why the agents of an evaluation are not to be used; none where they are.

    Args:
        evaluation: The content of evaluation.json.
    """
    warning = _misleads(evaluation)
    return [*([warning] if warning else []), *harmful_agents(evaluation).values()]


def harmful_agents(evaluation: Mapping[str, Any]) -> dict[str, str]:
    """Return the agents that do worse than random moves, each with a sentence that says so."""
    shares = {
        name: agent["measured"]["share_of_gap"] for name, agent in evaluation["agents"].items()
    }
    return {
        name: f"{name} does worse than random moves on measured PPL ({share:.1%} of the gap)"
        for name, share in shares.items()
        if share < 0
    }


def doubt_of(evaluation: Mapping[str, Any]) -> str | None:
    """Return what the measurements are too uncertain to tell of the surrogate, None for nothing."""
    found = evaluation["fidelity"]
    if found["warning"] is None or not _is_within_error(evaluation):
        return None
    return (
        f"planning on the surrogate seems to lose {found['share_lost']:.1%} of the gap on measured "
        f"PPL, and errors of measuring alone would show up to {found['share_lost_by_error']:.1%} "
        "even of a perfect one"
    )


def _misleads(evaluation: Mapping[str, Any]) -> str | None:
    """Return why the surrogate misleads, None where it does not or nobody can tell."""
    return None if _is_within_error(evaluation) else evaluation["fidelity"]["warning"]


def _is_within_error(evaluation: Mapping[str, Any]) -> bool:
    """Tell whether errors of measuring explain all that a surrogate seems to do wrong."""
    found = evaluation["fidelity"]
    ordered = found["rank_correlation"] >= LOWEST_RANK_CORRELATION
    return ordered and found["share_lost"] <= found["share_lost_by_error"]


def _remedy(folder: RunFolder, evaluation: Mapping[str, Any]) -> str:
    """Return the command that helps; it keeps what is measured.

    An agent that failed on the surrogate itself learns longer. Else the surrogate is at fault, and
    more is measured for it.
    """
    harmful = {name: evaluation["agents"][name]["surrogate"] for name in harmful_agents(evaluation)}
    untaught = [name for name, there in harmful.items() if there["share_of_gap"] < _LEARNED]
    longer = [_more_steps(folder, name) for name in untaught]
    if not _misleads(evaluation) and len(untaught) == len(harmful):
        return _once_more(folder, *longer)
    plan = folder.experiment.plan
    if plan.kind == "list":
        return f"add rows to {plan.path} and start with another --out"
    return _once_more(folder, *longer, *_more_settings(plan))


def _more_steps(folder: RunFolder, agent: str) -> str:
    steps = max(2 * folder.experiment.agents[agent].total_steps, TrainConfig().total_steps)
    return f"agents.{agent}.total_steps={steps}"


def _more_settings(plan: PlanConfig) -> list[str]:
    match plan.kind:
        case "grid":
            return [f"plan.grid_points={2 * plan.grid_points - 1}"]
        case "active":
            return [f"plan.max_settings={2 * plan.max_settings}", "plan.target_regret=0"]
        case _:  # a listed plan is the user's to write
            return [f"plan.settings={2 * plan.settings}"]


def _more_exactly(folder: RunFolder) -> str:
    """Return the command that measures the same settings with half the standard error."""
    target = folder.experiment.measuring.target_stderr
    if target == 0:
        return "measure on a larger corpus"
    return _once_more(folder, f"measuring.target_stderr={target / 2:g}")


def _once_more(folder: RunFolder, *changed: str) -> str:
    shared = f"measuring.ledger={ledger_path(folder)}"
    words = ["run", folder.path / "experiment.yaml", "--out", f"{folder.path}-more"]
    return command(*words, *(word for value in (*changed, shared) for word in ("--set", value)))
