"""The problems that learning is measured on: a made-up table and the embedded model's cases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from envs.benchmarks import benchmark
from envs.grid_sources import TableSource
from envs.link_config import Case, LinkDynamicsConfig, LinkRange
from envs.params import LayerSplitParams, params_from
from envs.problem import ProblemConfig
from envs.sources import PPLSource, SurrogateSource, as_source
from raysplit.base.arrays import FloatArray, IntArray
from raysplit.budget.config import BudgetConfig
from raysplit.budget.moving import moving_costs
from raysplit.model.sizes import sizes_of
from raysplit.pipeline.experiment import load_experiment
from raysplit.pipeline.over_radio import surrogate_source
from raysplit.pipeline.problem import cost_by_split_point, measured_problem
from raysplit.pipeline.run import run_stages
from raysplit.pipeline.run_folder import RunFolder
from raysplit.surrogate import Surrogate

STAGES = ("measure", "fit", "train", "evaluate")
# In the cases' own runs only the measurements count: their agent is a formality.
_FORMALITY = ["agents.ppo.total_steps=400", "agents.ppo.seeds=[0]"]

Problem = tuple[LayerSplitParams, PPLSource]
_OVER_LTE = [
    *_FORMALITY,
    "link={mode: digital}",
    "radio={cell: lte, packet_deadline_ms: 12}",
    "budget={phone: mid-range, edge: h100, network: lte, deadline_s: 1.0}",
    "problem.link={snr_db: {low: -8, high: 22, grid_points: 61}}",
    "problem.codecs=[identity, int8, int4-rotated/32]",
    "problem.actions=split_and_codec",
    "problem.switching={context_tokens: 512}",
    "problem.dynamics={kind: fading, fading: {mean_snr_db: 8, step_s: 0.02, place: uma-nlos}}",
    "problem.episode_steps=15",
    "problem.reward=budget",
    "problem.percent_per_second=5",
    "problem.percent_per_joule=1",
    "problem.percent_per_miss=20",
    "plan.settings=48",
]
_SNR_DB = (0.0, 30.0)
_NOISE_AT_0_DB = 2.0  # about the RMS of SmolLM2's hidden states after the first layer
# A move takes so many tokens along; its seconds and joules count as shares of perplexity.
_CONTEXT_TOKENS, _PER_SECOND, _PER_JOULE = 512, 0.05, 0.01


def smollm2_over_snr(dynamics: dict[str, Any], grid_points: int) -> Problem:
    """SmolLM2's measured table over a link whose SNR moves, with what moving the split costs.

    The noise's standard deviation is 2 at 0 dB; a move takes 512 tokens of context along, on a
    mid-range phone over LTE, and a second counts as 5 % of perplexity, a joule as 1 %.

    Args:
        dynamics: As in an experiment's `problem.dynamics`, of `snr_db`.
        grid_points: Of the SNR.
    """
    table = benchmark("raysplit/SmolLM2-Noise-v0").table
    low, high = _SNR_DB
    problem = table.problem.model_copy(
        update={
            "link": {"snr_db": LinkRange(low=low, high=high, grid_points=grid_points)},
            "dynamics": LinkDynamicsConfig.model_validate(dynamics),
        }
    )
    measured = table.source()

    def answer(split_points_N: IntArray, snr_db_N1: FloatArray) -> FloatArray:
        return measured(split_points_N, _NOISE_AT_0_DB * 10 ** (-snr_db_N1 / 20))

    params = params_from(
        problem,
        float(np.exp(table.clean_log_ppl)),
        table.cost_by_split_point,
        moving=_moving(len(table.cost_by_split_point)),
    )
    return params, as_source(answer, quantity="ppl", link_names=("snr_db",))


def smollm2_surrogate(folder: Path) -> Problem:
    """The preset's problem with the surrogate of a finished run."""
    params, _ = measured_problem(RunFolder.read(folder))
    return params, SurrogateSource(Surrogate.load(folder / "surrogate"))


def over_lte() -> Problem:
    """The embedded model over LTE: split and codec chosen, moves paid for, fading and shadowing.

    Measured over loss, or taken up, in runs/bench-lte.
    """
    folder = Path("runs/bench-lte")
    run_stages(load_experiment("demo", _OVER_LTE), folder, ("measure", "fit"))
    run = RunFolder.read(folder)
    params, _ = measured_problem(run)
    return params, surrogate_source(run)


def _moving(split_points: int) -> FloatArray:
    setup = BudgetConfig(phone="mid-range", edge="h100", network="lte").setup()
    sizes = sizes_of("smollm2-135m")
    moving_PP1 = np.zeros((split_points, split_points, 1))
    for layers in range(1, split_points):
        costs = moving_costs(sizes, setup, "identity", _CONTEXT_TOKENS, layers)
        for first in range(split_points - layers):
            for move, place in (
                (costs.up, (first, first + layers)),
                (costs.down, (first + layers, first)),
            ):
                moving_PP1[place] = _PER_SECOND * move.seconds + _PER_JOULE * move.ue_energy_j
    return moving_PP1


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
