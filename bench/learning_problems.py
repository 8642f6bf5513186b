"""The problems that learning is measured on: a made-up table and the embedded model's cases."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from envs.params import LayerSplitParams, params_from
from envs.problem import Case, ProblemConfig
from envs.sources import PPLSource, SurrogateSource, TableSource
from raysplit.pipeline.experiment import load_experiment
from raysplit.pipeline.problem import cost_by_split_point
from raysplit.pipeline.run import run_stages
from raysplit.surrogate import Surrogate

STAGES = ("measure", "fit", "train", "evaluate")
# In the cases' own runs only the measurements count: their agent is a formality.
_FORMALITY = ["agents.ppo.total_steps=400", "agents.ppo.seeds=[0]"]

Problem = tuple[LayerSplitParams, PPLSource]


def measured_case(case: Case) -> Path:
    """Measure the demo's plan and evaluation grid over the links of one case."""
    folder = Path(f"runs/bench-case-{case}")
    changes = [f"problem.case={case}", *_FORMALITY]
    run_stages(load_experiment("demo", changes), folder, STAGES)
    return folder


def loss_table_problem() -> Problem:
    """A reward of the authors' shape over loss probability: sharp where few layers are local."""
    loss = np.linspace(0.0, 0.3, 31)
    problem = ProblemConfig.model_validate(
        {
            "link": {"loss_probability": {"low": 0.0, "high": 0.3, "grid_points": 31}},
            "dynamics": {"drift_per_layer": 0.0005},
            "initial_split_points": (1, 9),
            "reward": "authors",
        }
    )
    p = np.arange(1, 11)[:, None]
    gain = np.tanh(12 * loss) * (1 - np.exp(-(p - 1) * (0.35 + 4 * (0.3 - loss))))
    axes = [np.linspace(0.0, 0.32, 33)]  # the drift leaves the range by less than this
    wide = np.stack([np.interp(axes[0], loss, row) for row in gain])
    return params_from(problem), TableSource((1, 10), axes, wide, "relative_gain")


def embedded_problem(case: Case, folder: Path) -> Problem:
    """One case with the surrogate that was fitted on it."""
    experiment = load_experiment("demo", [f"problem.case={case}"])
    card = json.loads((folder / "protocol_card.json").read_text())
    source = SurrogateSource(Surrogate.load(folder / "surrogate"))
    costs = cost_by_split_point(experiment, round(card["tokens_per_sequence"]))
    clean_ppl = float(np.exp(card["clean_log_ppl"]))
    return params_from(experiment.problem, clean_ppl, costs), source
