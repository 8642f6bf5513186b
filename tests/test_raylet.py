"""The raylet of a local Ray dies under a run: one line, and what was measured is kept."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from raysplit.measure.on_ray.raylet import description
from tests.commands import ROOT, RUN, SMALL, raysplit
from tests.fault_driver import rows_in


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (-signal.SIGKILL, "(signal SIGKILL, as where memory runs out)"),
        (-signal.SIGSEGV, "(signal SIGSEGV)"),
        (1, "(exit code 1)"),
    ],
)
def test_the_line_says_how_it_ended_and_where_its_log_lies(code, said):
    line = description(code, Path("/tmp/ray/logs/raylet.out"))
    assert said in line
    assert "/tmp/ray/logs/raylet.out" in line
    assert "\n" not in line


def raylet_of(driver):
    """The process id of a driver's raylet, once it is there."""
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines())
        except (OSError, ValueError):  # it has ended, or a field is empty
            continue
        if fields["Name"] == "raylet" and int(fields["PPid"]) == driver:
            return int(fields["Pid"])
    return None


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.thorough
def test_a_raylet_that_is_killed_while_settings_are_measured(tmp_path):
    out = tmp_path / "run"
    wanted = [*SMALL, "--set=backend.kind=ray", "--set=plan.settings=64"]
    ledger = out / "measurements.sqlite"
    with subprocess.Popen(
        [*RUN, "measure", "demo", "--out", out, *wanted],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as driver:
        while not (ledger.exists() and rows_in(ledger)):
            assert driver.poll() is None
            time.sleep(0.05)
        os.kill(raylet_of(driver.pid), signal.SIGKILL)
        stdout, stderr = driver.communicate(timeout=120)
    assert driver.returncode == 2
    assert stdout == ""
    *progress, error = stderr.splitlines()
    assert {line.split()[0] for line in progress} <= {"text", "clean", "anchors", "measure"}, stderr
    log = re.fullmatch(r"error: the raylet .*\(signal SIGKILL.*\): its log is (\S+); .*", error)[1]
    assert Path(log).is_file()
    kept = len(rows_in(ledger))
    assert 0 < kept < 64
    done = raysplit("measure", "demo", "--out", out, *wanted)
    assert done.returncode == 0, done.stderr
