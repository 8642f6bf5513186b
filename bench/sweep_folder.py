"""A run folder that is ready for a sweep, and `raysplit sweep` as a user calls it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from raysplit.pipeline.experiment import load_experiment
from raysplit.pipeline.run import run_stages

_DEMO = Path("runs/bench-demo")


def ready_for_a_sweep(folder: Path, *overrides: str) -> Path:
    """Measure and fit the demo in `folder` and return it; benchmarks share what is measured."""
    _DEMO.mkdir(parents=True, exist_ok=True)
    shared = f"measuring.ledger={_DEMO.resolve() / 'measurements.sqlite'}"
    experiment = load_experiment("demo", [shared, *overrides])
    run_stages(experiment, folder, ("measure", "fit"))
    return folder


def start_sweep(folder: Path, *, resumed: bool = False) -> subprocess.Popen[bytes]:
    """Start the command in a process of its own; what it prints goes to `sweep.log`."""
    experiment = [str(folder / "experiment.yaml"), "--out", str(folder)]
    arguments = ["--resume", str(folder)] if resumed else experiment
    with (folder / "sweep.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "raysplit.cli", "sweep", *arguments],
            stdout=log,
            stderr=log,
        )


def finish_sweep(folder: Path, *, resumed: bool = False) -> None:
    """Run the command to its end.

    Raises:
        RuntimeError: It failed.
    """
    if start_sweep(folder, resumed=resumed).wait():
        raise RuntimeError(f"the sweep failed: {(folder / 'sweep.log').read_text()[-2000:]}")
