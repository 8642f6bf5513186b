"""A finished agent's record, `agent.json`: its learning curve and what it was trained from."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from envs.params import LayerSplitParams
from raysplit.base.errors import UserError
from raysplit.base.files import sha256_of
from raysplit.base.sealed_json import read_sealed
from tuning.policy import ExportedPolicy
from tuning.settings import TrainConfig

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
class TrainedAgent:
    """A finished agent's record.

    Attributes:
        folder: Where it lives.
        curve: The learning curve.
    """

    folder: Path
    curve: tuple[CurvePoint, ...]

    def policy(self) -> ExportedPolicy:
        """Load the exported policy, which runs without Ray and torch."""
        return ExportedPolicy.load(self.folder / "policy")

    def untrained_policy(self) -> ExportedPolicy:
        """Load what the agent's own network, of its own seed, would do without any training."""
        return ExportedPolicy.load(self.folder / "untrained")

    def is_whole(self) -> bool:
        """Tell whether both policies can be loaded."""
        try:
            self.policy()
            self.untrained_policy()
        except UserError:
            return False
        return True


def load_agent(out: Path, inputs: str | None = None) -> TrainedAgent:
    """Read a finished agent.

    Raises:
        UserError: It is not there, damaged, or was trained from other `inputs`.
    """
    try:
        record = read_sealed(out / "agent.json", f"this is no finished agent; {_TRAIN_AGAIN}")
        check_inputs(out, record["inputs_sha256"], inputs)
        return TrainedAgent(out, tuple(CurvePoint(**point) for point in record["curve"]))
    except (KeyError, TypeError) as error:
        raise UserError(f"{out} holds no finished agent ({error}); {_TRAIN_AGAIN}") from error


def inputs_sha256(params: LayerSplitParams, source_id: str, config: TrainConfig, seed: int) -> str:
    """Return the hash of everything that decides what is trained.

    Args:
        params: The problem.
        source_id: Differs between sources, such as `envs.checks.fingerprint`.
        config: The training section.
        seed: Of the agent.
    """
    values = {entry.name: getattr(params, entry.name) for entry in fields(params)}
    described = {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in values.items()
    } | {"family": [asdict(one) for one in params.family]}
    of_run = {"algorithm", "engine", "total_steps", "num_env_runners", "rewards", "true_steps"}
    run = config.model_dump(include=of_run)
    asked = run | config.hyperparameters().model_dump()
    return sha256_of([described, source_id, asked, seed])


def check_inputs(out: Path, found: str, expected: str | None) -> None:
    """Compare two hashes of `inputs_sha256`; `expected` may be None.

    Raises:
        UserError: They differ.
    """
    if expected is not None and found != expected:
        raise UserError(
            f"{out} holds an agent of another problem, configuration or version; train into a new "
            f"folder, or delete this one to train it anew: rm -r {shlex.quote(str(out))}"
        )
