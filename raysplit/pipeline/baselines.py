"""The policies that agents are compared with; all that is learned, is learned on the surrogate."""

from __future__ import annotations

from envs.oracle import Oracle, planning_problem
from envs.policies import Policy
from raysplit.pipeline.oracles import Oracles
from tuning.bandits import BANDITS, train_bandit

_SEED = 2**20 + 2  # of the bandits; no agent's


def baseline_policies(oracles: Oracles, bandit_steps: int) -> dict[str, Policy]:
    """Return the baselines by name.

    Over a trace, what is fitted or planned has seen its first part alone, as the agents have.

    Args:
        oracles: The solved problem.
        bandit_steps: Steps that each bandit learns from: as many as the agents.
    """
    source = oracles.surrogate.source
    planner = Oracle(planning_problem(oracles.trained_params), source)
    bandits: dict[str, Policy] = {
        kind: train_bandit(oracles.trained_params, source, kind, bandit_steps, _SEED)
        for kind in BANDITS
    }
    return {**planner.baselines(), **planner.planners(), **bandits}
