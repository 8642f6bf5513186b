"""The doctor's rows for this machine: each names its fault and the remedy, and none runs late."""

import http.server
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from rich.console import Console

from raysplit.base.errors import UserError
from raysplit.base.offline_runs import sync_all_command
from raysplit.doctor import cluster_cost, doctor, machine, run_checks
from raysplit.doctor.check import Check
from raysplit.doctor.cluster_file import check_cluster_file
from raysplit.doctor.ec2 import gpu_count, instance_types, is_arm, virtual_cpus
from raysplit.doctor.run import print_table
from raysplit.doctor.start_rules import start_commands
from tests.closed_folder import forbid

RUNS = Path("my runs")


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("WANDB_MODE", "offline")


@pytest.fixture
def server():
    """A web server on this machine that answers 404 to everything."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_error(404)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.fixture
def silent_port():
    """A port that takes a connection and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def no_proxy(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.slow
def test_the_package_imports_neither_torch_nor_ray():
    code = "import sys, raysplit.doctor; assert not {'torch', 'ray', 'wandb'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_all_checks_have_a_row_and_every_finding_a_remedy(offline, tmp_path):
    rows = run_checks(run_root=tmp_path)
    names = [row.name for row in rows]
    expected = ["packages", "GPUs", "disk: run folder", "disk: Ray's folder", "shared memory"]
    expected += ["Ray's ports", "Ray's token", "imported models", "Hugging Face", "W&B"]
    assert [name for name in expected if name not in names] == []
    assert all(row.remedy for row in rows if row.status != "ok")


def test_imported_models_are_listed_with_their_place(tmp_path, monkeypatch):
    monkeypatch.setenv("RAYSPLIT_CACHE", str(tmp_path))
    assert machine.check_models().detail == f"none (see `raysplit import --help`) in {tmp_path}"
    for name in ("b", "a", "unfinished"):
        (tmp_path / "models" / name).mkdir(parents=True)
    for name in ("b", "a"):
        (tmp_path / "models" / name / "import.json").write_text("{}")
    assert machine.check_models().detail == f"2 (a, b) in {tmp_path}"


def test_the_exit_code_is_one_only_for_an_error(offline, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("raysplit.doctor.run.run_checks", lambda *_: [Check("a", "ok", "fine")])
    assert doctor([], tmp_path) == 0
    rows = [Check("a", "ok", "fine"), Check("b", "warning", "slow", "wait")]
    monkeypatch.setattr("raysplit.doctor.run.run_checks", lambda *_: rows)
    assert doctor([], tmp_path) == 0
    rows.append(Check("c", "error", "broken", "mend it"))
    assert doctor([], tmp_path) == 1
    assert "mend it" in capsys.readouterr().out


def test_without_files_given_those_of_the_current_folder_are_checked(
    offline, tmp_path, monkeypatch, capsys
):
    (tmp_path / "cluster-mine.yaml").write_text("- a list\n")
    monkeypatch.chdir(tmp_path)
    assert doctor() == 1
    assert "cluster-mine.yaml" in capsys.readouterr().out


def test_the_table_prints_brackets_as_they_are():
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_table([Check("x", "error", "found [red]", "use [a, b]")], console)
    text = console.export_text()
    console.file.close()
    assert "found [red]" in text
    assert "use [a, b]" in text
    assert "1 error" in text


def test_without_a_terminal_no_line_is_wrapped(monkeypatch, capsys):
    detail, remedy = "found " * 30 + "end", "do " * 60 + "so"
    monkeypatch.setattr(
        "raysplit.doctor.run.run_checks", lambda *_: [Check("name", "error", detail, remedy)]
    )
    monkeypatch.delenv("COLUMNS", raising=False)
    doctor([])
    lines = capsys.readouterr().out.splitlines()
    assert any(detail in line and remedy in line for line in lines)


def test_gpus_are_listed_or_their_absence_explained(tmp_path):
    listing = tmp_path / "smi"
    listing.write_text(
        "#!/bin/sh\necho 'NVIDIA H200, 143771 MiB'\necho 'NVIDIA H200, 143771 MiB'\n"
    )
    listing.chmod(0o755)
    found = machine.check_gpus("2.13.0+cu130", [str(listing)])
    assert (found.status, found.detail) == ("ok", "2: NVIDIA H200, 143771 MiB")
    assert machine.check_gpus("2.13.0+cpu", [str(listing)]).status == "error"
    assert machine.check_gpus("2.13.0", [str(tmp_path / "none")]).status == "warning"
    listing.write_text("#!/bin/sh\necho 'driver mismatch' >&2; exit 9\n")
    broken = machine.check_gpus("2.13.0", [str(listing)])
    assert broken.status == "error"
    assert "driver mismatch" in broken.detail


@pytest.mark.parametrize(
    ("total_gib", "free_gib", "status"),
    [(100, 50, "ok"), (100, 4, "warning"), (100, 0.2, "error"), (1000, 30, "warning")],
)
def test_disk_space_is_judged_by_what_is_free(tmp_path, monkeypatch, total_gib, free_gib, status):
    usage = machine.shutil._ntuple_diskusage(
        total_gib * machine.GIB, (total_gib - free_gib) * machine.GIB, free_gib * machine.GIB
    )
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: usage)
    row = machine.check_disk(tmp_path / "not" / "yet", 5)
    assert row.status == status
    assert str(tmp_path) in row.detail


def test_a_file_in_place_of_the_run_folder_is_an_error(tmp_path):
    (tmp_path / "runs").write_text("")
    assert machine.check_disk(tmp_path / "runs" / "a", 0.001).status == "error"


def test_a_folder_that_may_not_be_entered_is_an_error(tmp_path, monkeypatch):
    closed = tmp_path / "closed"
    closed.mkdir()
    forbid(monkeypatch, closed)
    row = machine.check_disk(closed / "runs" / "a", 0.001)
    assert (row.status, row.detail) == ("error", f"{closed} cannot be written")


def test_a_token_that_may_not_be_seen_counts_as_missing(tmp_path, monkeypatch):
    forbid(monkeypatch, tmp_path)
    assert machine.check_token(tmp_path / "auth_token").status == "warning"


def test_small_shared_memory_is_a_warning(tmp_path, monkeypatch):
    usage = machine.shutil._ntuple_diskusage(64 << 20, 0, 64 << 20)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: usage)
    row = machine.check_shared_memory(tmp_path)
    assert row.status == "warning"
    assert "--shm-size" in row.remedy


@pytest.mark.parametrize("interface", ["127.0.0.1", "0.0.0.0"])
def test_a_taken_port_is_named_with_its_use(interface):
    with socket.create_server((interface, 0)) as listener:
        port = listener.getsockname()[1]
        row = machine.check_ports({port: "cluster"})
        assert row.status == "warning"
        assert f"{port} (cluster)" in row.detail
    assert machine.check_ports({port: "cluster"}).status == "ok"


def test_the_token_must_exist_and_be_private(tmp_path):
    token = tmp_path / "auth token"
    assert machine.check_token(token).status == "warning"
    token.write_text("canary-secret")
    token.chmod(0o644)
    readable = machine.check_token(token)
    assert (readable.status, readable.remedy) == ("warning", f"chmod 600 '{token}'")
    token.chmod(0o600)
    private = machine.check_token(token)
    assert private.status == "ok"
    assert "canary" not in private.detail + readable.detail


def test_versions_are_compared_with_the_constraints(tmp_path):
    pins = tmp_path / "the project" / "constraints.txt"
    pins.parent.mkdir()
    installed = machine.installed_version("ray"), machine.installed_version("numpy")
    pins.write_text(f"# made by hand\nray=={installed[0]}\nnumpy=={installed[1]}  # why\n")
    (row,) = machine.check_versions(pins)
    assert (row.status, row.detail) == ("ok", "2 installed packages match constraints.txt")
    pins.write_text(
        "ray==2.59.0\nnumpy==1.0\nnot-installed==1\npip==0.1 ; python_version < '3'\n-r x.txt\n"
    )
    rows = {row.name: row for row in machine.check_versions(pins)}
    assert {name: row.status for name, row in rows.items()} == {
        "version: ray": "error",
        "version: numpy": "warning",
    }
    assert rows["version: ray"].remedy == f"pip install -c '{pins}' ray==2.59.0"
    assert machine.pinned_ray_version(machine.read_constraints(pins)) == "2.59.0"
    (row,) = machine.check_versions(tmp_path / "none.txt")
    assert row.status == "warning"


def test_a_foreign_envs_package_is_an_error(tmp_path, monkeypatch):
    assert machine.check_packages().status == "ok"
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "envs", raising=False)
    row = machine.check_packages()
    assert row.status == "error"
    assert str(tmp_path) in row.detail


def test_a_server_that_answers_anything_is_in_reach(server, monkeypatch):
    no_proxy(monkeypatch)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", server)
    assert machine.check_hub(5).status == "ok"


def test_closed_and_silent_servers_are_warnings(silent_port, monkeypatch):
    no_proxy(monkeypatch)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent_port}")
    silent = machine.check_tracking(RUNS, 0.2)
    assert silent.status == "warning"
    assert silent.remedy.endswith(sync_all_command(RUNS))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:1")
    closed = machine.check_tracking(RUNS, 5)
    assert closed.status == "warning"
    assert "refused" in closed.detail


def test_the_command_for_offline_runs_sends_those_of_every_run(tmp_path):
    """As the shell takes it, with a `wandb` that says where it was called, and with what."""
    runs = tmp_path / "my runs"
    for name in ("a", "b"):
        (runs / name / "tracking/wandb/offline-run-1").mkdir(parents=True)
    wandb = tmp_path / "wandb"
    wandb.write_text('#!/bin/sh\necho "$(basename "$(dirname "$PWD")") $*"\n')
    wandb.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    command = sync_all_command(runs)
    said = subprocess.check_output(["sh", "-c", command], env={"PATH": path}, text=True)
    assert said == "a sync wandb/offline-run-1\nb sync wandb/offline-run-1\n"


def test_an_unanswered_name_look_up_does_not_hold_the_doctor_up():
    never = threading.Event()
    assert machine.within(0.05, lambda: str(never.wait(60))) is None
    never.set()


def test_offline_by_choice_is_fine(offline):
    assert machine.check_hub(1).status == "ok"
    assert machine.check_tracking(RUNS, 1).status == "ok"


def test_the_cost_is_the_documented_sum():
    cost = cluster_cost(
        settings=3600, seconds_per_setting=2, gpus=4, price_per_gpu_hour=1.5,
        price_per_head_hour=0.5, efficiency=0.5, start_minutes=6, idle_minutes=12,
        other_stages_hours=0.4,
    )  # fmt: skip
    assert cost.measuring_hours == pytest.approx(1.0)
    assert cost.gpu_hours == pytest.approx(4 * (0.1 + 1.0 + 0.2))
    assert cost.gpu_cost == pytest.approx(7.8)
    assert cost.total_hours == pytest.approx(0.1 + 1.0 + 0.4)
    assert cost.total_cost == pytest.approx(7.8 + 0.75)


def test_the_example_in_the_documentation_prints_what_stands_below_it(capsys):
    text = (Path(__file__).parent.parent / "docs/cluster.md").read_text()
    calculation = text.partition("**An example.")[2]
    code, printed = re.findall(r"```(?:python)?\n(.*?)```", calculation, re.DOTALL)[:2]
    exec(code, {})
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize(
    "wrong",
    [{"gpus": 0}, {"efficiency": 0}, {"price_per_gpu_hour": -1}, {"other_stages_hours": -1}],
)
def test_impossible_costs_are_refused(wrong):
    right = {"settings": 1, "seconds_per_setting": 1, "gpus": 1}
    prices = {"price_per_gpu_hour": 1, "price_per_head_hour": 1}
    with pytest.raises(UserError):
        cluster_cost(**{**right, **prices, **wrong})


def test_start_commands_are_taken_apart():
    line = "ulimit -n 9; A=1 B='x y' ray start --head --port 7000 --x=$(a | b --c) -v; echo --no"
    (command,) = start_commands(["ray stop", line])
    assert command.environment == {"A": "1", "B": "x y"}
    assert command.options == {"--head": "", "--port": "7000", "--x": "$(a | b --c)", "-v": ""}
    assert command.port == "7000"
    assert start_commands(["ray stop", "ray status", "echo ray start --head"]) == []


@pytest.mark.parametrize(
    "script",
    [
        "A=1 ray start --head",
        "export A=1; ray start --head",
        "export A=1 && ray start --head",
        "A=1\nexport A\nray start --head",
        "export A=0; A=1; ray start --head",
        "env A=1 ~/env/bin/ray start --head",
        "if true; then A=1 ray start --head; fi",
        "(A=1 ray start --head)",
        "A=1 \\\n  ray start \\\n  --head",
        "# don't stop\nA=1 ray start --head  # it's the head",
        "A=1 ray start --head > log 2>&1",
        "A=1 ray start --head &> log",
    ],
)
def test_a_start_command_may_be_written_in_many_ways(script):
    (command,) = start_commands([script])
    assert command.environment == {"A": "1"}
    assert command.options == {"--head": ""}
    assert command.cut_off == ""


def test_options_may_follow_a_redirection():
    for script in (
        "ray start > log --head",
        "ray start 2>&1 --head",
        "ray start --head 2> /dev/null",
    ):
        assert start_commands([script])[0].options == {"--head": ""}


def test_quoted_separators_are_text():
    (command,) = start_commands(["echo 'a; b' | cat && A='x;y' ray start --x=\"(a|b)\""])
    assert (command.environment, command.options) == ({"A": "x;y"}, {"--x": "(a|b)"})


def test_a_variable_in_a_statement_of_its_own_is_not_seen():
    for script in ("A=1; ray start", "A=1\nray start", "A=1 && ray start"):
        (command,) = start_commands([script])
        assert (command.environment, command.unexported) == ({}, {"A"})
    assert start_commands(["A=1", "ray start"])[0].unexported == frozenset()


def test_an_option_after_a_line_break_is_lost():
    (command,) = start_commands(["ray start --head\n--port=1\n"])
    assert (command.options, command.cut_off) == ({"--head": "", "--port": "1"}, "--port=1")
    (command,) = start_commands(["ray start --head # the first\n  ray status"])
    assert command.cut_off == ""


def test_a_retry_is_no_second_start():
    for script in (
        "ray start || ray start --head",
        "ray start || (sleep 5; ray start --head)",
        "if gpu; then\nray start\nelse\nray start --head\nfi",
    ):
        assert [c.is_alternative for c in start_commands([script])] == [False, True]
    twice = start_commands(["ray start; ray start", "ray start"])
    assert [command.is_alternative for command in twice] == [False] * 3


def test_the_shell_expands_nothing_in_single_quotes():
    (command,) = start_commands(["""ray start --a='$X' --b="$X" --c=\\$X --d=`e f`"""])
    assert command.options == {"--a": r"\$X", "--b": "$X", "--c": r"\$X", "--d": "`e f`"}


@pytest.mark.parametrize("script", ["ray start '--head", 'ray start "--head', "ray start --x=$(a"])
def test_an_unclosed_quote_or_parenthesis_is_said(script):
    with pytest.raises(ValueError, match="no closing"):
        start_commands([script])


def test_instance_types_are_known_by_name_gpus_and_cpus():
    assert {"g5.xlarge", "p4d.24xlarge", "m7i.2xlarge", "g4dn.metal"} <= instance_types()
    assert "g5.9xlarge" not in instance_types()
    assert [gpu_count(t) for t in ("g5.12xlarge", "g6.xlarge", "p4d.24xlarge", "m5.large")] == [
        4,
        1,
        8,
        0,
    ]
    assert gpu_count("trn1.2xlarge") is None
    assert virtual_cpus("m7i.xlarge") == 4
    assert virtual_cpus("g6e.12xlarge") == 48
    assert virtual_cpus("g4dn.metal") is None
    arm = ("a1.large", "m7g.large", "c6gn.large", "g5g.xlarge", "im4gn.large", "t4g.nano")
    x86 = (
        "m7i.large",
        "g6e.xlarge",
        "g4dn.xlarge",
        "r6idn.large",
        "c7i-flex.large",
        "u-6tb1.metal",
    )
    assert [is_arm(name) for name in arm + x86] == [True] * 6 + [False] * 6


def test_a_missing_file_is_one_row(tmp_path):
    (row,) = check_cluster_file(tmp_path / "none.yaml", "2.60.0")
    assert row.status == "error"
    assert "cannot be read" in row.detail
