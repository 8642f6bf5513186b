"""What a run and a sweep leave behind holds no key of the environment, and no pickle."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.commands import ROOT, SMALL
from tests.pickles import pickles_in

CANARIES = {
    "WANDB_API_KEY": "canaryw0123456789abcdef0123456789abcdef0",
    "HF_TOKEN": "hf_canaryh0123456789abcdef0123456789",
    "RAY_AUTH_TOKEN": "canaryr0123456789abcdef0123456789abcdef0123456789abcdef0123456",
}
TRACKED = ["tracking={backend: wandb, mode: offline}", "backend.kind=ray"]
SWEPT = ["sweep={space: {learning_rate: [0.001]}, seeds: [0]}", *TRACKED]

# The command line, and what Ray's control plane knows (jobs, actors, nodes, key-value store) kept
# in a file before the Ray that a command started ends.
PROGRAM = """
import sys
import ray
from ray._private.state import state
from ray.experimental import internal_kv
from raysplit import cli

shutdown = ray.shutdown

def keep_state_and_shutdown():
    if not ray.is_initialized():
        return
    accessor = state._connect_and_get_accessor()
    jobs = accessor.get_job_table(skip_submission_job_info_field=True)
    actors = accessor.get_actor_table(None, None)
    parts = [*jobs, *actors, repr(ray.nodes()).encode()]
    for namespace in (None, "cluster", "dashboard", "tracing", "fun", "job", "session"):
        for key in internal_kv._internal_kv_list(b"", namespace=namespace):
            parts += [key, internal_kv._internal_kv_get(key, namespace=namespace) or b""]
    with open(sys.argv[0], "ab") as file:
        file.write(b"\\n".join([*parts, b"state kept"]))
    shutdown()

ray.shutdown = keep_state_and_shutdown
sys.argv = sys.argv[1:]  # the file in the place of the program's name
cli.main()
"""


@pytest.fixture(scope="module")
def left_behind(tmp_path_factory):
    """All that a run and a sweep leave behind, with their own home, temporary folder and Ray."""
    # Short, because the path of a socket holds about 100 characters.
    place = Path(tempfile.mkdtemp(prefix="rs-", dir="/tmp"))
    try:
        for name in ("home", "tmp"):
            (place / name).mkdir()
        environment = {
            **{name: value for name, value in os.environ.items() if name != "WANDB_MODE"},
            **CANARIES,
            "HOME": str(place / "home"),
            "TMPDIR": str(place / "tmp"),
            "RAY_TMPDIR": str(place / "tmp"),
            "NETRC": str(place / "home" / "netrc"),
            "WANDB_BASE_URL": "http://127.0.0.1:9",  # nobody answers there
        }
        settings = [value for value in SMALL if "backend.kind" not in value]
        for command, values in (("run", TRACKED), ("sweep", SWEPT)):
            options = [*settings, *(f"--set={value}" for value in values)]
            command = [command, "demo", "--out", str(place / "run"), *options]
            with (place / "printed.txt").open("ab") as printed:
                done = subprocess.run(
                    [sys.executable, "-c", PROGRAM, str(place / "state.bin"), *command],
                    stdout=printed,
                    stderr=printed,
                    cwd=ROOT,
                    env=environment,
                    timeout=300,
                    check=False,
                )
            assert done.returncode == 0, (place / "printed.txt").read_text()[-4000:]
        yield place
    finally:
        shutil.rmtree(place)


def files_of(folder):
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.thorough
class TestNoKeyIsWritten:
    def test_there_is_something_to_find_it_in(self, left_behind):
        names = [str(path.relative_to(left_behind)) for path in files_of(left_behind)]
        assert (left_behind / "run" / "report.html").exists()
        assert any(name.endswith(".wandb") for name in names)
        assert any(name.startswith("run/sweep/trials/") for name in names)
        assert any("/logs/gcs_server" in name for name in names)
        assert any("/logs/worker-" in name for name in names)
        state = (left_behind / "state.bin").read_bytes()
        assert state.count(b"state kept") >= 2
        assert b"EdgeActor" in state
        assert b"report: " in (left_behind / "printed.txt").read_bytes()

    @pytest.mark.parametrize("name", CANARIES)
    def test_the_key_is_in_no_file(self, left_behind, name):
        canary = CANARIES[name].encode()
        found = [path for path in files_of(left_behind) if canary in path.read_bytes()]
        assert found == []


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.thorough
def test_a_run_folder_holds_no_pickle(left_behind):
    """Who goes on with a stranger's folder runs nothing of theirs."""
    run = left_behind / "run"
    checkpoints = [path.name for path in files_of(run) if "checkpoints" in path.parts]
    assert checkpoints.count("state.json") >= 2  # of the run and of the sweep
    assert pickles_in(run) == []
