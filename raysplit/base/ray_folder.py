"""Ray's own folder, for sockets, logs and spilled objects, and why Ray cannot start with it."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from raysplit.base.files import nearest_existing

SHARED_MEMORY = Path("/dev/shm")


def ray_folder() -> Path:
    """Return where Ray puts logs and spilled objects, by Ray's own order of variables."""
    return Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp") / "ray"


def fault_of(folder: Path, shared_memory: Path = SHARED_MEMORY) -> str | None:
    """Return why a Ray cannot start here, and the remedy; None where nothing is known.

    Args:
        folder: That of `ray_folder`; it need not exist yet.
        shared_memory: Where its object store lies.
    """
    longest = 103 if sys.platform == "darwin" else 107  # what a socket's address holds
    spare = longest - len(os.fsencode(folder)) - len(_example_of_a_socket())
    if spare < 0:
        return (
            f"Ray's folder {folder} is {-spare} byte(s) too long for the paths of its sockets: "
            "set RAY_TMPDIR to a shorter one, such as /tmp"
        )
    there = nearest_existing(folder)
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return (
            f"Ray's folder {folder} cannot be written (as {there}): set RAY_TMPDIR to a folder of "
            "your own, such as ~/tmp"
        )
    if shared_memory.exists() and not os.access(shared_memory, os.W_OK | os.X_OK):
        return (
            f"{shared_memory}, where Ray keeps objects, cannot be written: mount it for writing "
            "(a container: --shm-size=4g), or use --backend inprocess"
        )
    return None


def _example_of_a_socket() -> str:
    return time.strftime("/session_%Y-%m-%d_%H-%M-%S_000000_") + "0000000/sockets/plasma_store"
