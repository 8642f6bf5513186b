"""Checkpoints that are loaded whole or refused, and that run nothing when they are loaded.

RLlib pickles its checkpoints, writes them in place, without checksums, and loads random weights
silently where a part is missing. Here a checkpoint holds RLlib's state as JSON and safetensors
(`state_files`); what RLlib pickles besides, its configuration and its constructors' arguments, is
built from the experiment. A checkpoint is written beside its place and moved there complete; its
manifest, written last, holds the SHA-256 of every file and of the weights; nothing is loaded before
the files agree with it, and the weights are compared once more after loading.
"""

# RLlib types its configurations by their base class and most attributes as Optional until setup:
# pyright: reportAttributeAccessIssue=false, reportOptionalMemberAccess=false

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import COMPONENT_METRICS_LOGGER, COMPONENT_RL_MODULE, DEFAULT_MODULE_ID

from raysplit.base.errors import UserError
from raysplit.base.files import sha256_of_file, write_atomically
from raysplit.base.sealed_json import read_sealed, write_sealed
from tuning.state_files import load_state, save_state

MANIFEST = "manifest.json"
_FORMAT = 2  # 1: RLlib's own files, pickled
_REMEDY = "delete that folder: training goes on from the checkpoint before it"


def checkpoint_at(agent: Path, steps: int) -> Path:
    """Return the folder of an agent's checkpoint after that many env steps."""
    return agent / f"checkpoints/step-{steps:09d}"


def checkpoints_of(agent: Path) -> list[Path]:
    """Return an agent's complete checkpoints, oldest first; a `.partial` one was being written."""
    return sorted((agent / "checkpoints").glob("step-" + "[0-9]" * 9))


def save_checkpoint(algorithm: Algorithm, folder: Path, record: dict[str, Any]) -> None:
    """Write a checkpoint of an algorithm.

    Args:
        algorithm: What to save.
        folder: Where; replaced if it exists.
        record: JSON that comes back from `restore_checkpoint`.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_state(partial, algorithm.get_state())
    write_atomically(partial / "record.json", json.dumps(record))
    content = {
        "format": _FORMAT,
        "files": _checksums(partial),
        "weights_sha256": weights_sha256(algorithm),
    }
    write_sealed(partial / MANIFEST, content)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)


def restore_checkpoint(algorithm: Algorithm, folder: Path) -> dict[str, Any]:
    """Bring an algorithm to the state of a checkpoint and return the record saved with it.

    Raises:
        UserError: A file is missing, truncated, changed or not of this checkpoint; or the state
            does not fit the algorithm, or the weights that were loaded are not those that were
            saved.
    """
    manifest = verify_checkpoint(folder)
    try:
        _set_state(algorithm, load_state(folder))
    except Exception as error:  # what the files hold decides what is raised
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(
            f"checkpoint {folder} holds no state of this algorithm ({reason:.200}); {_REMEDY}"
        ) from error
    if weights_sha256(algorithm) != manifest["weights_sha256"]:
        raise UserError(f"checkpoint {folder} loaded other weights than were saved; {_REMEDY}")
    return _record(folder)


def checkpoint_record(folder: Path) -> dict[str, Any]:
    """Return the record of a checkpoint that is whole, without loading its weights.

    Raises:
        UserError: The checkpoint is damaged.
    """
    verify_checkpoint(folder)
    return _record(folder)


def verify_checkpoint(folder: Path) -> dict[str, Any]:
    """Return a checkpoint's manifest after comparing every file with it.

    Raises:
        UserError: The manifest or a file is missing, truncated, changed or superfluous, or the
            checkpoint is of another format.
    """
    manifest = read_sealed(folder / MANIFEST, f"to drop the damaged checkpoint, {_REMEDY}")
    if manifest.get("format") != _FORMAT:
        raise UserError(
            f"checkpoint {folder} is of another version of raysplit and is not loaded: delete "
            f"{folder.parent}, and the agent is trained from the start"
        )
    expected, found = manifest["files"], _checksums(folder)
    if expected != found:
        wrong = sorted(
            name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)
        )
        what = "is missing" if wrong[0] not in found else "differs from what was saved"
        raise UserError(
            f"checkpoint {folder} is damaged: {wrong[0]} {what} ({len(wrong)} file(s) in all); "
            f"{_REMEDY}"
        )
    return manifest


def weights_sha256(algorithm: Algorithm) -> str:
    """Return the hash of all weights of the learner, names and shapes included."""
    state = algorithm.learner_group.get_state()["learner"][COMPONENT_RL_MODULE][DEFAULT_MODULE_ID]
    digest = hashlib.sha256()
    for name in sorted(state):
        value = np.ascontiguousarray(state[name])
        digest.update(f"{name} {value.dtype} {value.shape}\n".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def _set_state(algorithm: Algorithm, state: dict[str, Any]) -> None:
    # Remote runners are told the steps so far, which are a metric: first of all the metrics.
    algorithm.set_state({COMPONENT_METRICS_LOGGER: state[COMPONENT_METRICS_LOGGER]})
    algorithm.set_state(state)


def _record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "record.json").read_text())


def _checksums(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): sha256_of_file(path)
        for path in files
        if path != folder / MANIFEST
    }
