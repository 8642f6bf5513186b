"""A sweep whose driver is killed goes on: nothing twice, nothing lost, whatever file is damaged."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from tests.test_sweep import AGENT, HERE, TINY, job_in
from tuning.sweep import run_sweep, trials_left
from tuning.sweep_records import trial_folders

PROGRAM = """
import sys
from pathlib import Path
from tests.test_sweep import job_in
from raysplit.shards.config import BackendConfig
from tuning.sweep import run_sweep
from tests.test_sweep_resume import LONG, WIDE
run_sweep(job_in(Path(sys.argv[1]), LONG), WIDE, BackendConfig(), lambda record: None)
"""
LONG = AGENT.model_copy(update={"total_steps": 12_000})
WIDE = TINY.model_copy(update={"space": {"learning_rate": (1e-4, 3e-4, 1e-3, 3e-3)}})


@pytest.mark.ray
@pytest.mark.slow
def test_a_killed_driver_loses_at_most_a_checkpoint_interval(tmp_path):
    driver = subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path)])
    while not list(tmp_path.glob("trials/*/record.json")):
        assert driver.poll() is None
        time.sleep(0.05)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    time.sleep(3)  # Ray's workers end with their driver
    job = job_in(tmp_path, LONG)
    finished = {f.path.name: f.record() for f in trial_folders(tmp_path) if f.record()}
    begun = {f.path.name: f.progress().steps for f in trial_folders(tmp_path)}
    seen = []
    run_sweep(job, WIDE, HERE, seen.append)
    assert not finished.keys() & {record.trial.key for record in seen}
    for folder in trial_folders(tmp_path):
        record = folder.record()
        assert record.progress.steps == 12_000
        if folder.path.name in finished:
            assert record == finished[folder.path.name]
        elif begun.get(folder.path.name, 0) > 400:
            assert record.progress.starts[-1] >= begun[folder.path.name] - 800
    assert len(trial_folders(tmp_path)) == 4
    assert trials_left(job, WIDE) == ([], 0)


def test_a_damaged_checkpoint_or_agent_costs_work_and_nothing_else(tmp_path):
    job, seen = job_in(tmp_path), []
    run_sweep(job, TINY, HERE, seen.append)
    first, second = trial_folders(tmp_path)
    (first.path / "record.json").write_text("{")
    (first.agent / "agent.json").write_text("{")
    newest = max((first.agent / "checkpoints").iterdir())
    (newest / "record.json").write_text("{")
    again = []
    run_sweep(job, TINY, HERE, again.append)
    assert [record.trial.key for record in again] == [first.path.name]
    assert again[0].progress.starts == [0, 800]  # from the older checkpoint
    before = next(record for record in seen if record.trial.key == first.path.name)
    # A resumed training ends as the unbroken one.
    assert again[0].episode_return == before.episode_return
    assert again[0].progress.curve == before.progress.curve
    assert second.record() is not None


def test_a_finished_training_whose_record_is_lost_is_only_scored_again(tmp_path):
    job, seen = job_in(tmp_path), []
    run_sweep(job, TINY, HERE, seen.append)
    folder = trial_folders(tmp_path)[0]
    (folder.path / "record.json").unlink()
    again = []
    run_sweep(replace(job, search="s"), TINY, HERE, again.append)
    assert again[0] in seen
