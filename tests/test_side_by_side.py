"""Calls in processes of their own: all are made, none outlives a failure or an interrupt."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raysplit.base.errors import UserError
from raysplit.pipeline.side_by_side import run_side_by_side
from tests.commands import ROOT, SMALL, raysplit_here


def note(folder, number, advance):
    advance(number, f"call {number}")
    (Path(folder) / str(number)).write_text(str(os.getpid()))


LOADED_IN = os.getpid()


def note_where_loaded(folder, number, advance):
    (Path(folder) / str(number)).write_text(f"{LOADED_IN} {os.getpid()}")


def refuse(folder, number, advance):
    if number == 1:
        raise UserError("value, rule, remedy")
    (Path(folder) / f"began-{number}").write_text(str(os.getpid()))
    time.sleep(600)


def fail(folder, number, advance):
    raise ZeroDivisionError("of this call")


def die(folder, number, advance):
    os.kill(os.getpid(), signal.SIGKILL)


def die_beside_a_talker(folder, number, advance):
    if number == 0:
        die(folder, number, advance)
    while True:
        advance(1, "still here")
        time.sleep(0.05)


def calls(folder, count):
    return [(str(folder), number) for number in range(count)]


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_each_call_is_made_in_a_process_of_its_own(tmp_path):
    moved = []
    run_side_by_side(note, calls(tmp_path, 3), 2, lambda *step: moved.append(step))
    pids = {(tmp_path / str(number)).read_text() for number in range(3)}
    assert len(pids) == 3
    assert str(os.getpid()) not in pids
    assert sorted(moved) == [(0, "call 0"), (1, "call 1"), (2, "call 2")]


def test_the_calls_module_is_loaded_once_for_all(tmp_path):
    """What a training imports takes as long as a short training.

    By a process of its own, as one that has called another module's before keeps that one loaded.
    """
    code = (
        "from tests.test_side_by_side import calls, note_where_loaded, run_side_by_side; "
        f"run_side_by_side(note_where_loaded, calls({str(tmp_path)!r}, 3), 2, lambda *_: None)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=300)
    found = [(tmp_path / str(number)).read_text().split() for number in range(3)]
    loaded_in, made_in = ({pids[i] for pids in found} for i in (0, 1))
    assert len(loaded_in) == 1
    assert loaded_in.isdisjoint(made_in | {str(os.getpid())})


def test_a_refusal_comes_through_and_ends_the_others(tmp_path):
    with pytest.raises(UserError, match="value, rule, remedy"):
        run_side_by_side(refuse, calls(tmp_path, 2), 2, lambda *_: None)
    for began in tmp_path.glob("began-*"):
        assert not is_running(int(began.read_text()))


@pytest.mark.parametrize(("call", "said"), [(fail, "of this call"), (die, "exit code -9")])
def test_what_fails_is_said(tmp_path, call, said):
    with pytest.raises(RuntimeError, match=said):
        run_side_by_side(call, calls(tmp_path, 1), 1, lambda *_: None)


@pytest.mark.slow
def test_one_that_was_killed_is_noticed_while_others_report(tmp_path):
    with pytest.raises(RuntimeError, match="exit code -9"):
        run_side_by_side(die_beside_a_talker, calls(tmp_path, 2), 2, lambda *_: None)


def test_an_interrupt_ends_all(tmp_path):
    code = (
        "import sys; from tests.test_side_by_side import *\n"
        "if __name__ == '__main__':\n"
        "    run_side_by_side(refuse, [(sys.argv[1], 0), (sys.argv[1], 2)], 2, lambda *_: None)"
    )
    script = tmp_path / "main.py"
    script.write_text(code)
    parent = subprocess.Popen(
        [sys.executable, script, tmp_path],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        # What runs in the background ignores interrupts, and hands that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("began-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    parent.send_signal(signal.SIGINT)
    _, errors = parent.communicate(timeout=60)
    assert b"KeyboardInterrupt" in errors
    pids = [int(began.read_text()) for began in tmp_path.glob("began-*")]
    assert len(pids) == 2
    assert not any(map(is_running, pids))


@pytest.mark.slow
def test_seeds_that_train_side_by_side_are_those_that_train_in_turn(tmp_path):
    """The same run, its agents trained in one process and then, anew, in two."""
    small = [*SMALL, "--set=agents.ppo.seeds=[0, 1]"]
    policies = []
    for stage, backend in (
        ("measure", "inprocess"), ("fit", "inprocess"), ("train", "inprocess"), ("train", "ray"),
    ):  # fmt: skip
        where = f"--set=backend.kind={backend}"
        done = raysplit_here(stage, "demo", "--out", tmp_path, *small, where)
        assert done.returncode == 0, done.stderr
        if stage == "train":
            found = sorted((tmp_path / "agents").rglob("policy.safetensors"))
            policies.append([path.read_bytes() for path in found])
            assert len(policies[-1]) == 4  # two seeds, each also untrained
            shutil.rmtree(tmp_path / "agents")
    assert policies[0] == policies[1]
