"""Train one agent: build, go on from the newest checkpoint, train, export.

    agent = train(params, source, TrainConfig(), seed=0, out=Path("agents/ppo-0"))
    agent.policy()((0.8,), 3)

The folder `out` holds `checkpoints/step-N/` (the two newest), `curve.json`, `policy/`, `untrained/`
(the policy before training) and, written last, `agent.json`: an agent that is finished is
recognised and not trained again.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    EPISODE_RETURN_MEAN,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
)

from envs import register_with_ray
from envs.dynamics import fingerprint
from envs.params import LayerSplitParams
from envs.ppl_source import PPLSource
from raysplit.errors import UserError
from raysplit.files import write_atomically
from raysplit.sealed_json import read_sealed, write_sealed
from raysplit.threads import one_thread
from tuning.algorithms import algorithm_config
from tuning.checkpoint import (
    checkpoint_at,
    checkpoints_of,
    restore_checkpoint,
    save_checkpoint,
)
from tuning.local import SharedSource, quiet_rllib
from tuning.module import SplitModule
from tuning.policy import Policy, PolicyDescription
from tuning.settings import TrainConfig
from tuning.switch import SWITCHING, Algorithm1Source

KEPT_CHECKPOINTS = 2
_TRAIN_AGAIN = (
    "delete its agent.json, if there is one, and train again: it goes on from the newest checkpoint"
)


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One iteration of training.

    Attributes:
        step: Env steps so far.
        episode_return: Mean return of the episodes that ended in this iteration, with exploration;
            None if none ended.
        seconds: Training time so far, interruptions not counted.
        judged_return: What the policy was worth then, its most likely actions taken; None without
            a judge.
    """

    step: int
    episode_return: float | None
    seconds: float
    judged_return: float | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """What `on_progress` is told after each iteration."""

    point: CurvePoint
    total_steps: int
    steps_per_second: float


@dataclass(frozen=True, slots=True)
class TrainedAgent:
    """A finished agent's record.

    Attributes:
        folder: Where it lives.
        algorithm: ppo, a2c or dqn.
        preset: paper or tuned.
        seed: Its seed.
        checkpoint: RLlib's last checkpoint, with its manifest.
        curve: The learning curve.
    """

    folder: Path
    algorithm: str
    preset: str
    seed: int
    checkpoint: Path
    curve: tuple[CurvePoint, ...]

    def policy(self) -> Policy:
        """Load the exported policy, which runs without Ray and torch."""
        return Policy.load(self.folder / "policy")

    def untrained_policy(self) -> Policy:
        """Load what the agent's own network, of its own seed, would do without any training."""
        return Policy.load(self.folder / "untrained")


def train(
    params: LayerSplitParams,
    source: PPLSource,
    config: TrainConfig,
    seed: int,
    out: Path,
    on_progress: Callable[[Progress], None] = lambda _: None,
    judge: Callable[[Policy], float] | None = None,
) -> TrainedAgent:
    """Train one agent, or go on with one that was interrupted.

    Works without a Ray cluster (see `tuning.local`), in one, and inside a Tune trial.

    Args:
        params: The problem.
        source: Where its perplexities come from.
        config: Algorithm, preset, steps; its `seeds` are not read.
        seed: Of this agent.
        out: The agent's folder.
        on_progress: Called after each iteration.
        judge: Returns what a policy is worth, such as an oracle's exact expectation; it scores the
            policy of each iteration for the curve, and nothing is learned from it.

    Raises:
        UserError: The folder holds another agent, or a checkpoint that is damaged; or Algorithm 1
            would never hand over.
    """
    if isinstance(source, Algorithm1Source):
        _check_hand_over(source, config)
        source.begin()
    inputs = inputs_sha256(params, fingerprint(params, source), config, seed)
    if (out / "agent.json").exists():
        finished = load_agent(out, inputs)
        try:
            finished.policy()
            finished.untrained_policy()
            return finished
        except (UserError, OSError):
            (out / "agent.json").unlink()  # a policy is damaged: export both again
    with quiet_rllib(config.num_env_runners), one_thread():
        run = _Run(_build(params, source, config, seed), config, out, inputs)
        try:
            policy_of(run.algorithm, params, f"nobody, seed {seed}").save(out / "untrained")
            run.resume()
            run.finish_training(on_progress, run.judged_by(judge, params))
            run.export(params, seed)
        except RuntimeError as error:  # RLlib's own runner wraps what an env raises
            if isinstance(error.__cause__, UserError):
                raise error.__cause__ from None
            raise
        finally:
            run.algorithm.stop()
    return load_agent(out, inputs)


def load_agent(out: Path, inputs: str | None = None) -> TrainedAgent:
    """Read a finished agent.

    Raises:
        UserError: It is not there, damaged, or was trained from other `inputs`.
    """
    try:
        record = read_sealed(out / "agent.json", f"this is no finished agent; {_TRAIN_AGAIN}")
        content = (out / "curve.json").read_bytes()
        if hashlib.sha256(content).hexdigest() != record["curve_sha256"]:
            raise ValueError("curve.json was changed")
        curve = tuple(CurvePoint(**point) for point in json.loads(content))
        _check_inputs(out, record["inputs_sha256"], inputs)
        return TrainedAgent(
            folder=out,
            algorithm=record["algorithm"],
            preset=record["preset"],
            seed=record["seed"],
            checkpoint=out / record["checkpoint"],
            curve=curve,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{out} holds no finished agent ({error}); {_TRAIN_AGAIN}") from error


def inputs_sha256(params: LayerSplitParams, source_id: str, config: TrainConfig, seed: int) -> str:
    """Return the hash of everything that decides what is trained.

    Args:
        params: The problem.
        source_id: Tells one source from another, such as `envs.dynamics.fingerprint`.
        config: The training section.
        seed: Of the agent.
    """
    described = {entry.name: getattr(params, entry.name) for entry in fields(params)}
    of_run = {"algorithm", "engine", "total_steps", "num_env_runners", "rewards", "true_steps"}
    run = config.model_dump(include=of_run)
    asked = run | config.hyperparameters().model_dump()
    inputs = [described, source_id, asked, seed]
    content = json.dumps(inputs, sort_keys=True, default=np.ndarray.tolist)
    return hashlib.sha256(content.encode()).hexdigest()


def _check_hand_over(source: Algorithm1Source, config: TrainConfig) -> None:
    if source.true_steps >= config.total_steps:
        raise UserError(
            f"true_steps is {source.true_steps} but the training has {config.total_steps} steps: "
            "no surrogate would ever take over; lower it"
        )


def _check_inputs(out: Path, found: str, expected: str | None) -> None:
    if expected is not None and found != expected:
        raise UserError(
            f"{out} holds an agent of another problem or configuration; use a new folder"
        )


def _build(
    params: LayerSplitParams, source: PPLSource, config: TrainConfig, seed: int
) -> Algorithm:
    switched = isinstance(source, Algorithm1Source)
    settings = config.hyperparameters()
    seen_by = settings.step_seen_by
    columns = len(params.link_names) + 1
    env_params = replace(params, observe_step=params.observe_step or seen_by != "nobody")
    rllib_config = algorithm_config(
        config,
        env=register_with_ray(),
        env_config={"params": env_params, "source": source if switched else SharedSource(source)},
        actor_inputs=columns + (params.observe_step or seen_by == "all"),
        critic_inputs=columns + env_params.observe_step,
        knots=_knots(settings.link_knots, params),
        seed=seed,
    )
    if switched:
        rllib_config.algo_class = SWITCHING[cast(type[Algorithm], rllib_config.algo_class)]
    return rllib_config.build_algo()


def _knots(link_knots: int, params: LayerSplitParams) -> tuple[int, ...]:
    """One knot for every split point, the configured number for each link coordinate."""
    split_points = params.max_split_point - params.min_split_point + 1
    if link_knots == 0 or split_points < 2:
        return ()
    return (*[link_knots] * len(params.link_names), split_points)


@dataclass(slots=True)
class _Run:
    """An algorithm in training, and the folder that remembers it."""

    algorithm: Algorithm
    config: TrainConfig
    out: Path
    inputs: str
    curve: list[CurvePoint] = field(default_factory=list)

    @property
    def steps(self) -> int:
        return self.curve[-1].step if self.curve else 0

    @property
    def seconds(self) -> float:
        return self.curve[-1].seconds if self.curve else 0.0

    def resume(self) -> None:
        """Go on from the newest checkpoint, if there is one."""
        found = checkpoints_of(self.out)
        if not found:
            return
        record = restore_checkpoint(self.algorithm, found[-1])
        _check_inputs(self.out, record["inputs_sha256"], self.inputs)
        self.curve = [CurvePoint(**point) for point in record["curve"]]

    def judged_by(
        self, judge: Callable[[Policy], float] | None, params: LayerSplitParams
    ) -> Callable[[], float | None]:
        """Return what scores the policy of the moment."""
        if judge is None:
            return lambda: None
        return lambda: judge(policy_of(self.algorithm, params, "nobody yet"))

    def finish_training(
        self, on_progress: Callable[[Progress], None], judged_return: Callable[[], float | None]
    ) -> None:
        """Train up to the configured number of steps, with a checkpoint every now and then."""
        saved_at = begun_at = self.steps
        before, begin = self.seconds, time.perf_counter()
        while self.steps < self.config.total_steps:
            result = self.algorithm.train()
            elapsed = time.perf_counter() - begin
            judging = time.perf_counter()
            self.curve.append(_curve_point(result, before + elapsed, judged_return()))
            begin += time.perf_counter() - judging  # which is no training
            rate = (self.steps - begun_at) / elapsed
            on_progress(Progress(self.curve[-1], self.config.total_steps, rate))
            if self.steps - saved_at >= self.config.checkpoint_every_steps:
                self.save()
                saved_at = self.steps
        if saved_at < self.steps:
            self.save()

    def save(self) -> None:
        """Write a checkpoint and drop those that are no longer kept."""
        record = {"inputs_sha256": self.inputs, "curve": [asdict(point) for point in self.curve]}
        save_checkpoint(self.algorithm, checkpoint_at(self.out, self.steps), record)
        for old in checkpoints_of(self.out)[:-KEPT_CHECKPOINTS]:
            shutil.rmtree(old)

    def export(self, params: LayerSplitParams, seed: int) -> None:
        """Write the policy and the curve, then the record that says the agent is finished."""
        trained_by = (
            f"{self.config.algorithm} {self.config.preset}, seed {seed}, {self.steps} steps"
        )
        policy_of(self.algorithm, params, trained_by).save(self.out / "policy")
        curve = json.dumps([asdict(point) for point in self.curve])
        write_atomically(self.out / "curve.json", curve)
        record = {
            "algorithm": self.config.algorithm,
            "preset": self.config.preset,
            "seed": seed,
            "checkpoint": str(checkpoints_of(self.out)[-1].relative_to(self.out)),
            "inputs_sha256": self.inputs,
            "curve_sha256": hashlib.sha256(curve.encode()).hexdigest(),
        }
        write_sealed(self.out / "agent.json", record)


def _curve_point(result: dict[str, Any], seconds: float, judged_return: float | None) -> CurvePoint:
    mean = float(result[ENV_RUNNER_RESULTS].get(EPISODE_RETURN_MEAN, math.nan))
    steps = int(result[NUM_ENV_STEPS_SAMPLED_LIFETIME])
    return CurvePoint(steps, None if math.isnan(mean) else mean, seconds, judged_return)


def policy_of(algorithm: Algorithm, params: LayerSplitParams, trained_by: str) -> Policy:
    """Return the current policy of an algorithm in NumPy."""
    module = cast(SplitModule, algorithm.get_module(DEFAULT_MODULE_ID))
    description = PolicyDescription(
        link_names=params.link_names,
        min_split_point=params.min_split_point,
        max_split_point=params.max_split_point,
        sees_step=module.actor_inputs > len(params.link_names) + 1,
        activation=module.model_config["activation"],
        trained_by=trained_by,
    )
    return Policy(description, *module.policy_arrays())
