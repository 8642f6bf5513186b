"""Agents on links that move within the episode: exact shares of the gap, beside the baselines."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import mean

import torch

from bench.learning_problems import Problem, embedded_problem, loss_table_problem, measured_case
from bench.report import BenchReport, Options
from envs.oracle import Oracle
from tuning.settings import Algorithm, TrainConfig
from tuning.train import train

_TARGETS = {
    "gm9_min": (">=", 0.985),
    "gm5_min": (">=", 0.97),
    "iid_min": (">=", 0.99),
    "constant_mean": (">=", 0.9993),
    "constant_min": (">=", 0.998),
    "a2c_moving_mean": (">=", 0.96),
    "dqn_moving_mean": (">=", 0.96),
}
_SEEDS = (401, 402, 403, 404, 405)  # none that a preset was chosen with
_GRID_POINTS = [33]
_MOVING = {"gm9": ("gauss_markov", 0.9), "gm5": ("gauss_markov", 0.5), "iid": ("iid", 0.0)}


def run(options: Options) -> BenchReport:
    """Train every agent on every link; the demo is measured, or taken up, in runs/bench-case-A."""
    seeds, steps = (_SEEDS[:1], 2_400) if options.quick else (_SEEDS, 24_000)
    report = BenchReport(
        "motion",
        _TARGETS,
        {"quick": options.quick, "seeds": seeds, "steps": steps, "grid_points": _GRID_POINTS},
    )
    torch.set_num_threads(1)
    moving = moving_problems(embedded_problem("A", measured_case("A")))
    for name, problem in moving.items():
        oracle = Oracle(*problem, grid_points=_GRID_POINTS)
        _baselines(report, name, oracle)
        _agent(report, "ppo", name, oracle, seeds, steps)
    constant = Oracle(*loss_table_problem())
    _baselines(report, "constant", constant)
    _agent(report, "ppo", "constant", constant, seeds, steps)
    for algorithm in ("a2c", "dqn"):
        shares = [
            _agent(
                report, algorithm, name, Oracle(*problem, grid_points=_GRID_POINTS), seeds, steps
            )
            for name, problem in moving.items()
        ]
        report.add({f"{algorithm}_moving_mean": mean(shares)})
    return report


def moving_problems(problem: Problem) -> dict[str, Problem]:
    """Return a problem with each kind of link that moves within the episode."""
    params, source = problem
    return {
        name: (replace(params, link_dynamics=kind, correlation=correlation), source)
        for name, (kind, correlation) in _MOVING.items()
    }


def _baselines(report: BenchReport, link: str, oracle: Oracle) -> None:
    greedy_return = oracle.policy_return(oracle.greedy_policy())
    report.add(
        {
            f"{link}_greedy": oracle.share_of_gap(greedy_return),
            f"{link}_best_fixed": oracle.share_of_gap(oracle.best_fixed()[1]),
        }
    )


def _agent(
    report: BenchReport,
    algorithm: Algorithm,
    link: str,
    oracle: Oracle,
    seeds: tuple[int, ...],
    steps: int,
) -> float:
    """Add the shares of the preset `tuned` over the seeds; return their mean."""
    shares = [_share(algorithm, oracle, seed, steps) for seed in seeds]
    prefix = "" if algorithm == "ppo" else f"{algorithm}_"
    report.add({f"{prefix}{link}_mean": mean(shares), f"{prefix}{link}_min": min(shares)})
    return mean(shares)


def _share(algorithm: Algorithm, oracle: Oracle, seed: int, steps: int) -> float:
    config = TrainConfig(algorithm=algorithm, total_steps=steps)
    with tempfile.TemporaryDirectory() as folder:
        agent = train(oracle.params, oracle.source, config, seed, Path(folder))
        return oracle.share_of_gap(oracle.policy_return(agent.policy().actions))
