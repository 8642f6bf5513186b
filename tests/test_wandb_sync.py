"""What arrives at W&B when the files of offline runs are sent, at a stand-in on loopback."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from raysplit.tracking.weights_and_biases import SYNC_COMMAND
from tests.wandb_stand_in import serving

pytestmark = pytest.mark.slow
KEY = "canary0123456789abcdef0123456789abcdef0123"
ROOT = Path(__file__).parents[1]

# A run that is killed and started again, and another one beside it, as trials of a sweep are.
LOGGED = """
import os, signal, sys
from pathlib import Path
from raysplit.tracking import TrackingConfig, open_tracker
folder, run, first = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
killed = sys.argv[4] == "killed"
config = TrackingConfig(backend="wandb", mode="offline")
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


@pytest.fixture(scope="module")
def sent(tmp_path_factory):
    """The server after the folder's runs were sent by the command that the docs name."""
    place = tmp_path_factory.mktemp("sent")
    folder = place / "tracking"
    environment = os.environ | {"HOME": str(place), "NETRC": str(place / "netrc")}
    for name in ("WANDB_MODE", "WANDB_DIR", "WANDB_API_KEY", "WANDB_ENTITY", "WANDB_PROJECT"):
        environment.pop(name, None)
    starts = (("ppo", 0, "-"), ("ppo", 3, "killed"), ("ppo", 3, "-"), ("sweep-a", 0, "-"))
    for run, first, end in starts:
        done = subprocess.run(
            [sys.executable, "-c", LOGGED, str(folder), run, str(first), end],
            env=environment | {"WANDB_BASE_URL": "http://127.0.0.1:9"},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode == 0) == (end == "-"), done.stderr
    with serving() as server:
        assert len(list(folder.glob("wandb/offline-run-*"))) == len(starts)
        path = f"{Path(sys.executable).parent}:{environment['PATH']}"
        done = subprocess.run(
            SYNC_COMMAND,
            shell=True,
            env=environment | {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY, "PATH": path},
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        server.said = done.stdout + done.stderr
        assert done.returncode == 0, server.said
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
