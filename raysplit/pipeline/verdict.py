"""The last lines on the terminal: whether what was found can be used, and if not, what to do."""

from __future__ import annotations

from typing import Any

from raysplit.base.errors import command
from raysplit.base.progress import say
from raysplit.pipeline.oracles import read_evaluation
from raysplit.pipeline.problem import ledger_path
from raysplit.pipeline.run_folder import RunFolder


def say_if_not_usable(folder: RunFolder) -> None:
    """Say where agents learned on a surrogate that misleads, or do worse than random moves."""
    reasons = reasons_against(read_evaluation(folder))
    for reason in reasons:
        say("not usable", "red", f" {reason}")
    if reasons:
        say("to do     ", "yellow", f" {_more_settings(folder)}")


def reasons_against(evaluation: dict[str, Any]) -> list[str]:
    """Return why the agents of an evaluation are not to be used; none where they are.

    Args:
        evaluation: The content of evaluation.json.
    """
    warning = evaluation["fidelity"]["warning"]
    shares = {
        name: agent["measured"]["share_of_gap"] for name, agent in evaluation["agents"].items()
    }
    worse = [
        f"{name} does worse than random moves on measured PPL ({share:.1%} of the gap)"
        for name, share in shares.items()
        if share < 0
    ]
    return [*([warning] if warning else []), *worse]


def _more_settings(folder: RunFolder) -> str:
    """Return the command that measures more and keeps what is measured."""
    plan = folder.experiment.plan
    match plan.kind:
        case "sobol":
            more = f"plan.settings={2 * plan.settings}"
        case "grid":
            more = f"plan.grid_points={2 * plan.grid_points - 1}"
        case "active":
            more = f"plan={{kind: active, max_settings: {2 * plan.max_settings}, target_regret: 0}}"
        case "list":
            return f"add rows to {plan.path} and start with another --out"
    shared = f"measuring.ledger={ledger_path(folder)}"
    words = ["run", folder.path / "experiment.yaml", "--out", f"{folder.path}-more"]
    return command(*words, "--set", more, "--set", shared)
