"""End with one line where the raylet of a local Ray dies: Ray prints its log, or ends in silence.

Without its raylet a driver can do nothing more. As soon as it needs it, Ray's own code ends the
process with code 1, without an exception; until then it prints the raylet's log, line by line.
"""

# Ray's node is private and has no complete types:
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import ray
from ray._private import worker as ray_worker

from raysplit.base.progress import console, say

_LOOK_EVERY_S = 0.1
_DEATH = "Raylet is terminated."  # how Ray's message begins that holds the log
_PRINT = ray_worker.print_to_stdstream  # what Ray's thread for the cluster's errors calls
_EXIT_CODE = 2


def watch_raylet() -> None:
    """Watch the raylet of the Ray that this process has started, until Ray is shut down."""
    node: Any = ray_worker._global_node
    process: subprocess.Popen[bytes] = node.all_processes["raylet"][0].process
    log = Path(node.get_logs_dir_path()) / "raylet.out"

    def print_while_it_runs(data: Any, **options: Any) -> None:  # noqa: ANN401 - Ray's
        # Its death is known to Ray a moment before it can be seen here.
        told_better = any(_DEATH in line for line in data["lines"])
        if process.poll() is None and not told_better:
            _PRINT(data, **options)

    ray_worker.print_to_stdstream = print_while_it_runs
    threading.Thread(
        target=_watch, args=(process, log), name="raysplit-raylet", daemon=True
    ).start()


def _watch(process: subprocess.Popen[bytes], log: Path) -> None:
    while process.poll() is None:
        time.sleep(_LOOK_EVERY_S)
    # `ray.shutdown` lets go of the driver before it ends the raylet.
    if ray.is_initialized():
        _end(process.returncode, log)
    ray_worker.print_to_stdstream = _PRINT


def _end(code: int, log: Path) -> None:
    console.show_cursor()  # a progress bar hides it
    say("error", "red", f": {description(code, log)}")
    sys.stdout.flush()
    os._exit(_EXIT_CODE)  # an exception would have to pass through Ray, which is past answering


def description(code: int, log: Path) -> str:
    """Return what happened, where to look, and what to do.

    Args:
        code: The raylet's exit code; negative for a signal.
        log: Its log.
    """
    how = f"exit code {code}"
    if code < 0:
        how = f"signal {signal.Signals(-code).name}"
    if code == -signal.SIGKILL:
        how += ", as where memory runs out"
    return (
        f"the raylet of this machine's Ray has ended ({how}): its log is {log}; what was measured "
        "is kept: start again to go on"
    )
