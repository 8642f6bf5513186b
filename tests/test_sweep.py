"""Sweeps: the plan, refusals, records, and a tiny sweep end to end."""

import hashlib
import json
import os
import signal
from dataclasses import replace
from io import StringIO
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from rich.console import Console

from envs.example import example_params, example_source
from envs.oracle import Oracle
from raysplit.base.errors import UserError
from raysplit.measure.config import BackendConfig
from raysplit.measure.on_ray import session
from raysplit.pipeline import sweep as stage
from tuning.rllib.learner import TrainBatch
from tuning.settings import TrainConfig
from tuning.sweep.plan import Base, _draw, check_space, planned_combinations
from tuning.sweep.records import TrialDescription, TrialFolder, TrialProgress, TrialRecord
from tuning.sweep.resources import check_machine, trial_bundles
from tuning.sweep.results import best_first, curves_table, sweep_results
from tuning.sweep.run import planned_trials, run_sweep, sweep_scheduler, trials_left
from tuning.sweep.settings import AshaConfig, Range, SweepConfig
from tuning.sweep.trial import SweepJob, run_trial

AGENT = TrainConfig(
    preset="paper", total_steps=1_200, checkpoint_every_steps=400, overrides={"epochs": 1}
)
TINY = SweepConfig(space={"learning_rate": (3e-4, 1e-2)}, seeds=(0,))
HERE = BackendConfig(kind="inprocess")


def job_in(folder, agent=AGENT):
    (folder / "trials").mkdir(parents=True, exist_ok=True)
    oracle = Oracle(example_params(), example_source)
    return SweepJob(Base(example_params(), "example", agent), example_source, oracle, folder, "s")


def test_fig_8_is_16_settings_and_shares_equal_trainings(tmp_path):
    job = job_in(tmp_path, TrainConfig(preset="paper"))
    settings = planned_combinations(SweepConfig())
    assert len(settings) == 16
    assert [s.value for s in settings if s.panel == "minibatch_size"] == [50, 100, 150, 200]
    # The agent's own values stand in all four panels: 13 different settings of 5 seeds.
    assert len(planned_trials(job, SweepConfig())) == 65


def test_grid_and_random_draw_from_the_same_space():
    space = {"learning_rate": Range(low=1e-4, high=1e-2, log=True), "epochs": Range(low=2, high=9)}
    drawn = planned_combinations(SweepConfig(method="random", space=space, samples=50))
    assert drawn == planned_combinations(SweepConfig(method="random", space=space, samples=50))
    rates = np.array([s.overrides["learning_rate"] for s in drawn])
    assert 1e-4 <= rates.min() < 1e-3 < rates.max() <= 1e-2
    assert {type(s.overrides["epochs"]) for s in drawn} == {int}
    grid = SweepConfig(method="grid", space={"epochs": (1, 2), "clip_range": (0.1, 0.2, 0.3)})
    assert len({tuple(s.overrides.values()) for s in planned_combinations(grid)}) == 6


@pytest.mark.parametrize(("log", "share"), [(False, [1 / 3] * 3), (True, [0.5646, 0.2625, 0.1729])])
def test_integers_are_drawn_evenly_ends_included(log, share):
    """Evenly in x or in log x over half a unit to either side: log(1.5 / 0.5) / log(3.5 / 0.5)."""
    generator = np.random.default_rng(0)
    drawn = [_draw(Range(low=1, high=3, log=log), generator) for _ in range(20_000)]
    assert np.bincount(drawn)[1:] / 20_000 == pytest.approx(share, abs=0.01)


def test_a_setting_drawn_twice_is_one_setting():
    config = SweepConfig(method="random", space={"epochs": (5, 10)}, samples=20)
    assert sorted(s.overrides["epochs"] for s in planned_combinations(config)) == [5, 10]


def test_a_trial_of_several_seeds_reports_its_end_once(tmp_path):
    """ASHA may end a trial at any report: between two seeds nothing of the next one is there."""
    agent = AGENT.model_copy(update={"total_steps": 400, "checkpoint_every_steps": 400})
    reports = []
    run_trial(job_in(tmp_path, agent), {}, (0, 1), lambda step, value: reports.append(step))
    assert reports == [800]


def test_a_wrong_space_is_refused(tmp_path):
    base = job_in(tmp_path).base
    with pytest.raises(UserError, match="learning_rat'; did you mean"):
        check_space(base, SweepConfig(space={"learning_rat": (1e-3,)}))
    with pytest.raises(UserError, match="minibatch_size is 500"):
        check_space(base, SweepConfig(space={"minibatch_size": (500,)}))
    with pytest.raises(ValidationError, match="needs a list"):
        SweepConfig(space={"learning_rate": Range(low=1e-4, high=1e-3)})


def test_a_batch_size_that_does_not_divide_leaves_a_smaller_last_minibatch():
    rows = torch.arange(400)
    batch = TrainBatch(rows[:, None].float(), *[rows[:, None]] * 4, rows)
    parts = list(batch.shuffled(150, torch.Generator().manual_seed(0)))
    assert [len(part.targets_B) for part in parts] == [150, 150, 100]
    assert sorted(torch.cat([part.targets_B for part in parts]).tolist()) == rows.tolist()


def test_what_does_not_fit_the_machine_is_refused_before_ray_starts(tmp_path):
    import ray

    was = ray.is_initialized()
    with pytest.raises(UserError, match="asks for 999 cores"):
        check_machine(trial_bundles(SweepConfig(cpus_per_trial=999), AGENT))
    many = AGENT.model_copy(update={"num_env_runners": 500})
    with pytest.raises(UserError, match="asks for 501 cores"):
        check_machine(trial_bundles(SweepConfig(), many))
    assert ray.is_initialized() == was


@pytest.mark.parametrize(
    ("allowed", "quota", "cores"),
    [({0, 3, 5}, None, 3), ({0, 3, 5}, "max 100000", 3), ({0, 3, 5}, "250000 100000", 2)],
)
def test_cores_that_this_process_may_not_use_do_not_count(
    tmp_path, monkeypatch, allowed, quota, cores
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: allowed, raising=False)
    monkeypatch.setattr(session, "_CPU_MAX", tmp_path / "cpu.max")
    if quota is not None:
        (tmp_path / "cpu.max").write_text(quota + "\n")
    started = {}
    monkeypatch.setattr(session.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(session.ray, "init", lambda **options: started.update(options))
    monkeypatch.setattr(session, "watch_raylet", lambda: None)  # there is none
    session.start_ray(BackendConfig())
    assert started["num_cpus"] == cores
    check_machine([{"CPU": float(cores)}])
    with pytest.raises(UserError, match=f"there are {cores} "):
        check_machine([{"CPU": cores + 1.0}])


class Deadly:
    """Perplexities whose first readers are killed, as when their machine is taken back."""

    quantity = example_source.quantity

    def __init__(self, folder, deaths):
        self.folder, self.deaths = folder, deaths

    def __call__(self, split_points_N, link_states_NK):
        died = len(list(self.folder.glob("died-*")))
        if died < self.deaths:
            (self.folder / f"died-{died}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return example_source(split_points_N, link_states_NK)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.thorough
def test_a_trial_whose_machines_are_taken_back_four_times_finishes(tmp_path, ray_session):
    job, seen = job_in(tmp_path / "sweep"), []
    one = TINY.model_copy(update={"space": {"learning_rate": (1e-3,)}})
    run_sweep(replace(job, source=Deadly(tmp_path, 4)), one, BackendConfig(), seen.append)
    assert [record.status for record in seen] == ["finished"]
    assert len(list(tmp_path.glob("died-*"))) == 4


@pytest.mark.slow
def test_a_tiny_sweep_in_process(tmp_path):
    job, seen = job_in(tmp_path), []
    run_sweep(job, TINY, HERE, seen.append)
    assert [record.status for record in seen] == ["finished"] * 2
    assert trials_left(job, TINY) == ([], 0)
    results = sweep_results(job, TINY)
    table = curves_table(results)
    assert set(table["step"]) == {400, 800, 1200}
    assert list(table.groupby("value").size()) == [3, 3]
    assert list(table.dropna(subset=["share_of_gap"])["step"]) == [1200, 1200]
    ends = table[table["step"] == 1200]["judged_return"]
    assert sorted(ends) == pytest.approx(sorted(record.episode_return for record in seen))
    assert (table["judged_return"] <= job.oracle.optimal_return + 1e-9).all()
    exact = job.oracle.share_of_gap(seen[0].episode_return)
    assert seen[0].share_of_gap == pytest.approx(exact)
    order = best_first(results)
    assert order[0].share_of_gap.value >= order[1].share_of_gap.value
    # More seeds of the same settings: only what is new is trained.
    again = []
    run_sweep(job, TINY.model_copy(update={"seeds": (0, 1)}), HERE, again.append)
    assert [record.trial.seed for record in again] == [1, 1]


def test_a_damaged_record_is_not_believed(tmp_path):
    folder = TrialFolder(tmp_path, "k")
    record = TrialRecord(
        TrialDescription("k", {"epochs": 2}, 0, "s"),
        "finished",
        TrialProgress(starts=[0], curve=[(400, 1.5), (800, None)], reports=[(400, 1.5)]),
        2.0,
        0.9,
    )
    folder.save_record(record)
    assert folder.record() == record
    path = folder.path / "record.json"
    whole = path.read_text()
    path.write_text(whole.replace("0.9", "0.8"))
    assert folder.record() is None
    path.write_text(whole[: len(whole) // 2])
    assert folder.record() is None
    assert folder.damaged_files() == [path]


def test_a_record_in_the_form_of_0_1_is_not_read(tmp_path):
    """It held its content beside a hash of it; the training goes on from its checkpoints."""
    folder = TrialFolder(tmp_path, "k")
    folder.path.mkdir(parents=True)
    content = json.dumps({"starts": [0], "curve": [], "judged": [], "reports": [], "seconds": 1.0})
    digest = hashlib.sha256(content.encode()).hexdigest()
    old = f'{{"sha256": "{digest}", "content": {content}}}\n'
    for name in ("trial.json", "progress.json", "record.json"):
        (folder.path / name).write_text(old)
    assert folder.record() is folder.description() is None
    assert folder.progress() == TrialProgress()
    assert len(folder.damaged_files()) == 3


def put_on_record(job, overrides, seed, reports, episode_return=None):
    """A training that has reported; with a return, one that has finished."""
    folder = TrialFolder(job.folder, job.base.key(overrides, seed))
    trial = TrialDescription(folder.path.name, overrides, seed, job.search)
    progress = TrialProgress(starts=[0], curve=reports, judged=reports, reports=reports)
    folder.describe(trial)
    folder.save_progress(progress)
    if episode_return is not None:
        folder.save_record(TrialRecord(trial, "finished", progress, episode_return, 1.0))


def tune_trial(scheduler, config):
    """Add a trial as Tune does, and return what the scheduler says to its reports."""
    trial = SimpleNamespace(trial_id="new", config=config)
    scheduler.on_trial_add(None, trial)
    return lambda step, value: scheduler.on_trial_result(
        None, trial, {"step": step, "episode_return": value}
    )


@pytest.mark.parametrize(("search", "verdict"), [("s", "STOP"), ("another", "CONTINUE")])
def test_asha_remembers_earlier_trials(tmp_path, search, verdict):
    config = SweepConfig(
        space={"clip_range": (0.2,)}, asha=AshaConfig(grace_steps=400, reduction_factor=2)
    )
    job = job_in(tmp_path)
    for seed in range(3):
        put_on_record(job, {"clip_range": 0.2}, seed, [(400, 5.0)], 5.0)
    asha = sweep_scheduler(replace(job, search=search), config, [])
    assert tune_trial(asha, {"trial": {}})(400, 1.0) == verdict


SEARCH = SweepConfig(
    method="optuna",
    space={"learning_rate": Range(low=1e-4, high=1e-2, log=True)},
    seeds=(0, 1),
    asha=AshaConfig(grace_steps=300, reduction_factor=2),
)


def test_asha_remembers_a_setting_with_all_its_seeds(tmp_path):
    within_the_second_seed = AshaConfig(grace_steps=1_600, reduction_factor=2)
    config = SEARCH.model_copy(update={"asha": within_the_second_seed})
    job = job_in(tmp_path)
    for rate in (1e-3, 2e-3, 3e-3):
        for seed in (0, 1):
            put_on_record(job, {"learning_rate": rate}, seed, [(400, 5.0)], 5.0)
    verdict = tune_trial(sweep_scheduler(job, config, []), {"learning_rate": 4e-3})
    # The first seed's 400 steps lie below the rung; those of the second one reach it.
    assert verdict(400, 1.0) == "CONTINUE"
    assert verdict(1_600, 1.0) == "STOP"


class TestAshaAfterAResume:
    """A trial that goes on has its own past in the rungs, and no rival in it."""

    RATE: ClassVar = {"learning_rate": 1e-3}
    BEFORE: ClassVar = [(400, -5.9), (800, -5.7)]

    def test_a_second_seed_is_not_stopped_by_the_first(self, tmp_path):
        job = job_in(tmp_path)
        put_on_record(job, self.RATE, 0, self.BEFORE, -5.6)
        left, _ = trials_left(job, SEARCH)
        assert [trial.overrides for trial in left] == [self.RATE]
        unbroken = tune_trial(sweep_scheduler(job_in(tmp_path / "new"), SEARCH, []), self.RATE)
        resumed = tune_trial(sweep_scheduler(job, SEARCH, left), self.RATE)
        assert [unbroken(*report) for report in self.BEFORE] == ["CONTINUE"] * 2
        second = [(1_600, (-5.6 - 5.9) / 2), (2_000, (-5.6 - 5.7) / 2)]
        assert [unbroken(*report) for report in second] == ["CONTINUE"] * 2
        assert [resumed(*report) for report in second] == ["CONTINUE"] * 2

    def test_its_past_counts_for_the_others(self, tmp_path):
        job = job_in(tmp_path)
        put_on_record(job, self.RATE, 0, self.BEFORE, -5.6)
        put_on_record(job, self.RATE, 1, [(400, -5.5)])  # in training when the driver was killed
        asha = sweep_scheduler(job, SEARCH, trials_left(job, SEARCH)[0])
        tune_trial(asha, self.RATE)
        (bracket,) = asha._brackets
        assert [list(recorded.values()) for _, recorded in bracket._rungs] == [
            [],
            pytest.approx([(-5.6 - 5.5) / 2]),  # 1,200: seed 1 at 400
            pytest.approx([-5.7]),
            pytest.approx([-5.9]),
        ]

    def test_a_planned_training_goes_on_from_its_own_reports(self, tmp_path):
        job, grid = job_in(tmp_path), TINY.model_copy(update={"asha": SEARCH.asha})
        put_on_record(job, {"learning_rate": 3e-4}, 0, self.BEFORE)
        left, _ = trials_left(job, grid)
        asha = sweep_scheduler(job, grid, left)
        config = {"trial": {"overrides": {"learning_rate": 3e-4}, "seeds": [0]}}
        assert tune_trial(asha, config)(1_200, -9.0) == "STOP"  # it has reached the last step
        (bracket,) = asha._brackets
        assert [list(recorded.values()) for _, recorded in bracket._rungs] == [[], [-5.7], [-5.9]]


def test_a_sweep_that_ranks_nothing_says_so_in_one_line(tmp_path, monkeypatch):
    job, printed = job_in(tmp_path), StringIO()
    put_on_record(job, {"learning_rate": 1e-3}, 0, [(400, -5.9)], -5.6)  # of two seeds
    monkeypatch.setattr(stage, "console", Console(file=printed, width=300))
    stage._print(SEARCH, best_first(sweep_results(job, SEARCH)))
    assert printed.getvalue().startswith("no setting has finished all of its 2 seeds, so none is")
    assert printed.getvalue().count("\n") == 1


@pytest.mark.ray
@pytest.mark.slow
def test_optuna_and_tune_find_the_samples_asked_for(tmp_path, ray_session):
    pytest.importorskip("optuna")
    space = {"learning_rate": Range(low=1e-4, high=1e-2, log=True)}
    config = SweepConfig(method="optuna", space=space, samples=2, seeds=(0,), max_concurrent=1)
    job, seen = job_in(tmp_path), []
    run_sweep(job, config, BackendConfig(), seen.append)
    assert len(seen) == 2
    assert {record.status for record in seen} == {"finished"}
    assert trials_left(job, config) == ([], 0)
    more = config.model_copy(update={"samples": 3})
    run_sweep(job, more, BackendConfig(), seen.append)
    assert len({json.dumps(dict(r.trial.overrides)) for r in seen}) == 3


@pytest.mark.ray
@pytest.mark.slow
def test_a_resumed_setting_of_optuna_finishes_its_seeds_under_asha(tmp_path, ray_session):
    pytest.importorskip("optuna")
    job, seen = job_in(tmp_path), []
    unreachable = [(400, -0.2), (800, -0.1)]  # no rival of the second seed, which learns worse
    put_on_record(job, {"learning_rate": 1e-3}, 0, unreachable, -0.1)
    run_sweep(job, SEARCH.model_copy(update={"samples": 1}), BackendConfig(), seen.append)
    assert [(r.trial.seed, r.status) for r in seen] == [(0, "finished"), (1, "finished")]
