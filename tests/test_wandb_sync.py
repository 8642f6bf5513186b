"""What arrives at W&B, sent afterwards or as it goes, at a stand-in on loopback."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from raysplit.base.offline_runs import SYNC_COMMAND
from tests.wandb_stand_in import KEY, NOBODY, environment, send, serving

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]

# A run that is killed and started again, and another one beside it, as trials of a sweep are.
LOGGED = """
import os, signal, sys
from pathlib import Path
from raysplit.tracking import TrackingConfig, open_tracker
folder, mode, run, first = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
killed = sys.argv[5] == "killed"
config = TrackingConfig(backend="wandb", mode=mode, timeout_s=120)
result = folder.parent / "best.json"
result.write_text(run)
tracker = open_tracker(config, folder=folder, group="demo", run=run)
tracker.log_config({"seed": 7})
for step in range(first, first + 3):
    tracker.log_metrics({"judged_return": step / 2}, step)
if killed:
    tracker.log_figure("none", result.parent / "no such file.png")  # warns, and goes on
    os.kill(os.getpid(), signal.SIGKILL)
tracker.log_table("scores", ["agent", "share"], [["PPO", 0.99]])
tracker.log_artifact(result, name="best settings", kind="sweep")
tracker.finish()
"""


def log(tracking, mode, starts, url):
    """Run `LOGGED` for each (run, first step, how it ends); return what it printed."""
    said = ""
    for run, first, end in starts:
        done = subprocess.run(
            [sys.executable, "-c", LOGGED, str(tracking), mode, run, str(first), end],
            env=environment(tracking.parent, url),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode == 0) == (end == "-"), done.stderr
        said += done.stdout + done.stderr
    return said


@pytest.fixture(scope="module")
def sent(tmp_path_factory):
    """The server after the folder's runs were sent by the command that the docs name."""
    folder = tmp_path_factory.mktemp("sent") / "tracking"
    starts = (("ppo", 0, "-"), ("ppo", 3, "killed"), ("ppo", 3, "-"), ("sweep-a", 0, "-"))
    log(folder, "offline", starts, NOBODY)
    assert len(list(folder.glob("wandb/offline-run-*"))) == len(starts)
    with serving() as server:
        server.said = send(folder, folder.parent, server)
        yield server


def test_each_run_arrives_once_by_its_name(sent):
    assert sorted(run.name for run in sent.runs.values()) == ["ppo", "sweep-a"]
    assert {run.group for run in sent.runs.values()} == {"demo"}
    assert sent.named("sweep-a").config["seed"]["value"] == 7
    assert sent.named("sweep-a").exit_code == 0


@pytest.mark.parametrize(("name", "steps"), [("ppo", 6), ("sweep-a", 3)])
def test_no_row_is_lost_or_doubled(sent, name, steps):
    """Also of the run that stopped, was killed at its second start, and was started again."""
    rows = [row for row in sent.named(name).history if "judged_return" in row]
    assert [(row["step"], row["judged_return"]) for row in rows] == [
        (step, step / 2) for step in range(steps)
    ]


def test_tables_and_artefacts_arrive_whole(sent):
    for name in ("ppo", "sweep-a"):
        run = sent.named(name)
        (table,) = [body for file, body in run.files.items() if file.endswith(".table.json")]
        assert json.loads(table)["data"] == [["PPO", 0.99]]
    assert all(artifact.committed for artifact in sent.artifacts)
    bodies = {body for a in sent.artifacts if a.kind == "sweep" for body in a.files.values()}
    assert bodies == {b"ppo", b"sweep-a"}


def test_the_docs_name_the_command():
    assert f"cd runs/paper/tracking && {SYNC_COMMAND}\n" in (ROOT / "docs/cluster.md").read_text()


def test_the_key_goes_nowhere_but_into_the_request(sent):
    assert KEY not in sent.said


def test_an_online_run_that_is_started_again_goes_on_where_it_stopped(tmp_path):
    folder = tmp_path / "tracking"
    with serving() as server:
        said = log(folder, "online", (("ppo", 0, "-"), ("ppo", 3, "-")), server.url)
    assert not any(word in said for word in (KEY, "offline", "tracking failed"))
    assert not list(folder.glob("wandb/offline-run-*"))
    run = server.named("ppo")
    assert len(server.runs) == 1
    assert (run.group, run.exit_code, run.config["seed"]["value"]) == ("demo", 0, 7)
    rows = [row for row in run.history if "judged_return" in row]
    assert [(row["step"], row["judged_return"]) for row in rows] == [(s, s / 2) for s in range(6)]
    assert all(artifact.committed for artifact in server.artifacts)
    files = {name: body for a in server.artifacts for name, body in a.files.items()}
    assert files["best.json"] == b"ppo"
    assert json.loads(files["scores.table.json"])["data"] == [["PPO", 0.99]]
