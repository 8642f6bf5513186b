"""Stage 4: score agents and baselines exactly, on the surrogate and on measured perplexity."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from envs.family import member, unseen_members
from envs.oracle import Oracle, fixed_policies, moved_by_grid
from envs.policies import Policy
from envs.score import score
from raysplit.base.errors import UserError, command
from raysplit.base.progress import console
from raysplit.base.sealed_json import write_sealed
from raysplit.base.statistics import interquartile_mean
from raysplit.link.coordinates import link_state
from raysplit.measure.service import as_table
from raysplit.measure.setting import Setting, with_each_codec
from raysplit.pipeline.baselines import baseline_policies, best_fixed_name
from raysplit.pipeline.episodes import write_episodes
from raysplit.pipeline.oracles import (
    EVALUATION,
    EVALUATION_FORM,
    EVALUATION_TABLE,
    Oracles,
    exported_policies,
    load_oracles,
)
from raysplit.pipeline.over_radio import measured_states
from raysplit.pipeline.problem import measured_problem, same_measuring_service
from raysplit.pipeline.rewards import TrainingCost
from raysplit.pipeline.run_folder import RunFolder
from raysplit.pipeline.stages.train import TRAINING_COST_FILE
from raysplit.pipeline.tracked import score_table, tracker_of
from raysplit.pipeline.uncertainty import (
    MeasuredUncertainty,
    interval_95,
    measured_uncertainty,
    share_lost_by_error,
)
from tuning.agent import load_agent
from tuning.evaluate import fidelity, summarise

_MOST_MOVED = 0.02  # of the gap, when the grid of a random link is refined
_EVALUATION_SEED = 2**40  # no plan's seeds reach it


def run(folder: RunFolder) -> list[Path]:
    """Measure the evaluation grid and write evaluation.parquet, .json and episodes.parquet."""
    seed_stderr = _measure_grid(folder)
    oracles = load_oracles(folder)
    uncertainty = measured_uncertainty(oracles)
    result: dict[str, Any] = {
        "form": EVALUATION_FORM,
        "problem": _problem(folder, oracles),
        "agents": {name: _agent(folder, oracles, name, uncertainty) for name in oracles.agents},
        "differences": _differences(uncertainty),
        "baselines": _baselines(folder, oracles),
        "members": _members(folder, oracles),
        "fidelity": asdict(fidelity(oracles.surrogate, oracles.measured))
        | {"share_lost_by_error": share_lost_by_error(oracles)},
        "seed_stderr": seed_stderr,
    }
    path = folder.path / EVALUATION
    write_sealed(path, result)
    with tracker_of(folder, "evaluate") as tracker:
        for name, agent in result["agents"].items():
            for source in ("surrogate", "measured"):
                found = {key: agent[source][key] for key in ("return", "regret", "share_of_gap")}
                metrics = {f"{name}/{source}/{key}": value for key, value in found.items()}
                tracker.log_metrics(metrics, step=0)
        tracker.log_table("scores", *score_table(result["agents"] | result["baselines"]))
        tracker.log_artifact(path, name="evaluation", kind="evaluation")
    _say_if_too_coarse(folder, result["problem"]["share_of_gap_moved_by_grid"])
    for name, agent in result["agents"].items():
        share, by_seed = (agent["measured"][f"share_of_gap{end}"] for end in ("", "_by_seed"))
        console.print(
            f"{name:<10} closes {share:.1%} of the gap random - optimum on measured PPL "
            f"({_seeds(by_seed)})"
        )
    return [path, folder.path / EVALUATION_TABLE, write_episodes(folder, oracles)]


def _seeds(share_by_seed: Sequence[float]) -> str:
    """Say what a score over the seeds is."""
    if len(share_by_seed) == 1:
        return "one seed"
    return f"interquartile mean of {len(share_by_seed)} seeds, the worst {min(share_by_seed):.1%}"


def _measure_grid(folder: RunFolder) -> float | None:
    """Measure every split point at every link state, with every codec.

    Returns what other randomness would change.

    The link's randomness differs from the plan's, so that what the surrogate and the agents learned
    of the one does not count in the other; it is shared by all split points (`paired`).
    """
    experiment = folder.experiment
    params, card = measured_problem(folder)
    problem = experiment.problem
    names, states = tuple(experiment.measured_ranges()), measured_states(experiment, params)
    settings = [
        Setting(int(p), link_state(names, state, experiment.link), _EVALUATION_SEED)
        for p, state in itertools.product(params.split_points, states)
    ]
    codecs = problem.all_codecs
    if len(codecs) > 1 and problem.actions != "split_and_codec":
        others = ", ".join(problem.codecs[1:])
        console.print(
            f"codecs     decisions are made for {problem.codec}; shown beside it: {others}"
        )
    with same_measuring_service(folder) as service:
        rows = service.measure(with_each_codec(settings, codecs), title="evaluate")
        seed_stderr = service.seed_stderr((experiment.plan.seed, _EVALUATION_SEED))
    failed = [row for row in rows.values() if row.status != "done"]
    if failed:
        raise UserError(
            f"{len(failed)} of {len(rows)} evaluation settings could not be measured, the first "
            f"({failed[0].setting.link}) because of {failed[0].reason}: start again, narrow "
            "problem.link, or set model.dtype to float32"
        )
    table = as_table(rows, names, card["clean_log_ppl"], codecs)
    table.to_parquet(folder.path / EVALUATION_TABLE)
    return seed_stderr


def _problem(folder: RunFolder, oracles: Oracles) -> dict[str, Any]:
    measured = oracles.measured
    fixed = best_fixed_name(oracles)
    policy = fixed_policies(oracles.params)[fixed]
    fixed_return = measured.policy_return(policy)
    by_state = measured.optimal_static_split_points().tolist()
    return {
        "case": folder.experiment.problem.case,
        "lambda": folder.experiment.problem.cost_weight,
        "link_coordinates": list(oracles.params.link_names),
        "link_states": measured.link_states_GK.tolist(),
        "optimal_split_points": sorted(set(by_state)),
        "optimal_split_point_by_state": by_state,
        "best_fixed": fixed,
        "best_fixed_split_point": policy.split_point,
        "best_fixed_share_of_gap": measured.share_of_gap(fixed_return),
        "surrogate": _ends(oracles.surrogate),
        "measured": _ends(measured),
        "share_of_gap_moved_by_grid": moved_by_grid(oracles.surrogate),
    }


def _say_if_too_coarse(folder: RunFolder, moved: float | None) -> None:
    """A random link's optimum is as exact as the grid that the link is rounded to."""
    if moved is not None and moved > _MOST_MOVED:
        finer = [
            f"--set=problem.link.{name}.grid_points={2 * link.grid_points - 1}"
            for name, link in folder.experiment.problem.link.items()
        ]
        run = folder.path
        remedy = command("run", run / "experiment.yaml", "--out", f"{run}-finer", *finer)
        console.print(f"The optimum moves by {moved:.1%} of the gap on a finer grid: {remedy}")


def _ends(oracle: Oracle) -> dict[str, float]:
    return {"random_return": oracle.random_return, "optimal_return": oracle.optimal_return}


def _agent(
    folder: RunFolder, oracles: Oracles, name: str, uncertainty: dict[str, MeasuredUncertainty]
) -> dict[str, Any]:
    config = folder.experiment.agents[name]
    policies = oracles.agents[name]
    sources = {"surrogate": oracles.surrogate, "measured": oracles.measured}
    scores = {
        source: _scores(oracle, list(policies.values())) for source, oracle in sources.items()
    }
    scores["measured"]["return_ci95"] = interval_95(uncertainty[name].returns_D)
    scores["measured"]["share_of_gap_ci95"] = interval_95(uncertainty[name].shares_D)
    homes = [folder.agent_folder(name, seed) for seed in config.seeds]
    costs = [TrainingCost.load(home / TRAINING_COST_FILE) for home in homes]
    return {
        "algorithm": config.algorithm,
        "preset": config.preset,
        "seeds": list(policies),
        "rewards": {
            "from": config.rewards,
            "llm_evaluations": float(np.mean([cost.llm_evaluations for cost in costs])),
            "worker_seconds": float(np.mean([cost.worker_seconds for cost in costs])),
            # Later seeds find much of what they ask for in the ledger.
            "first_seed_seconds": load_agent(homes[0]).curve[-1].seconds,
        },
        "peak_resident_bytes": max(
            (cost.peak_resident_bytes for cost in costs if cost.peak_resident_bytes), default=None
        ),
        **scores,
    }


def _scores(oracle: Oracle, policies: Sequence[Policy]) -> dict[str, Any]:
    scores = [score(oracle, policy) for policy in policies]
    summary = summarise(scores)
    return {
        "return": summary.episode_return.value,
        "return_ci95": [summary.episode_return.low, summary.episode_return.high],
        "regret": summary.regret.value,
        "share_of_gap": summary.share_of_gap.value,
        "share_of_gap_ci95": [summary.share_of_gap.low, summary.share_of_gap.high],
        "share_of_gap_by_seed": [one.share_of_gap for one in scores],
        "moving_cost": interquartile_mean([oracle.moving_cost(policy) for policy in policies]),
    }


def _differences(uncertainty: dict[str, MeasuredUncertainty]) -> dict[str, Any]:
    """Return how far each agent's return on measured PPL is above the first one's.

    Both are taken on the same redrawn tables, so errors of measuring that they share cancel.
    """
    (first, base), *others = uncertainty.items()
    return {
        f"{name} - {first}": {
            "return": interquartile_mean(found.by_seed_S) - interquartile_mean(base.by_seed_S),
            "return_ci95": interval_95(found.returns_D - base.returns_D),
        }
        for name, found in others
    }


def _baselines(folder: RunFolder, oracles: Oracles) -> dict[str, Any]:
    """Score the baselines, all made on the surrogate; the optimum is each source's own."""
    both = {"surrogate": oracles.surrogate, "measured": oracles.measured}
    steps = max(config.total_steps for config in folder.experiment.agents.values())
    scores = {
        name: {source: _single(oracle, policy) for source, oracle in both.items()}
        for name, policy in baseline_policies(oracles, steps).items()
    }
    # Over a trace the optimum knows the rows to come: it has a return, and no policy plays it.
    return {"optimum": {source: _optimum(oracle) for source, oracle in both.items()}, **scores}


def _members(folder: RunFolder, oracles: Oracles) -> list[dict[str, Any]]:
    """Score the agents on members of the family that no training drew."""
    found: list[dict[str, Any]] = []
    for values in unseen_members(oracles.params):
        params = member(oracles.params, values)
        both = {
            name: Oracle(params, oracle.source, grid_points=oracle.grid_points)
            for name, oracle in (("surrogate", oracles.surrogate), ("measured", oracles.measured))
        }
        agents = {name: exported_policies(folder, params, name) for name in oracles.agents}
        greedy = both["surrogate"].greedy_policy()
        found.append(
            {
                "values": values,
                "agents": {
                    name: {
                        source: _scores(oracle, list(policies.values()))
                        for source, oracle in both.items()
                    }
                    for name, policies in agents.items()
                },
                "greedy": {source: _single(oracle, greedy) for source, oracle in both.items()},
            }
        )
    return found


def _optimum(oracle: Oracle) -> dict[str, float]:
    return {"return": oracle.optimal_return, "regret": 0.0, "share_of_gap": 1.0}


def _single(oracle: Oracle, policy: Policy) -> dict[str, float]:
    result = score(oracle, policy)
    return {
        "return": result.episode_return,
        "regret": result.regret,
        "share_of_gap": result.share_of_gap,
        "moving_cost": oracle.moving_cost(policy),
    }
