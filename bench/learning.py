"""How good and how fast learning is: shares of the exact gap, speed beside Stable-Baselines3."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import timeit
from pathlib import Path
from statistics import mean, median
from typing import get_args

import numpy as np
import torch

from bench.learning_problems import (
    STAGES,
    Problem,
    embedded_problem,
    loss_table_problem,
    measured_case,
)
from bench.report import BenchReport, Options
from bench.surrogate_errors import error_by_rows, surrogate_error
from envs.layer_split import LayerSplitEnv
from envs.link_config import Case
from envs.oracle import Oracle
from envs.params import LayerSplitParams
from envs.policies import Policy
from envs.score import score
from envs.sources import PPLSource
from raysplit.base.arrays import FloatArray
from raysplit.measure.table import Measurements
from raysplit.pipeline.experiment import load_experiment
from raysplit.pipeline.oracles import EVALUATION_TABLE, Oracles, measured_oracle
from raysplit.pipeline.run import run_stages
from raysplit.pipeline.uncertainty import interval_95, measured_uncertainty
from tuning.settings import Algorithm, TrainConfig
from tuning.train import train

_TARGETS = {
    "ppo_share_min": (">=", 0.99),
    "ppo_share_mean": (">=", 0.995),
    "ppo_share_measured": (">=", 0.97),
    "a2c_share_mean": (">=", 0.97),
    "dqn_share_mean": (">=", 0.97),
    "ppo_vs_sb3_speed": (">=", 1.5),
    "surrogate_mse": ("<=", 0.0005),
    "surrogate_mae": ("<=", 0.015),
    "true_vs_surrogate_return": ("<=", 0.0025),
    "training_rss_gb": ("<=", 1.0),
    "policy_us": ("<=", 20.0),
}
_SEEDS = (301, 302, 303, 304, 305)  # none that a preset was chosen with
_ROUNDS = 3
_CURVE_ROWS = (12, 24, 48, 96, 300, 1_000)


def run(options: Options) -> BenchReport:
    """Measure every figure; measurements are made, or taken up, in runs/bench-*."""
    seeds, steps = (_SEEDS[:2], 2_400) if options.quick else (_SEEDS, 24_000)
    cases = {case: measured_case(case) for case in get_args(Case)}
    report = BenchReport(
        "learning", _TARGETS, {"quick": options.quick, "seeds": seeds, "steps": steps}
    )
    torch.set_num_threads(1)
    problems = {"loss_table": loss_table_problem()} | {
        f"embedded_{case}": embedded_problem(case, folder) for case, folder in cases.items()
    }
    _share_of_ppo(report, problems, cases, seeds, steps)
    for algorithm in ("a2c", "dqn"):
        _share_of_others(report, algorithm, problems, seeds, steps)
    _speed(report, problems["loss_table"], steps)
    surrogate_error(report, cases["A"])
    rows = _CURVE_ROWS[:2] if options.quick else _CURVE_ROWS
    error_by_rows(report, cases["A"], rows)
    _memory(report, cases["A"], steps)
    _policy_time(report, cases["A"])
    _true_rewards(report, quick=options.quick)
    return report


def _share_of_ppo(
    report: BenchReport,
    problems: dict[str, Problem],
    cases: dict[Case, Path],
    seeds: tuple[int, ...],
    steps: int,
) -> None:
    policies = {
        name: {seed: _policy("ppo", params, source, seed, steps) for seed in seeds}
        for name, (params, source) in problems.items()
    }
    every: list[float] = []
    for name, (params, source) in problems.items():
        oracle = Oracle(params, source)
        shares = [score(oracle, policy).share_of_gap for policy in policies[name].values()]
        report.add({f"ppo_share_mean_{name}": mean(shares)})
        every += shares
    report.add({"ppo_share_min": min(every), "ppo_share_mean": mean(every)})
    measured = {
        case: measured_shares(problems[name], folder, policies[name])
        for case, folder in cases.items()
        for name in [f"embedded_{case}"]
    }
    for case, (share, draws_D) in measured.items():
        low, high = interval_95(draws_D)
        names = [f"ppo_share_measured_{case}{end}" for end in ("", "_low", "_high")]
        report.add(dict(zip(names, (share, low, high), strict=True)))
    low, high = interval_95(np.mean([draws_D for _, draws_D in measured.values()], axis=0))
    report.add(
        {
            "ppo_share_measured": mean(share for share, _ in measured.values()),
            "ppo_share_measured_low": low,
            "ppo_share_measured_high": high,
        }
    )


def measured_shares(
    problem: Problem, folder: Path, policies: dict[int, Policy]
) -> tuple[float, FloatArray]:
    """Return the seeds' mean share on measured perplexity, and its 95 % interval."""
    params, source = problem
    table = Measurements.from_parquet(folder / EVALUATION_TABLE)
    measured = measured_oracle(params, {"identity": table}, {})
    oracles = Oracles(
        params=params,
        trained_params=params,
        table=table,
        table_by_codec={"identity": table},
        surrogate=Oracle(params, source),
        measured=measured,
        agents={"ppo": policies},
    )
    shares = [score(measured, policy).share_of_gap for policy in policies.values()]
    return mean(shares), measured_uncertainty(oracles)["ppo"].shares_D


def _share_of_others(
    report: BenchReport,
    algorithm: Algorithm,
    problems: dict[str, Problem],
    seeds: tuple[int, ...],
    steps: int,
) -> None:
    shares: list[float] = []
    for name, (params, source) in problems.items():
        oracle = Oracle(params, source)
        here = [
            score(oracle, _policy(algorithm, params, source, seed, steps)).share_of_gap
            for seed in seeds
        ]
        report.add({f"{algorithm}_share_mean_{name}": mean(here)})
        shares += here
    report.add({f"{algorithm}_share_mean": mean(shares), f"{algorithm}_share_min": min(shares)})


def _speed(report: BenchReport, problem: Problem, steps: int) -> None:
    """Training alone, without start-up, in turn: Table III, 20 envs, one core."""
    params, source = problem
    pairs = [
        (sb3_seconds(params, source, i, steps), _lean_seconds(params, source, i, steps))
        for i in range(_ROUNDS)
    ]
    report.add(
        {
            "ppo_vs_sb3_speed": median(sb3 / lean for sb3, lean in pairs),
            "sb3_s": median(sb3 for sb3, _ in pairs),
            "lean_s": median(lean for _, lean in pairs),
        }
    )


def sb3_seconds(params: LayerSplitParams, source: PPLSource, seed: int, steps: int) -> float:
    """Return the seconds that Stable-Baselines3's PPO trains, with Table III on 20 envs."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import DummyVecEnv

    envs = DummyVecEnv([lambda: LayerSplitEnv(params, source) for _ in range(20)])
    model = PPO("MlpPolicy", envs, n_steps=20, batch_size=100, n_epochs=10, seed=seed, device="cpu")
    start = time.perf_counter()
    model.learn(steps)
    return time.perf_counter() - start


def _lean_seconds(params: LayerSplitParams, source: PPLSource, seed: int, steps: int) -> float:
    config = TrainConfig(preset="paper", total_steps=steps)
    with tempfile.TemporaryDirectory() as folder:
        return train(params, source, config, seed, Path(folder)).curve[-1].seconds


def _policy(
    algorithm: Algorithm, params: LayerSplitParams, source: PPLSource, seed: int, steps: int
) -> Policy:
    """Train the preset `tuned` and return what it learned."""
    config = TrainConfig(algorithm=algorithm, total_steps=steps)
    with tempfile.TemporaryDirectory() as folder:
        return train(params, source, config, seed, Path(folder)).policy().actions


def _memory(report: BenchReport, demo: Path, steps: int) -> None:
    """Peak resident memory of a process that does nothing but train PPO on the surrogate."""
    code = (
        "import sys; from pathlib import Path;"
        "from bench import learning, learning_problems, memory;"
        "params, source = learning_problems.embedded_problem('A', Path(sys.argv[1]));"
        "learning._policy('ppo', params, source, 0, int(sys.argv[2]));"
        "print(memory.resident_bytes(peak=True))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(demo), str(steps)],
        capture_output=True,
        text=True,
        check=True,
    )
    report.add({"training_rss_gb": int(done.stdout.split()[-1]) / 1e9})


def _policy_time(report: BenchReport, folder: Path) -> None:
    """One decision of an exported policy, without Ray and torch."""
    params, source = embedded_problem("A", folder)
    with tempfile.TemporaryDirectory() as agent:
        policy = train(params, source, TrainConfig(total_steps=400), 0, Path(agent)).policy()
    state = (float(params.link_low_K.mean()),)
    rounds = timeit.repeat(lambda: policy(state, 3), number=10_000, repeat=5)
    report.add({"policy_us": median(rounds) / 10_000 * 1e6})


def _true_rewards(report: BenchReport, *, quick: bool) -> None:
    """PPO that learned from measured rewards beside PPO that learned from the surrogate."""
    if quick:
        report.skip("true_vs_surrogate_return", "it takes a quarter of an hour")
        return
    folder = Path("runs/bench-true-reward")
    run_stages(load_experiment("true-reward"), folder, STAGES)
    found = json.loads((folder / "evaluation.json").read_text())
    true = found["agents"]["ppo_measured"]["measured"]["return"]
    difference = found["differences"]["ppo_measured - ppo_surrogate"]
    low, high = (end / abs(true) for end in difference["return_ci95"])
    relative = difference["return"] / abs(true)
    report.add(
        {
            "true_vs_surrogate_return": abs(relative),
            "true_minus_surrogate_return": relative,
            "true_minus_surrogate_return_low": low,
            "true_minus_surrogate_return_high": high,
        }
    )
