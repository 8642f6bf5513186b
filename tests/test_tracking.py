"""Tracking with the real packages: what was logged is read back from the files they wrote."""

import json
import logging
import os
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pydantic import ValidationError
from tensorboardX.proto.event_pb2 import Event

from raysplit.base.offline_runs import SYNC_COMMAND
from raysplit.tracking import Tracker, TrackingConfig, open_tracker
from raysplit.tracking.guarded import GuardedTracker

CANARY = "canary0123456789abcdef0123456789abcdef0123"
CONFIG = {"problem": {"case": "A"}, "seeds": [0, 1]}
OFFLINE = TrackingConfig(backend="wandb", mode="offline")


@pytest.fixture
def png(tmp_path):
    from PIL import Image

    path = tmp_path / "figure.png"
    Image.new("RGB", (6, 4), (255, 0, 0)).save(path)
    return path


def log_everything(tracker, png, first_step=0):
    artifact = png.parent / "surrogate"
    (artifact / "deep").mkdir(parents=True, exist_ok=True)
    (artifact / "deep" / "weights.safetensors").write_bytes(b"12345")
    with tracker:
        tracker.log_config(CONFIG)
        for step in range(first_step, first_step + 3):
            tracker.log_metrics({"train/return": 2.5 + step, "loss": 1 / (1 + step)}, step)
        tracker.log_figure("answer", png)
        tracker.log_table("agents", ["name", "share"], [["PPO", 0.99], ["A2C", None]])
        tracker.log_artifact(artifact, name="demo surrogate", kind="surrogate")


class TestInterface:
    def test_none_does_nothing(self, tmp_path, png):
        folder = tmp_path / "tracking"
        tracker = open_tracker(TrackingConfig(), folder=folder, group="demo", run="train")
        log_everything(tracker, png)
        assert type(tracker) is Tracker
        assert not folder.exists()

    def test_unknown_backends_are_refused(self):
        with pytest.raises(ValidationError, match="backend"):
            TrackingConfig(backend="mlflow")

    def test_a_failing_tracker_warns_once_and_is_asked_again(self, png, caplog):
        calls = []

        class Failing(Tracker):
            def log_metrics(self, metrics, step):
                calls.append(step)
                raise OSError("no space left")

        with caplog.at_level(logging.WARNING):
            log_everything(GuardedTracker(Failing()), png)
        assert calls == [0, 1, 2]
        assert [r.message.count("no space left") for r in caplog.records] == [1]

    def test_interrupts_pass(self):
        class Interrupted(Tracker):
            def log_metrics(self, metrics, step):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            GuardedTracker(Interrupted()).log_metrics({}, 0)

    def test_an_exception_marks_the_run_as_failed(self):
        outcomes = []

        class Recording(Tracker):
            def finish(self, *, failed=False):
                outcomes.append(failed)

        with GuardedTracker(Recording()):
            pass
        with pytest.raises(RuntimeError), GuardedTracker(Recording()):
            raise RuntimeError
        assert outcomes == [False, True]

    def test_a_tracker_that_cannot_start_is_replaced(self, tmp_path, png, caplog):
        blocked = tmp_path / "file"
        blocked.write_text("")
        config = TrackingConfig(backend="tensorboard")
        with caplog.at_level(logging.WARNING):
            tracker = open_tracker(config, folder=blocked, group="demo", run="train")
        assert type(tracker) is Tracker
        assert "could not start" in caplog.text


class TestTensorBoard:
    @staticmethod
    def events(folder):
        """Read event files: length, CRC, payload, CRC (the TFRecord format)."""
        for path in sorted(folder.iterdir()):
            content = path.read_bytes()
            at = 0
            while at < len(content):
                (length,) = struct.unpack_from("<Q", content, at)
                yield Event.FromString(content[at + 12 : at + 12 + length])
                at += 16 + length

    def test_values_are_read_back(self, tmp_path, png):
        config = TrackingConfig(backend="tensorboard")
        for first_step in (0, 3):  # the second time as a resumed run
            tracker = open_tracker(config, folder=tmp_path / "t", group="demo", run="train")
            log_everything(tracker, png, first_step)
        values = {}
        for event in self.events(tmp_path / "t" / "tensorboard" / "train"):
            for value in event.summary.value:
                values.setdefault(value.tag, []).append((event.step, value))
        returns = [(step, v.simple_value) for step, v in values["train/return"]]
        assert sorted(returns) == [(step, 2.5 + step) for step in range(6)]
        config_text = values["config/text_summary"][0][1].tensor.string_val[0].decode()
        assert json.loads(config_text.strip("`json\n")) == CONFIG
        table = values["agents/text_summary"][0][1].tensor.string_val[0].decode()
        assert table.splitlines()[2] == "| PPO | 0.99 |"
        image = values["answer"][0][1].image
        assert (image.width, image.height) == (6, 4)
        assert (
            b"surrogate"
            in values["artifact/demo surrogate/text_summary"][0][1].tensor.string_val[0]
        )


def records(path):
    """Read a .wandb file: a header of 7 bytes, then LevelDB's log format in blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    full, first, _, last = 1, 2, 3, 4
    content = path.read_bytes()
    assert content[:4] == b":W&B"
    at, pieces = 7, []
    while at + 7 <= len(content):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        piece = content[at + 7 : at + 7 + length]
        at += 7 + length
        pieces = [piece] if kind in (full, first) else [*pieces, piece]
        if kind in (full, last):
            yield Record.FromString(b"".join(pieces))


def history(path):
    return [
        {
            item.key or "/".join(item.nested_key): json.loads(item.value_json)
            for item in record.history.item
        }
        for record in records(path)
        if record.WhichOneof("record_type") == "history"
    ]


def logged_artifacts(path):
    return [
        r.request.log_artifact.artifact if r.HasField("request") else r.artifact
        for r in records(path)
        if r.HasField("artifact") or (r.HasField("request") and r.request.HasField("log_artifact"))
    ]


def logged_config(path):
    updates = [r.config.update for r in records(path) if r.WhichOneof("record_type") == "config"]
    at_start = [r.run.config.update for r in records(path) if r.HasField("run")]
    items = [item for update in (*at_start, *updates) for item in update]
    return {item.key: json.loads(item.value_json) for item in items}


def run_name(path):
    return next(r.run.display_name for r in records(path) if r.HasField("run"))


def wandb_teardown():
    import wandb

    wandb.teardown()  # W&B's service writes what it still holds


KILLED = """
import os, signal, sys
from pathlib import Path
from raysplit.tracking import TrackingConfig, open_tracker
config = TrackingConfig(backend="wandb", mode="offline")
tracker = open_tracker(config, folder=Path(sys.argv[1]), group="demo", run="killed")
tracker.log_table("agents", ["name"], [["PPO"]])
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def wandb_home(tmp_path_factory):
    """Keep W&B away from the user's own settings, and give it a key that must not leak."""
    import wandb

    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.setenv("NETRC", str(home / "netrc"))
        patch.setenv("WANDB_API_KEY", CANARY)
        patch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody answers there
        for name in ("WANDB_MODE", "WANDB_DIR", "WANDB_PROJECT", "WANDB_ENTITY"):
            patch.delenv(name, raising=False)
        yield home
        wandb.teardown()


@pytest.fixture(scope="module")
def two_sessions(wandb_home, tmp_path_factory):
    """A run that was logged, stopped and resumed, and another seed's run beside it."""
    import wandb
    from PIL import Image

    folder = tmp_path_factory.mktemp("tracking")
    png = tmp_path_factory.mktemp("figures") / "figure.png"
    Image.new("RGB", (6, 4)).save(png)
    for run, first_step in (("ppo/seed-0", 0), ("ppo/seed-0", 3), ("ppo/seed-1", 0)):
        tracker = open_tracker(OFFLINE, folder=folder, group="demo", run=run)
        log_everything(tracker, png, first_step)
    wandb.teardown()  # W&B's service writes what it still holds
    return folder


@pytest.mark.slow
class TestWandb:
    def test_values_are_read_back(self, two_sessions):
        by_run = {}
        for path in sorted(two_sessions.glob("wandb/offline-run-*/*.wandb")):
            kinds = {r.WhichOneof("record_type"): r for r in records(path)}
            run = next(r.run for r in records(path) if r.WhichOneof("record_type") == "run")
            assert (run.run_group, run.project) == ("demo", "raysplit")
            assert kinds["exit"].exit.exit_code == 0
            by_run.setdefault(run.display_name, []).append(path)
        assert {name: len(paths) for name, paths in by_run.items()} == {
            "ppo/seed-0": 2,
            "ppo/seed-1": 1,
        }
        rows = [row for path in by_run["ppo/seed-0"] for row in history(path) if "loss" in row]
        assert [(row["step"], row["train/return"]) for row in rows] == [
            (step, 2.5 + step) for step in range(6)
        ]
        assert [row["loss"] for row in rows] == [1 / (1 + step) for step in range(6)]

    def test_a_resumed_run_keeps_its_id_and_seeds_have_their_own(self, two_sessions):
        ids = [path.stem for path in sorted(two_sessions.glob("wandb/offline-run-*/*.wandb"))]
        assert len(ids) == 3
        assert len(set(ids)) == 2

    def test_another_folder_gives_another_id(self, wandb_home, two_sessions, tmp_path):
        open_tracker(OFFLINE, folder=tmp_path, group="demo", run="ppo/seed-0").finish()
        (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
        assert path.name not in {p.name for p in two_sessions.glob("wandb/*/*.wandb")}

    def test_config_figure_table_and_artifact_are_kept(self, two_sessions):
        path = min(two_sessions.glob("wandb/offline-run-*/*.wandb"))
        config = logged_config(path)
        assert {key: config[key] for key in CONFIG} == CONFIG
        (artifact,) = logged_artifacts(path)
        assert (artifact.name, artifact.type) == ("demo-surrogate", "surrogate")
        assert "deep/weights.safetensors" in str(artifact)
        names = [f.name for f in path.parent.rglob("files/media/**/*") if f.is_file()]
        assert [name.split("_")[0] for name in sorted(names)] == ["agents", "answer"]
        table = json.loads(next(path.parent.rglob("*.table.json")).read_text())
        assert table["columns"] == ["name", "share"]
        assert table["data"] == [["PPO", 0.99], ["A2C", None]]

    def test_a_moved_folder_is_sent_from_where_it_lies_now(self, two_sessions, tmp_path):
        moved = shutil.copytree(two_sessions, tmp_path / "moved")
        paths = [
            entry.local_path
            for path in moved.glob("wandb/offline-run-*/*.wandb")
            for artifact in logged_artifacts(path)
            for entry in artifact.manifest.contents
        ]
        assert len(paths) == 3  # one artefact a start: tables are files of the run
        for path in paths:
            assert not Path(path).is_absolute()
            assert (moved / path).read_bytes() == b"12345"
        command = ["sync", "--dry-run", *map(str, moved.glob("wandb/offline-run-*"))]
        done = subprocess.run(
            [sys.executable, "-m", "wandb", *command],
            cwd=moved,
            capture_output=True,
            text=True,
            check=True,
        )
        assert "Would sync 3 run(s)" in done.stderr

    def test_an_artifact_is_kept_as_it_was_logged(self, wandb_home, tmp_path):
        live = tmp_path / "best.json"
        folder = tmp_path / "tracking"
        for text in ("first", "second"):
            live.write_text(text)
            with open_tracker(OFFLINE, folder=folder, group="demo", run=text) as tracker:
                tracker.log_artifact(live, name="best", kind="sweep")
        wandb_teardown()
        starts = list(folder.glob("wandb/offline-run-*/*.wandb"))
        kept = [logged_artifacts(path)[0].manifest.contents[0].local_path for path in starts]
        assert {(folder / path).read_text() for path in kept} == {"first", "second"}

    def test_a_killed_process_leaves_nothing_outside_the_folder(self, wandb_home, tmp_path):
        elsewhere = tmp_path / "tmp"
        elsewhere.mkdir()
        subprocess.run(
            [sys.executable, "-c", KILLED, str(tmp_path / "run/tracking")],
            env=os.environ | {"TMPDIR": str(elsewhere)},
            cwd=Path(__file__).parents[1],
            check=False,
        )
        assert list(tmp_path.glob("run/tracking/tmp/*wandb-media"))
        until = time.monotonic() + 30  # W&B's service ends on its own, and takes its socket along
        while list(elsewhere.iterdir()) and time.monotonic() < until:
            time.sleep(0.1)
        assert list(elsewhere.iterdir()) == []

    def test_the_key_is_in_no_file(self, two_sessions, wandb_home):
        files = [p for root in (two_sessions, wandb_home) for p in root.rglob("*") if p.is_file()]
        assert len(files) > 10
        assert [path for path in files if CANARY.encode() in path.read_bytes()] == []

    def test_out_of_reach_goes_offline_and_is_waited_for_once(
        self, wandb_home, tmp_path, png, caplog, monkeypatch
    ):
        import wandb

        from raysplit.tracking.weights_and_biases import WandbTracker

        monkeypatch.setattr(WandbTracker, "reachable", True)
        config = TrackingConfig(backend="wandb", timeout_s=1)  # a key is set: online
        with caplog.at_level(logging.WARNING, logger="raysplit"):
            for run in ("first", "second"):
                log_everything(open_tracker(config, folder=tmp_path, group="demo", run=run), png)
        wandb.teardown()
        assert caplog.text.count("cannot be reached") == 1
        assert f"cd {tmp_path} && {SYNC_COMMAND}" in caplog.text
        assert len(list(tmp_path.glob("wandb/run-*"))) == 1  # the attempt
        kept = list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
        assert [len(history(path)) for path in kept] == [5, 5]
        assert CANARY not in caplog.text
        assert not any(
            CANARY.encode() in p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()
        )


class TestMode:
    @pytest.fixture(autouse=True)
    def nothing_set(self, monkeypatch, tmp_path):
        import wandb

        monkeypatch.setenv("HOME", str(tmp_path))
        for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_IDENTITY_TOKEN_FILE", "NETRC"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
        wandb.teardown()  # forget the settings of earlier tests

    @staticmethod
    def mode(**options):
        from raysplit.tracking.weights_and_biases import _mode

        return _mode(TrackingConfig(backend="wandb", **options))

    def test_offline_without_a_key(self):
        assert self.mode() == "offline"

    def test_online_with_a_key_in_the_environment(self, monkeypatch):
        monkeypatch.setenv("WANDB_API_KEY", CANARY)
        assert self.mode() == "online"

    def test_online_with_a_key_for_this_server_in_netrc(self, tmp_path):
        netrc = tmp_path / ".netrc"
        netrc.write_text(f"machine other.example.org login user password {CANARY}\n")
        netrc.chmod(0o600)
        assert self.mode() == "offline"
        netrc.write_text(f"machine wandb.example.org login user password {CANARY}\n")
        assert self.mode() == "online"

    def test_a_key_for_wandb_itself_does_not_count_for_another_server(self, tmp_path, monkeypatch):
        import wandb

        netrc = tmp_path / "netrc"
        netrc.write_text(f"machine api.wandb.ai login user password {CANARY}\n")
        monkeypatch.setenv("NETRC", str(netrc))
        assert self.mode() == "offline"
        monkeypatch.delenv("WANDB_BASE_URL")
        wandb.teardown()
        assert self.mode() == "online"

    def test_the_environment_decides_auto_and_the_config_decides_over_it(self, monkeypatch):
        monkeypatch.setenv("WANDB_API_KEY", CANARY)
        monkeypatch.setenv("WANDB_MODE", "offline")
        assert self.mode() == "offline"
        assert self.mode(mode="online") == "online"

    @pytest.mark.parametrize(("word", "mode"), [("dryrun", "offline"), ("run", "online")])
    def test_older_words_of_the_environment_are_understood(self, monkeypatch, word, mode):
        if mode == "offline":
            monkeypatch.setenv("WANDB_API_KEY", CANARY)
        monkeypatch.setenv("WANDB_MODE", word)
        assert self.mode() == mode
