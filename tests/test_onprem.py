"""`ray up` of cluster-onprem.yaml on two hosts, each a namespace of this machine with its sshd."""

import importlib.util
import json
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest
import yaml

from raysplit.doctor.cluster_file import check_cluster_file
from raysplit.pipeline.experiment import load_experiment
from raysplit.pipeline.run import run_stages

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "bench/onprem/two_hosts.py"
ASK = f"python {ROOT}/bench/onprem/ask_every_host.py 2"

# The demo with few settings, each on the whole of its text: enough for both hosts to have a share.
DEMO = (
    "corpus.max_sentences=200",
    "corpus.max_words=20",
    "plan.settings=32",
    "problem.max_split_point=4",
    "problem.link.noise_std.grid_points=3",
    "measuring.target_stderr=0.0",
    "agents.ppo.seeds=[0]",
    "agents.ppo.total_steps=2400",
)


def load_script():
    spec = importlib.util.spec_from_file_location("two_hosts", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["two_hosts"] = module
    spec.loader.exec_module(module)
    return module


two_hosts = load_script()
missing = two_hosts.missing_requirements()
on_two_hosts = [
    pytest.mark.slow,
    pytest.mark.thorough,
    pytest.mark.ray,
    pytest.mark.skipif(bool(missing), reason=f"two hosts need {', '.join(missing)}"),
]


def call(*arguments):
    """Call the script as a user would; return what it printed."""
    command = [sys.executable, str(SCRIPT), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def cluster():
    """Two hosts that `ray up` has started; taken down whatever happens, without a trace."""
    if two_hosts.are_up():
        pytest.skip("the two hosts are up already: somebody works with them")
    call("up")
    try:
        yield
    finally:
        call("down")
    assert not two_hosts.STATE.exists()
    devices = subprocess.run(["ip", "link"], capture_output=True, text=True, check=True).stdout
    assert two_hosts.BRIDGE not in devices
    assert two_hosts.HEAD.name not in devices


def run_on_head(command):
    """Run a shell command on the head, as `ray exec` does; the project lies in ~/raysplit."""
    return call("run", command)


@pytest.mark.usefixtures("cluster")
class TestTwoHosts:
    """Commands on a cluster of two hosts; they share one `ray up`."""

    pytestmark = on_two_hosts

    def test_a_task_runs_on_each_host(self):
        answer = next(line for line in run_on_head(ASK).splitlines() if line.startswith("{"))
        assert json.loads(answer) == {"10.77.0.2": "rs-head", "10.77.0.3": "rs-worker"}

    def test_each_host_has_its_own_copy_of_the_project(self):
        printed = run_on_head("python -c 'import raysplit; print(raysplit.__file__)'")
        assert f"{two_hosts.HEAD.folder}/home/raysplit/raysplit/__init__.py" in printed

    def test_the_dashboard_is_on_loopback_and_the_cluster_wants_its_token(self):
        assert "127.0.0.1:8265" in run_on_head("ss -ltn")
        join = "import ray; ray.init('10.77.0.2:6379')"
        run_on_head(f'RAY_AUTH_MODE=disabled python -c "{join}" 2>&1 | grep -q ConnectionError')

    def test_a_run_measures_on_both_hosts_what_one_process_measures(self, tmp_path):
        options = " ".join(f"--set '{value}'" for value in DEMO)
        printed = run_on_head(
            f"raysplit run demo --out ~/demo --set backend.address=auto {options}"
        )
        assert "report: " in printed
        there = two_hosts.HEAD.folder / "home/demo"
        assert (there / "report.html").exists()
        with closing(sqlite3.connect(there / "measurements.sqlite")) as ledger:
            workers = [row[0] for row in ledger.execute("SELECT worker FROM settings")]
        hosts = Counter(worker.partition(":")[0] for worker in workers)
        assert hosts.keys() == {two_hosts.HEAD.name, two_hosts.WORKER.name}
        assert min(hosts.values()) >= 5, hosts
        here = tmp_path / "here"
        run_stages(load_experiment("demo", [*DEMO, "backend.kind=inprocess"]), here, ("measure",))
        tables = [pd.read_parquet(run / "measurements.parquet") for run in (there, here)]
        pd.testing.assert_frame_equal(*tables, check_exact=True)

    def test_a_job_runs_the_tree_that_it_brings(self):
        job = "python -c 'import envs, raysplit, tuning; print(raysplit.__file__)'"
        submit = "ray job submit --address http://127.0.0.1:8265 --working-dir ~/raysplit"
        printed = run_on_head(f"{submit} -- {job}")
        assert "working_dir_files" in next(
            line for line in printed.splitlines() if line.endswith("raysplit/__init__.py")
        )

    def test_files_go_up_and_results_come_down(self, tmp_path):
        (tmp_path / "up.txt").write_text("there and back")
        config, home = str(two_hosts.CONFIG), two_hosts.HEAD.folder / "home"
        two_hosts.ray("rsync-up", config, str(tmp_path / "up.txt"), f"{home}/up.txt")
        assert run_on_head("cat ~/up.txt").count("there and back") == 1
        two_hosts.ray("rsync-down", config, f"{home}/up.txt", str(tmp_path / "down.txt"))
        assert (tmp_path / "down.txt").read_text() == "there and back"


def test_the_two_hosts_run_the_shipped_file_with_other_addresses(tmp_path):
    config = two_hosts.cluster_config()
    shipped = yaml.safe_load((ROOT / "cluster-onprem.yaml").read_text())
    assert config.keys() == shipped.keys()
    assert "192.168." not in json.dumps(config)
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump(config))
    rows = {row.name: row.status for row in check_cluster_file(path, "2.60.0")}
    assert rows["cluster.yaml: start commands"] == "ok"
    assert rows["cluster.yaml: addresses"] == "ok"
    assert rows["cluster.yaml: token"] == "ok"


def test_down_without_up_touches_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(two_hosts, "STATE", tmp_path / "none")
    monkeypatch.setattr(two_hosts, "_call", lambda *_, **__: pytest.fail("called a tool"))
    two_hosts.down()


def test_what_a_killed_run_left_behind_is_not_a_cluster(monkeypatch, tmp_path):
    monkeypatch.setattr(two_hosts, "STATE", tmp_path)
    assert not two_hosts.are_up()
    two_hosts.HEAD.folder.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)", str(tmp_path)]
    ) as host:
        (two_hosts.HEAD.folder / "pid").write_text(str(host.pid))
        try:
            while not Path(f"/proc/{host.pid}/cmdline").read_text():
                pass  # empty for a moment while the process begins
            assert two_hosts.are_up()
        finally:
            host.kill()
    assert not two_hosts.are_up()


def test_a_process_that_is_not_ours_is_not_killed():
    with subprocess.Popen(["sleep", "60"]) as stranger:
        two_hosts._kill(stranger.pid)
        assert stranger.poll() is None
        stranger.kill()
