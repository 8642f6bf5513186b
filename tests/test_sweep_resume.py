"""A sweep whose driver is killed goes on: nothing twice, nothing lost, whatever file is damaged."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from raysplit.base import progress
from raysplit.base.errors import UserError
from raysplit.pipeline import sweep_state
from tests.test_sweep import AGENT, HERE, TINY, job_in
from tuning.sweep.records import trial_folders
from tuning.sweep.run import begun_trials, run_sweep, trials_left
from tuning.sweep.trial import drop_damaged_parts

PROGRAM = """
import sys
from pathlib import Path
from tests.test_sweep import job_in
from raysplit.measure.config import BackendConfig
from tuning.sweep.run import begun_trials, run_sweep
from tests.test_sweep_resume import KILLED, THREE
run_sweep(job_in(Path(sys.argv[1]), KILLED), THREE, BackendConfig(), lambda record: None)
"""
KILLED = AGENT.model_copy(update={"total_steps": 6_000})
THREE = TINY.model_copy(update={"space": {"learning_rate": (1e-4, 3e-4, 1e-3)}})
# Several nodes sweep these (test_multi_node.py).
LONG = AGENT.model_copy(update={"total_steps": 12_000})
WIDE = TINY.model_copy(update={"space": {"learning_rate": (1e-4, 3e-4, 1e-3, 3e-3)}})


@pytest.fixture(scope="module")
def over(tmp_path_factory):
    """The folder of a sweep that is over, its plan beside it; for copies only."""
    folder = tmp_path_factory.mktemp("over") / "sweep"
    job = job_in(folder)
    sweep_state.compare_with_plan(job, TINY, resumed=False)
    run_sweep(job, TINY, HERE, lambda record: None)
    return folder


@pytest.fixture
def job(over, tmp_path):
    """A copy of it, with its job."""
    return job_in(shutil.copytree(over, tmp_path / "sweep"))


@pytest.fixture
def begun(job):
    """What takes it up again as the command line does, and what is printed."""
    printed = StringIO()
    with pytest.MonkeyPatch.context() as patch:
        console = Console(file=printed, width=300)
        for module in (sweep_state, progress):
            patch.setattr(module, "console", console)
        patch.setattr(progress, "_warnings", console)
        yield job, printed


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
    job = job_in(tmp_path, KILLED)
    finished = {f.path.name: f.record() for f in trial_folders(tmp_path) if f.record()}
    begun = {f.path.name: f.progress().steps for f in trial_folders(tmp_path)}
    seen = []
    run_sweep(job, THREE, HERE, seen.append)
    assert not finished.keys() & {record.trial.key for record in seen}
    for folder in trial_folders(tmp_path):
        record = folder.record()
        assert record.progress.steps == 6_000
        if folder.path.name in finished:
            assert record == finished[folder.path.name]
        elif begun.get(folder.path.name, 0) > 400:
            assert record.progress.starts[-1] >= begun[folder.path.name] - 800
    assert len(trial_folders(tmp_path)) == 3
    assert trials_left(job, THREE) == ([], 0)


def test_a_damaged_checkpoint_or_agent_costs_work_and_nothing_else(job):
    first, second = trial_folders(job.folder)
    before = first.record()
    (first.path / "record.json").write_text("{")
    (first.agent / "agent.json").write_text("{")
    newest = max((first.agent / "checkpoints").iterdir())
    (newest / "record.json").write_text("{")
    again = []
    run_sweep(job, TINY, HERE, again.append)
    assert [record.trial.key for record in again] == [first.path.name]
    assert again[0].progress.starts == [0, 800]  # from the older checkpoint
    # A resumed training ends as the unbroken one.
    assert again[0].episode_return == before.episode_return
    assert again[0].progress.curve == before.progress.curve
    assert second.record() is not None


@pytest.mark.parametrize("kind", ["policy", "untrained"])
def test_either_policys_damage_is_noticed(job, kind):
    agent = trial_folders(job.folder)[0].agent
    assert drop_damaged_parts(agent) == []
    with (agent / kind / "policy.safetensors").open("ab") as weights:
        weights.write(b"1")
    assert drop_damaged_parts(agent) == [agent / "agent.json"]


def test_a_finished_training_whose_record_is_lost_is_only_scored_again(job):
    folder = trial_folders(job.folder)[0]
    before, again = folder.record(), []
    (folder.path / "record.json").unlink()
    run_sweep(replace(job, search="s"), TINY, HERE, again.append)
    assert again == [before]


class TestTakingUpAgain:
    """What `--resume` says and refuses before anything is trained."""

    def test_the_number_of_trials_is_compared(self, begun):
        job, printed = begun
        (trial_folders(job.folder)[0].path / "record.json").unlink()
        sweep_state.compare_with_plan(job, TINY, resumed=True)
        assert printed.getvalue() == "going on: 1 of 2 trials are over, 1 to run\n"
        shutil.rmtree(trial_folders(job.folder)[1].path)
        sweep_state.compare_with_plan(job, TINY, resumed=True)
        assert printed.getvalue().endswith("going on: 0 of 2 trials are over, 2 to run\n")

    def test_another_sweep_is_refused(self, begun):
        job, _ = begun
        with pytest.raises(UserError, match=r"lists 2 trainings of another.*this run's 4"):
            sweep_state.compare_with_plan(job, WIDE, resumed=True)

    @pytest.mark.parametrize("content", ["", "[]", '{"search": "s"}', None])
    def test_a_damaged_plan_is_refused_and_nothing_is_written(self, begun, content):
        job, _ = begun
        plans = [job.folder / "plan.json", job.folder / "plan.json.copy"]
        for plan in plans:
            if content is None:
                plan.unlink()
            else:
                plan.write_text(content)
        with pytest.raises(UserError, match=r"plan\.json and its copy are.*raysplit sweep "):
            sweep_state.compare_with_plan(job, TINY, resumed=True)
        assert [p.read_text() if p.exists() else None for p in plans] == [content] * 2

    def test_a_truncated_plan_is_made_good_by_its_copy(self, begun):
        job, printed = begun
        plan = job.folder / "plan.json"
        whole = plan.read_text()
        plan.write_text(whole[:-30])
        sweep_state.compare_with_plan(job, TINY, resumed=True)
        lines = printed.getvalue().splitlines()
        assert lines[0].startswith(f"{plan} was changed or cut; going on from its copy")
        assert lines[1:] == ["going on: 2 of 2 trials are over, 0 to run"]
        assert plan.read_text() == whole

    @pytest.mark.parametrize("name", ["record.json", "progress.json", "trial.json"])
    def test_a_truncated_file_of_a_trial_is_named_and_the_result_is_the_same(self, begun, name):
        job, printed = begun
        before = {folder.path.name: folder.record() for folder in trial_folders(job.folder)}
        damaged = trial_folders(job.folder)[1].path / name
        damaged.write_bytes(damaged.read_bytes()[:-20])
        sweep_state.report_damage(job.folder)
        assert printed.getvalue().split()[:3] == [str(damaged), "is", "damaged;"]
        run_sweep(job, TINY, HERE, lambda record: None)
        assert {f.path.name: f.record() for f in trial_folders(job.folder)} == before

    def test_a_truncated_checkpoint_is_named_and_the_older_one_used(self, begun):
        job, printed = begun
        folder = trial_folders(job.folder)[0]
        before = folder.record()
        (folder.path / "record.json").unlink()
        (folder.agent / "agent.json").unlink()
        newest = max((folder.agent / "checkpoints").iterdir())
        weights = max(newest.rglob("*"), key=lambda path: path.stat().st_size)
        weights.write_bytes(weights.read_bytes()[:100])
        sweep_state.report_damage(job.folder)
        assert f"{newest} is damaged" in printed.getvalue()
        run_sweep(job, TINY, HERE, lambda record: None)
        assert folder.record().progress.starts == [0, 800]
        assert folder.record().episode_return == before.episode_return


def test_a_search_remembers_a_setting_whose_description_is_damaged(job):
    before = begun_trials(job, TINY)
    (trial_folders(job.folder)[0].path / "trial.json").write_text("{")
    assert begun_trials(job, TINY) == before
