"""What W&B holds of a whole run and of a sweep.

Written offline by the command and read back from its files, or received by a stand-in for W&B.
"""

import json
import os

import numpy as np
import pytest

from tests.commands import SMALL, raysplit
from tests.test_tracking import history, logged_artifacts, logged_config, run_name
from tests.wandb_stand_in import environment, send, serving
from tuning.agent import load_agent
from tuning.sweep.records import TrialFolder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """A run folder, and its W&B files by the run's name."""
    out = tmp_path_factory.mktemp("runs") / "demo"
    away = os.environ | {"HOME": str(out.parent), "WANDB_BASE_URL": "http://127.0.0.1:9"}
    offline = ["--set=tracking={backend: wandb, mode: offline}"]
    done = raysplit("run", "demo", "--out", out, *SMALL, *offline, env=away)
    assert done.returncode == 0, done.stderr
    return out, {run_name(p): p for p in out.glob("tracking/wandb/offline-run-*/*.wandb")}


def metrics(path):
    """The last value of each metric."""
    return {name: value for row in history(path) for name, value in row.items()}


def table(path, name):
    (file,) = path.parent.glob(f"files/media/table/{name}_*.table.json")
    return json.loads(file.read_text())


def test_each_stage_and_training_is_a_run(tracked):
    assert set(tracked[1]) == {"measure", "fit", "train-ppo-0", "evaluate", "report"}


def test_the_fit_and_its_held_out_predictions(tracked):
    out, runs = tracked
    fit = json.loads((out / "surrogate" / "fit.json").read_text())
    found = metrics(runs["fit"])
    assert found["log_ppl_mse"] == fit["log_ppl"]["mse"]
    assert found["log_ppl_r2"] == fit["log_ppl"]["r2"]
    held_out = table(runs["fit"], "held-out log PPL")
    assert held_out["columns"] == ["measured", "predicted"]
    measured_N, predicted_N = np.array(held_out["data"]).T
    np.testing.assert_array_equal(measured_N, fit["measured_log_ppl_N"])
    np.testing.assert_array_equal(predicted_N, fit["predicted_log_ppl_N"])


def test_a_training_with_its_curve_and_hyperparameters(tracked):
    out, runs = tracked
    curve = load_agent(out / "agents/ppo/seed-0").curve
    rows = [row for row in history(runs["train-ppo-0"]) if "judged_return" in row]
    assert [(row["step"], row["judged_return"]) for row in rows] == [
        (point.step, point.judged_return) for point in curve
    ]
    training = logged_config(runs["train-ppo-0"])["training"]
    assert (training["algorithm"], training["seed"]) == ("ppo", 0)
    assert {"learning_rate", "gae_lambda", "epochs"} <= set(training["hyperparameters"])


def test_the_evaluation_with_all_its_scores(tracked):
    out, runs = tracked
    evaluation = json.loads((out / "evaluation.json").read_text())
    scores = table(runs["evaluate"], "scores")
    policies = evaluation["agents"] | evaluation["baselines"]
    assert len(scores["data"]) == 2 * len(policies)
    for name, source, *values in scores["data"]:
        assert values == [policies[name][source][column] for column in scores["columns"][2:]]
    (artifact,) = logged_artifacts(runs["evaluate"])
    (entry,) = artifact.manifest.contents
    kept = (out / "tracking" / entry.local_path).read_bytes()
    assert kept == (out / "evaluation.json").read_bytes()


@pytest.fixture(scope="module")
def received(tmp_path_factory):
    """A run folder and W&B's server: stages logged online, a sweep logged offline and sent."""
    home = tmp_path_factory.mktemp("runs")
    out = home / "demo"
    tiny = [*SMALL, "--set=sweep={space: {learning_rate: [0.0003, 0.003]}, seeds: [0]}"]
    with serving() as server:
        for command, mode in (("measure", "online"), ("fit", "online"), ("sweep", "offline")):
            tracking = f"--set=tracking={{backend: wandb, mode: {mode}, timeout_s: 120}}"
            given = environment(home, server.url)
            done = raysplit(command, "demo", "--out", out, *tiny, tracking, env=given)
            assert done.returncode == 0, done.stderr
        server.before = {run.name for run in server.runs.values()}
        send(out / "tracking", home, server)
    return out, server


@pytest.mark.thorough
def test_a_stage_that_is_logged_online_arrives_as_it_goes(received):
    out, server = received
    assert server.before == {"measure", "fit"}
    assert [server.named(name).exit_code for name in ("measure", "fit")] == [0, 0]
    fit = json.loads((out / "surrogate" / "fit.json").read_text())
    assert server.named("fit").summary["log_ppl_mse"] == fit["log_ppl"]["mse"]


@pytest.mark.thorough
def test_each_trial_of_a_sweep_arrives_once_with_its_judged_returns(received):
    out, server = received
    trials = [TrialFolder(out / "sweep", p.name) for p in (out / "sweep/trials").iterdir()]
    names = [f"sweep-{trial.path.name}" for trial in trials]
    assert len(names) == 2
    runs = [run.name for run in server.runs.values()]
    assert sorted(runs) == sorted([*server.before, "sweep", *names])
    for name, trial in zip(names, trials, strict=True):
        run, record = server.named(name), trial.record()
        judged = [(r["step"], r["judged_return"]) for r in run.history if "judged_return" in r]
        assert judged == [tuple(point) for point in record.progress.judged if point[1] is not None]
        assert judged
        assert run.summary["share_of_gap"] == record.share_of_gap
        assert run.config["training"]["value"]["seed"] == 0
    bodies = {body for a in server.artifacts if a.committed for body in a.files.values()}
    assert (out / "sweep/best.json").read_bytes() in bodies
