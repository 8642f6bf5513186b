"""Train one agent: build, go on from the newest checkpoint, train, export.

    agent = train(params, source, TrainConfig(), seed=0, out=Path("agents/ppo-0"))
    agent.policy()((0.8,), 3)

The folder `out` holds `checkpoints/step-N/` (the two newest), `policy/`, `untrained/` (the policy
before training) and, written last, `agent.json` with the learning curve: an agent that is finished
is recognised and not trained again.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    EPISODE_RETURN_MEAN,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
)

from envs.checks import fingerprint
from envs.params import LayerSplitParams
from envs.sources import PPLSource
from raysplit.base.errors import UserError
from raysplit.base.sealed_json import write_sealed
from raysplit.base.threads import one_thread
from tuning.agent import CurvePoint, TrainedAgent, check_inputs, inputs_sha256, load_agent
from tuning.algorithm1 import Algorithm1Source, build_algorithm1
from tuning.checkpoint import (
    checkpoint_at,
    checkpoint_record,
    checkpoints_of,
    restore_checkpoint,
    save_checkpoint,
)
from tuning.policy import ExportedPolicy, PolicyDescription
from tuning.rllib.algorithms import algorithm_config
from tuning.rllib.env import register_with_ray
from tuning.rllib.local import SharedSource, quiet_rllib
from tuning.rllib.module import SplitModule
from tuning.settings import HINDSIGHT_FIELD, TrainConfig, is_hindsight

KEPT_CHECKPOINTS = 2


def train(
    params: LayerSplitParams,
    source: PPLSource,
    config: TrainConfig,
    seed: int,
    out: Path,
    on_progress: Callable[[CurvePoint], None] = lambda _: None,
    judge: Callable[[ExportedPolicy], float] | None = None,
) -> TrainedAgent:
    """Train one agent, or go on with one that was interrupted.

    Works without a Ray cluster (see `tuning.rllib.local`), in one, and inside a Tune trial.

    Args:
        params: The problem.
        source: Where its perplexities come from.
        config: Algorithm, preset, steps; its `seeds` are not read.
        seed: Of this agent.
        out: The agent's folder.
        on_progress: Called after each iteration with its point of the learning curve.
        judge: Returns what a policy is worth, such as an oracle's exact expectation; it scores the
            policy of each iteration for the curve, and nothing is learned from it.

    Raises:
        UserError: The folder holds another agent, or a checkpoint that is damaged; or Algorithm 1
            would never hand over.
    """
    inputs = inputs_sha256(params, fingerprint(params, source), config, seed)
    if (out / "agent.json").exists():
        finished = load_agent(out, inputs)
        if finished.is_whole():
            return finished
        (out / "agent.json").unlink()  # a policy is damaged: export both again
    begun = _begun(out, inputs)
    with quiet_rllib(config.num_env_runners), one_thread():
        run = _Run(_build(params, source, config, seed), source, config, out, inputs)
        try:
            policy_of(run.algorithm, params, f"nobody, seed {seed}").save(out / "untrained")
            if begun:
                run.resume(begun)
            run.finish_training(on_progress, run.judged_by(judge, params))
            run.export(params, seed)
        except RuntimeError as error:  # RLlib's own runner wraps what an env raises
            if isinstance(error.__cause__, UserError):
                raise error.__cause__ from None
            raise
        finally:
            run.algorithm.stop()
    return load_agent(out, inputs)


def _begun(out: Path, inputs: str) -> Path | None:
    """Return the checkpoint to go on from, once it is known to be whole and of this agent."""
    found = checkpoints_of(out)
    if not found:
        return None
    check_inputs(out, checkpoint_record(found[-1])["inputs_sha256"], inputs)
    return found[-1]


def _build(
    params: LayerSplitParams, source: PPLSource, config: TrainConfig, seed: int
) -> Algorithm:
    settings = config.hyperparameters()
    seen_by = settings.step_seen_by
    columns = len(params.link_names) + params.place_columns
    if is_hindsight(settings) and getattr(source, "measures", False):
        raise UserError(
            "this source measures its answers, and hindsight asks for every split point over every "
            f"link state; override {HINDSIGHT_FIELD[config.algorithm]} of the agent"
        )
    env_params = replace(params, observe_step=params.observe_step or seen_by != "nobody")
    rllib_config = algorithm_config(
        config,
        env=register_with_ray(),
        env_config={"params": env_params, "source": SharedSource(source)},
        actor_inputs=columns + (params.observe_step or seen_by == "all"),
        critic_inputs=columns + env_params.observe_step,
        knots=_knots(settings.link_knots, params),
        seed=seed,
    )
    if isinstance(source, Algorithm1Source):
        config.check_hand_over(source.true_steps)
        return build_algorithm1(rllib_config, source)
    return rllib_config.build_algo()


def _knots(link_knots: int, params: LayerSplitParams) -> tuple[int, ...]:
    """One knot for every split point and codec, the configured number for each link coordinate."""
    split_points = len(params.split_points)
    if link_knots == 0 or split_points < 2:
        return ()
    codecs = (len(params.codecs),) if params.chooses_codec else ()
    return (*[link_knots] * len(params.link_names), split_points, *codecs)


@dataclass(slots=True)
class _Run:
    """An algorithm in training, and the folder that it is saved in."""

    algorithm: Algorithm
    source: PPLSource
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

    def resume(self, checkpoint: Path) -> None:
        """Go on from a checkpoint."""
        record = restore_checkpoint(self.algorithm, checkpoint)
        self.curve = [CurvePoint(**point) for point in record["curve"]]
        if isinstance(self.source, Algorithm1Source):
            self.source.resume(record["algorithm_1"])

    def judged_by(
        self, judge: Callable[[ExportedPolicy], float] | None, params: LayerSplitParams
    ) -> Callable[[], float | None]:
        """Return what scores the current policy."""
        if judge is None:
            return lambda: None
        return lambda: judge(policy_of(self.algorithm, params, "nobody yet"))

    def finish_training(
        self, on_progress: Callable[[CurvePoint], None], judged_return: Callable[[], float | None]
    ) -> None:
        """Train up to the configured number of steps, saving checkpoints on the way."""
        saved_at = self.steps
        before, begin = self.seconds, time.perf_counter()
        while self.steps < self.config.total_steps:
            result = self.algorithm.train()
            elapsed = time.perf_counter() - begin
            judging = time.perf_counter()
            self.curve.append(_curve_point(result, before + elapsed, judged_return()))
            begin += time.perf_counter() - judging  # judging is no training time
            on_progress(self.curve[-1])
            if self.steps - saved_at >= self.config.checkpoint_every_steps:
                self.save()
                saved_at = self.steps
        if saved_at < self.steps:
            self.save()

    def save(self) -> None:
        """Write a checkpoint and drop those that are no longer kept."""
        record: dict[str, Any] = {
            "inputs_sha256": self.inputs,
            "curve": [asdict(point) for point in self.curve],
        }
        if isinstance(self.source, Algorithm1Source):
            record["algorithm_1"] = self.source.state()
        save_checkpoint(self.algorithm, checkpoint_at(self.out, self.steps), record)
        for old in checkpoints_of(self.out)[:-KEPT_CHECKPOINTS]:
            shutil.rmtree(old)

    def export(self, params: LayerSplitParams, seed: int) -> None:
        """Write the policy, then the record that says the agent is finished."""
        trained_by = (
            f"{self.config.algorithm} {self.config.preset}, seed {seed}, {self.steps} steps"
        )
        policy_of(self.algorithm, params, trained_by).save(self.out / "policy")
        record = {
            "algorithm": self.config.algorithm,
            "preset": self.config.preset,
            "seed": seed,
            "inputs_sha256": self.inputs,
            "curve": [asdict(point) for point in self.curve],
        }
        write_sealed(self.out / "agent.json", record)


def _curve_point(result: dict[str, Any], seconds: float, judged_return: float | None) -> CurvePoint:
    mean = float(result[ENV_RUNNER_RESULTS].get(EPISODE_RETURN_MEAN, math.nan))
    steps = int(result[NUM_ENV_STEPS_SAMPLED_LIFETIME])
    return CurvePoint(steps, None if math.isnan(mean) else mean, seconds, judged_return)


def policy_of(algorithm: Algorithm, params: LayerSplitParams, trained_by: str) -> ExportedPolicy:
    """Return the current policy of an algorithm in NumPy."""
    module = cast(SplitModule, algorithm.get_module(DEFAULT_MODULE_ID))
    description = PolicyDescription(
        link_names=params.link_names,
        min_split_point=params.min_split_point,
        max_split_point=params.max_split_point,
        sees_step=module.actor_inputs > len(params.link_names) + params.place_columns,
        activation=module.model_config["activation"],
        trained_by=trained_by,
        actions=params.actions,
        codecs=params.codecs,
    )
    return ExportedPolicy(description, *module.policy_arrays())
