"""Active measuring beside a Sobol plan: what are decisions worth after so many LLM evaluations?

Both plans are replayed on a table that was measured and ships (`envs/benchmarks.py`): its log PPL,
interpolated, answers in place of the language model, each seed with errors of its own as large as
the table's standard errors. What a plan has measured is fitted as stage `fit` does, the fit is
solved exactly, and that policy is scored on the table as it was measured.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.report import BenchReport, Options
from envs import BENCHMARK_IDS
from envs.benchmarks import Benchmark, benchmark
from envs.grid_sources import TableSource
from envs.oracle import Oracle
from envs.sources import SurrogateSource
from raysplit.base.arrays import FloatArray
from raysplit.base.statistics import bootstrap_band
from raysplit.figures import Band, EvaluationCurves, save, share_by_evaluations
from raysplit.measure.plan import PlanConfig, make_plan
from raysplit.measure.setting import Setting
from raysplit.measure.table import Measurements
from raysplit.pipeline.active import ActiveStep, active_steps
from raysplit.pipeline.experiment import Experiment
from raysplit.surrogate import fit

_TARGET_SHARE = 0.95
_TARGETS = {"active_share_24": (">=", _TARGET_SHARE)}
_PREFERRED = "raysplit/SmolLM2-Noise-v0"
_EVALUATIONS = (12, 16, 20, 24, 32, 48)
_SEEDS = 10


def run(options: Options) -> BenchReport:
    """Replay both plans with several seeds; also draw the curves, into runs/figures."""
    env_id = _PREFERRED if _PREFERRED in BENCHMARK_IDS else BENCHMARK_IDS[0]
    seeds, evaluations = (2, (12, 16)) if options.quick else (_SEEDS, _EVALUATIONS)
    config = {"quick": options.quick, "table": env_id, "seeds": seeds}
    report = BenchReport("active", _TARGETS, config | {"evaluations": list(evaluations)})
    replays = [Replay.of(benchmark(env_id), seed, evaluations[-1]) for seed in range(seeds)]
    steps = [replay.steps() for replay in replays]
    curves = {
        "active": np.array(
            [
                [replay.share(of_seed[-1].settings[:n]) for n in evaluations]
                for replay, of_seed in zip(replays, steps, strict=True)
            ]
        ),
        "Sobol": np.array([replay.sobol(evaluations) for replay in replays]),
    }
    for name, shares_SX in curves.items():
        for n, shares_S in zip(evaluations, shares_SX.T, strict=True):
            figure = f"{name.lower()}_share_{n}"
            report.add({figure: float(shares_S.mean()), f"{figure}_min": float(shares_S.min())})
    stops = [_stop(of_seed) for of_seed in steps]
    at_stop = [replay.share(stop.settings) for replay, stop in zip(replays, stops, strict=True)]
    report.add(
        {
            "active_stop_settings": float(np.mean([len(stop.settings) for stop in stops])),
            "active_stop_share": float(np.mean(at_stop)),
            "active_stop_expected": 1 - float(np.mean([stop.expected_regret for stop in stops])),
        }
    )
    if not options.quick:
        shown = {name: _band(evaluations, shares_SX) for name, shares_SX in curves.items()}
        drawn = share_by_evaluations(EvaluationCurves(curves=shown, target=_TARGET_SHARE))
        save(drawn, Path("runs/figures"), "active-evaluations")
    return report


@dataclass(frozen=True, slots=True)
class Replay:
    """One seed: an experiment on a table that answers in place of the language model.

    Attributes:
        problem: The table and its exact optimum.
        experiment: Its decision problem under an active plan.
        answers: The table with this seed's errors of measuring.
    """

    problem: Benchmark
    experiment: Experiment
    answers: TableSource

    @classmethod
    def of(cls, problem: Benchmark, seed: int, settings: int) -> Replay:
        """Draw the errors of a seed."""
        table = problem.table
        plan = PlanConfig(kind="active", seed=seed, max_settings=settings, target_regret=0.0)
        errors = table.stderr * np.random.default_rng(seed).standard_normal(table.stderr.shape)
        ends = (table.problem.min_split_point, table.problem.max_split_point)
        return cls(
            problem,
            Experiment(name="replay", problem=table.problem, plan=plan),
            TableSource(ends, table.axes, np.exp(table.log_ppl + errors)),
        )

    def steps(self) -> list[ActiveStep]:
        """Return where an active plan stood after each batch."""
        return [*active_steps(self.experiment, self.problem.oracle.params, self.measure)]

    def sobol(self, evaluations: Sequence[int]) -> list[float]:
        """Return the share after a Sobol plan of so many settings over the same ranges."""
        problem, seed = self.experiment.problem, self.experiment.plan.seed
        ends = (problem.min_split_point, problem.max_split_point)
        plans = [PlanConfig(kind="sobol", settings=n, seed=seed) for n in evaluations]
        return [self.share(make_plan(plan, ends, problem.ranges())) for plan in plans]

    def measure(self, settings: Sequence[Setting]) -> Measurements:
        """Answer from the table."""
        names = self.experiment.problem.link_names
        points_N = np.array([setting.split_point for setting in settings])
        states = [[getattr(setting.link, name) for name in names] for setting in settings]
        links_NK = np.array(states, dtype=np.float64)
        return Measurements(
            split_points_N=points_N,
            link_names=names,
            link_states_NK=links_NK,
            log_ppl_N=np.log(self.answers(points_N, links_NK)),
            stderr_N=np.full(len(points_N), np.median(self.problem.table.stderr)),
            clean_log_ppl=self.problem.table.clean_log_ppl,
        )

    def share(self, settings: Sequence[Setting]) -> float:
        """Fit, plan, and score the plan on the table as it was measured."""
        params, config = self.problem.oracle.params, self.experiment.surrogate
        ends = (params.min_split_point, params.max_split_point)
        seed, perfect_link = self.experiment.plan.seed, self.experiment.perfect_link()
        table = self.measure(settings)
        surrogate, _ = fit(table, config, seed, split_points=ends, perfect_link=perfect_link)
        plan = Oracle(params, SurrogateSource(surrogate))
        truth = self.problem.oracle
        return truth.share_of_gap(truth.plan_return(plan.actions_TPM))


def _stop(steps: Sequence[ActiveStep]) -> ActiveStep:
    """Return where a plan of the default target would have stopped, or the last step."""
    target = PlanConfig().target_regret
    for before, step in itertools.pairwise(steps):
        if max(before.expected_regret, step.expected_regret) <= target:
            return step
    return steps[-1]


def _band(evaluations: Sequence[int], shares_SX: FloatArray) -> Band:
    band = bootstrap_band(shares_SX, 0, statistic="mean")
    x = np.array(evaluations, dtype=np.float64)
    return Band(x=x, centre=band.value_X, low=band.low_X, high=band.high_X)
