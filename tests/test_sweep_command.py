"""`raysplit sweep` as a user meets it: what it prints, what it leaves, what it refuses."""

import json
import os
import shutil

import pandas as pd
import pytest
import yaml

from tests.commands import SMALL, raysplit, raysplit_here
from tests.test_tracking import history, logged_artifacts, logged_config, run_name
from tuning.sweep import run
from tuning.sweep.records import TrialFolder

SWEEP = [
    *SMALL,
    "--set=sweep.space={learning_rate: [0.0003, 0.003], clip_range: [0.2, 0.4]}",
    "--set=sweep.seeds=[0, 1]",
]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A run folder with a sweep, and what the command printed."""
    out = tmp_path_factory.mktemp("runs") / "demo"
    for stage in ("measure", "fit"):
        assert raysplit_here(stage, "demo", "--out", out, *SWEEP).returncode == 0
    done = raysplit("sweep", "demo", "--out", out, *SWEEP)
    assert done.returncode == 0, done.stderr
    return out, done


def test_it_prints_the_best_settings_and_where_they_are(swept):
    out, done = swept
    lines = done.stderr.splitlines()
    assert done.stdout == ""
    assert lines[0].strip() == "best settings (share of the gap random - optimum on the surrogate)"
    assert "".join(lines[-2:]).endswith(f"sweep: {out / 'sweep'}")  # perhaps on two lines
    table = [line for line in lines if line.startswith("│")]
    assert {line.split()[1] for line in table} == {"learning_rate", "clip_range"}
    assert len(lines) <= len(table) + 6  # title, head, rules and the path: nothing of Tune's


def test_it_leaves_a_tidy_table_the_best_settings_and_the_figure(swept):
    home = swept[0] / "sweep"
    curves = pd.read_parquet(home / "curves.parquet")
    assert list(curves.groupby(["panel", "value"]).size()) == [6, 6, 6, 6]  # 2 seeds x 3 points
    best = json.loads((home / "best.json").read_text())
    assert best["best"]["share_of_gap"]["low"] <= best["best"]["share_of_gap"]["value"]
    assert set(best["best_by_panel"]) == {"learning_rate", "clip_range"}
    assert {path.name for path in (home / "figures").iterdir()} == {
        "fig8.pdf",
        "fig8.png",
        "fig8.svg",
    }
    # The agent's own learning rate and clip range are one training, in two panels.
    assert len(list((home / "trials").iterdir())) == 6


def test_resume_trains_nothing_twice(swept):
    out, _ = swept
    before = {p: p.stat().st_mtime_ns for p in (out / "sweep/trials").glob("*/record.json")}
    done = raysplit_here("sweep", "--resume", out)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("going on: 6 of 6 trials are over, 0 to run\n")
    after = {p: p.stat().st_mtime_ns for p in (out / "sweep/trials").glob("*/record.json")}
    assert after == before


def test_w_and_b_has_all_of_the_sweep_offline(swept, tmp_path):
    """Read back what the command wrote: each trial's run, and the sweep's own."""
    out = shutil.copytree(swept[0], tmp_path / "demo")
    for told in out.glob("sweep/trials/*/tracked"):
        told.unlink()
    offline = ["--set=tracking.backend=wandb", "--set=tracking.mode=offline"]
    away = os.environ | {"HOME": str(tmp_path), "WANDB_BASE_URL": "http://127.0.0.1:9"}
    done = raysplit("sweep", "demo", "--out", out, *SWEEP, *offline, env=away)
    assert done.returncode == 0, done.stderr
    runs = {run_name(path): path for path in out.glob("tracking/wandb/offline-run-*/*.wandb")}
    trials = [TrialFolder(out / "sweep", p.name) for p in (out / "sweep/trials").iterdir()]
    assert set(runs) == {"sweep", *(f"sweep-{trial.path.name}" for trial in trials)}
    experiment = yaml.safe_load((out / "experiment.yaml").read_text())
    for trial in trials:
        path, record = runs[f"sweep-{trial.path.name}"], trial.record()
        rows = history(path)
        curve = [(row["step"], row["episode_return"]) for row in rows if "episode_return" in row]
        assert curve == [point for point in record.progress.curve if point[1] is not None]
        judged = [(row["step"], row["judged_return"]) for row in rows if "judged_return" in row]
        assert judged == [point for point in record.progress.judged if point[1] is not None]
        assert judged[-1][1] == pytest.approx(record.episode_return)  # what it is ranked by
        assert [row["share_of_gap"] for row in rows if "share_of_gap" in row] == [
            record.share_of_gap
        ]
        config = logged_config(path)
        assert {key: config[key] for key in experiment} == experiment
        training = config["training"]
        assert training["seed"] == record.trial.seed
        assert training["hyperparameters"].items() >= dict(record.trial.overrides).items()
        assert {"gae_lambda", "epochs", "num_envs"} <= set(training["hyperparameters"])
    kept = {
        entry.path: (out / "tracking" / entry.local_path).read_bytes()
        for artifact in logged_artifacts(runs["sweep"])
        for entry in artifact.manifest.contents
    }
    assert kept == {
        name: (out / "sweep" / name).read_bytes() for name in ("curves.parquet", "best.json")
    }


def test_truncated_files_are_made_good_by_their_copies(swept):
    out, _ = swept
    for name in ("sweep/plan.json", "experiment.yaml", "manifest.json"):
        path = out / name
        path.write_bytes(path.read_bytes()[:-30])
    done = raysplit_here("sweep", "--resume", out)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("was changed or cut; going on from its copy") == 3
    assert "going on: 6 of 6 trials are over" in done.stderr
    assert "cannot be read" not in raysplit_here("sweep", "--resume", out).stderr


def test_a_plan_without_a_whole_copy_ends_with_exit_code_2(swept):
    out, _ = swept
    plans = {out / "sweep" / name: "" for name in ("plan.json", "plan.json.copy")}
    for plan in plans:
        plans[plan] = plan.read_text()
        plan.write_text(plans[plan][:-30])
    try:
        done = raysplit_here("sweep", "--resume", out)
        assert done.returncode == 2
        assert f"error: {out / 'sweep/plan.json'} and its copy are damaged" in done.stderr
        assert done.stderr.count("\n") == 1
    finally:
        for plan, whole in plans.items():
            plan.write_text(whole)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("sweep.agent=dqn", "the experiment's agents are ppo"),
        ("sweep.space={learning_rat: [0.1]}", "did you mean 'learning_rate'"),
        ("sweep.cpus_per_trial=999", "asks for 999 cores"),
    ],
)
def test_a_sweep_that_cannot_run_is_refused(swept, tmp_path, monkeypatch, value, message):
    monkeypatch.setattr(run.ray, "is_initialized", lambda: False)  # by other tests
    out = shutil.copytree(swept[0], tmp_path / "demo")
    settings = [*SWEEP, "--set=backend.kind=ray", "--set=sweep.seeds=[7]", f"--set={value}"]
    done = raysplit_here("sweep", "demo", "--out", out, *settings)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert message in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demo", "--out", "new"], "stage 'measure' is not done"),
        (["--resume", "new"], "is no run folder"),
        (["demo", "--resume", "new"], "takes an EXPERIMENT, or --resume"),
        (["--resume", "new", "--set", "name=x"], "no --out, --set or --backend"),
    ],
)
def test_a_sweep_of_nothing_is_refused(tmp_path, arguments, message):
    done = raysplit_here("sweep", *(str(tmp_path / a) if a == "new" else a for a in arguments))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert message in done.stderr
