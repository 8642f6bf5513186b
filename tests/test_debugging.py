"""`--backend inprocess`: a breakpoint anywhere stops in the process that the user started."""

import ast
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest

from envs.example import example_params
from raysplit.pipeline import sweep
from raysplit.pipeline.experiment import load_experiment
from raysplit.pipeline.run_folder import RunFolder
from raysplit.pipeline.stages import train
from tests.commands import ROOT, SMALL

PLACES = {
    "raysplit/link/channel.py": "transmit",
    "raysplit/measure/shards/ue.py": "clean_hidden",
    "raysplit/measure/shards/edge.py": "measure",
    "envs/vector.py": "step",
    "envs/dynamics.py": "reward",
    "tuning/rllib/learner.py": "losses",
}
HOOK = """
import os
import sys
from types import SimpleNamespace

seen = set()

def stop():
    where = sys._getframe(1).f_code
    if where.co_name not in seen:
        seen.add(where.co_name)
        ray = sys.modules.get("ray")
        started = ray is not None and ray.is_initialized()
        with open("stops.txt", "a") as file:
            file.write(f"{where.co_name} {os.getpid()} {started}\\n")
"""


def put_breakpoint(path, function):
    """Write `breakpoint()` as the first statement of a function."""
    source = path.read_text()
    found = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef) and node.name == function
    ]
    first = found[0].body[1]  # behind the docstring
    lines = source.splitlines(keepends=True)
    lines.insert(first.lineno - 1, " " * first.col_offset + "breakpoint()\n")
    path.write_text("".join(lines))


@pytest.mark.slow
def test_breakpoints_stop_in_the_process_of_the_command(tmp_path):
    for package in ("raysplit", "envs", "tuning"):
        shutil.copytree(ROOT / package, tmp_path / package)
    for path, function in PLACES.items():
        put_breakpoint(tmp_path / path, function)
    (tmp_path / "hook.py").write_text(HOOK)
    command = [sys.executable, "-m", "raysplit.cli", "run", "demo", "--backend", "inprocess"]
    options = [value for value in SMALL if "backend" not in value]
    with (tmp_path / "printed.txt").open("wb") as printed:
        process = subprocess.Popen(
            [*command, *options, "--out", "run"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONBREAKPOINT": "hook.stop"},
            stdout=printed,
            stderr=printed,
        )
        assert process.wait(timeout=300) == 0, (tmp_path / "printed.txt").read_text()[-4000:]
    stops = [line.split() for line in (tmp_path / "stops.txt").read_text().splitlines()]
    assert {name for name, _, _ in stops} == set(PLACES.values())
    assert {int(pid) for _, pid, _ in stops} == {process.pid}
    assert {ray_started for _, _, ray_started in stops} == {"False"}


@pytest.mark.slow
def test_rllib_starts_no_ray_in_process(tmp_path):
    program = """
import sys
from types import SimpleNamespace
from pathlib import Path
import ray
from envs.example import example_params, example_source
from tuning.settings import TrainConfig
from tuning.train import train
for algorithm in ("ppo", "a2c", "dqn"):
    for engine in ("lean", "stock"):
        config = TrainConfig(algorithm=algorithm, engine=engine, total_steps=800)
        train(example_params(), example_source, config, 0, Path(sys.argv[1]) / algorithm / engine)
        assert not ray.is_initialized(), (algorithm, engine)
"""
    command = [sys.executable, "-W", "ignore", "-c", program, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(
    ("kind", "runners", "lines"), [("inprocess", 1, 1), ("inprocess", 0, 0), ("ray", 1, 0)]
)
def test_remote_env_runners_are_announced_where_no_ray_was_asked_for(
    tmp_path, monkeypatch, capfd, kind, runners, lines
):
    settings = [f"backend.kind={kind}", f"agents.ppo.num_env_runners={runners}"]
    monkeypatch.setattr(train, "measured_problem", lambda folder: (example_params(), {}))
    monkeypatch.setattr(train, "_judge", lambda *_: None)
    monkeypatch.setattr(train, "_train_one", lambda *_: None)
    monkeypatch.setattr(train, "_outputs", lambda *_: [])
    with RunFolder.open(tmp_path / "run", load_experiment("demo", settings)) as folder:
        train.run(folder)
    told = capfd.readouterr().err
    assert told.count("RLlib starts a local Ray") == lines
    assert told.count("\n") == lines


@pytest.mark.parametrize(("left", "lines"), [(["a trial"], 1), ([], 0)])
def test_a_sweep_announces_them_too_where_something_is_left_to_train(
    tmp_path, monkeypatch, capfd, left, lines
):
    settings = ["backend.kind=inprocess", "agents.ppo.num_env_runners=1"]
    monkeypatch.setattr(sweep, "trials_left", lambda *_: (left, 0))
    monkeypatch.setattr(sweep, "trial_folders", lambda _: [])
    monkeypatch.setattr(sweep, "run_sweep", lambda *_: None)
    with RunFolder.open(tmp_path / "run", load_experiment("demo", settings)) as folder:
        job = SimpleNamespace(folder=tmp_path)
        sweep._train(folder, job, folder.experiment.sweep)
    assert capfd.readouterr().err.count("RLlib starts a local Ray") == lines
