"""A sweep whose driver is killed at random points and started again, beside one that is not."""

from __future__ import annotations

import json
import random
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bench.sweep_folder import finish_sweep, ready_for_a_sweep, start_sweep
from tuning.sweep.records import TrialFolder, trial_folders
from tuning.sweep.trial import newest_checkpoint

_SEED = 7


@dataclass(frozen=True, slots=True)
class _Seen:
    """What lay in a trial's folder when the driver was killed.

    Attributes:
        record: The record's bytes; None where the trial was not over.
        steps: Steps that are known to have been trained.
        starts: How often it had been started.
    """

    record: bytes | None
    steps: int
    starts: int


def killed_sweep(home: Path, quick: bool) -> dict[str, float]:
    """Return how many trials lost something, and how far both sweeps agree."""
    steps, interval, kills = (6_000, 1_000, 2) if quick else (24_000, 4_000, 5)
    whole = ready_for_a_sweep(
        home / "whole",
        f"agents.ppo.total_steps={steps}",
        f"agents.ppo.checkpoint_every_steps={interval}",
        "sweep.space={learning_rate: [0.0001, 0.0003, 0.001, 0.003], clip_range: [0.1, 0.4]}",
        f"sweep.seeds={[0] if quick else [0, 1]}",
    )
    killed = home / "killed"
    shutil.copytree(whole, killed)
    finish_sweep(whole)
    trials = [folder.path.name for folder in trial_folders(whole / "sweep")]
    seen = _kill_and_resume(killed, kills, steps * len(trials))
    lost = [
        key
        for key in trials
        if _lost(
            TrialFolder(killed / "sweep", key), [s[key] for s in seen if key in s], steps, interval
        )
    ]
    extra = {folder.path.name for folder in trial_folders(killed / "sweep")} - set(trials)
    best = [_best(folder) for folder in (whole, killed)]
    curves = [pd.read_parquet(folder / "sweep" / "curves.parquet") for folder in (whole, killed)]
    return {
        "resume_lost_trials": len(lost) + len(extra),
        "resume_trials": len(trials),
        "resume_kills": kills,
        "resume_same_best_setting": float(best[0] == best[1]),
        "resume_same_curves": float(curves[0].equals(curves[1])),
    }


def _kill_and_resume(folder: Path, kills: int, work: int) -> list[dict[str, _Seen]]:
    """Kill the driver where a random share of the work is done, a random moment later."""
    rng = random.Random(_SEED)
    shares = sorted(rng.uniform(0.02, 0.9) for _ in range(kills))
    seen: list[dict[str, _Seen]] = []
    for share in shares:
        driver = start_sweep(folder, resumed=bool(seen))
        while _done(folder) < share * work:
            assert driver.poll() is None, "the sweep ended before it could be killed"
            time.sleep(0.05)
        time.sleep(rng.uniform(0.0, 1.5))
        assert driver.poll() is None, "the sweep ended before it could be killed"
        driver.kill()
        driver.wait()
        seen.append({f.path.name: _look(f) for f in trial_folders(folder / "sweep")})
    finish_sweep(folder, resumed=True)
    return seen


def _done(folder: Path) -> int:
    return sum(_look(trial).steps for trial in trial_folders(folder / "sweep"))


def _look(folder: TrialFolder) -> _Seen:
    path, progress = folder.path / "record.json", folder.progress()
    record = path.read_bytes() if path.exists() else None
    steps = max(progress.steps, newest_checkpoint(folder.agent))
    return _Seen(record, steps, len(progress.starts))


def _lost(folder: TrialFolder, kills: list[_Seen], steps: int, interval: int) -> bool:
    """Tell whether a trial is unfinished, was run again, or lost more than an interval."""
    record = folder.record()
    if record is None or record.status != "finished" or record.progress.steps < steps:
        return True
    starts, now = record.progress.starts, _look(folder).record
    run_again = any(seen.record not in (None, now) for seen in kills)
    set_back = any(
        starts[seen.starts] < seen.steps - interval for seen in kills if seen.starts < len(starts)
    )
    return run_again or set_back


def _best(folder: Path) -> Any:  # noqa: ANN401 - JSON
    return json.loads((folder / "sweep" / "best.json").read_text())["best"]
