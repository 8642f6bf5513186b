"""The command line as a user meets it: exit codes, messages, and what stays on disk."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.commands import ROOT, RUN, SMALL, raysplit, raysplit_here
from tests.fault_driver import rows_in
from tuning.agent import load_agent


def test_help_names_the_commands_and_loads_nothing_heavy():
    code = (
        "import sys; from raysplit.cli import main\n"
        "sys.argv = ['raysplit', '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'ray', 'transformers', 'matplotlib', 'numpy'} & set(sys.modules)\n"
        "print('heavy:', sorted(heavy))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert "heavy: []" in done.stdout
    for command in ("run", "measure", "fit", "train", "evaluate", "report", "doctor"):
        assert command in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "dmo"], "did you mean 'demo'?"),
        (["run", "demo", "--set", "problem.max_split_point=17"], "has 16 layers"),
        pytest.param(
            ["run", "demo", "--set", "corpus.min_words=59", "--set", "corpus.max_words=59"],
            "holds",
            marks=pytest.mark.slow,
        ),
        (["measure", "demo", "--set", "model.name=/no/such/folder"], "/no/such/folder"),
        (["run", "demo", "--set", "corpus={source: file, path: /no/such.txt}"], "/no/such.txt"),
        (["run", str(ROOT / "raysplit")], "neither a preset"),
        (["run", "demo", "--set", "agents.ppo.overrides.learning_rate=-1"], "learning_rate = -1"),
        (["run", "demo", "--set", "agents.ppo.overrides={lr: 3}"], "; it has learning_rate,"),
        (["run", "demo", "--set", "problem.link.noise_std=3"], "this is a section"),
        (["run", "demo", "--backend", "inproces"], "backend.kind"),
    ],
)
def test_wrong_input_ends_with_one_message_and_code_2(tmp_path, arguments, message):
    done = raysplit_here(*arguments, "--out", tmp_path / "run")
    assert done.returncode == 2, done.stderr
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 3


@pytest.mark.slow
def test_what_is_cheap_to_know_is_refused_before_anything_is_loaded_or_made(tmp_path):
    code = (
        "import sys; from raysplit.cli import main\n"
        "out, *overrides = sys.argv[1:]\n"
        "for override in overrides:\n"
        "    sys.argv = ['raysplit', 'run', 'demo', '--set', override, '--out', out]\n"
        "    try: main()\n"
        "    except SystemExit as end: print('code:', end.code, override)\n"
        "    print('heavy:', sorted({'torch', 'ray', 'transformers', 'scipy'} & set(sys.modules)))"
    )
    overrides = [
        "problem.max_split_point=17",
        "model.name=/no/such/folder",
        "corpus={source: file, path: /no/such.txt}",
        "problem.dynamics={kind: trace, path: /no/such.csv}",
        "problem.lambda=-1",
    ]
    command = [sys.executable, "-c", code, str(tmp_path / "run"), *overrides]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    lines = [line for each in overrides for line in (f"code: 2 {each}", "heavy: []")]
    assert done.stdout.splitlines() == lines
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("stage", ["fit", "sweep"])
@pytest.mark.slow
def test_a_command_without_its_predecessor_says_what_to_paste_and_leaves_nothing(tmp_path, stage):
    out = tmp_path / "a run"
    code = (
        "import sys; from raysplit.cli import main\n"
        "sys.argv = ['raysplit', *sys.argv[1:]]\n"
        "try: main()\n"
        "except SystemExit as end: print('code:', end.code)\n"
        "print('heavy:', sorted({'torch', 'ray', 'scipy.stats'} & set(sys.modules)))"
    )
    asked = [stage, "demo", "--set", "plan={seed: 3}", "--out", str(out)]
    command = [sys.executable, "-c", code, *asked]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.split("\n")[:2] == ["code: 2", "heavy: []"]
    assert (
        f"run `raysplit measure demo --set 'plan={{seed: 3}}' --out '{out}'` first, or "
        in done.stderr
    )
    assert not out.exists()
    out.mkdir()  # an empty folder, or one of something else, is none of a run
    raysplit_here(*asked)
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sweep", "--resume", "new"], "is no run folder"),
        (["compare", "new", "--out", "out"], "is no run folder"),
        (["run", "demo", "--out", "file/run"], "cannot be written (Not a directory)"),
    ],
)
def test_what_is_not_there_is_refused_and_nothing_is_left(tmp_path, arguments, message):
    (tmp_path / "file").write_text("")
    places = {"new", "out", "file/run"}
    done = raysplit_here(*(tmp_path / a if a in places else a for a in arguments))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert message in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_run_folder_in_the_place_of_an_experiment_is_recognised(tmp_path):
    (tmp_path / "experiment.yaml").write_text("name: demo")
    done = raysplit_here("run", tmp_path)
    assert done.returncode == 2
    assert "is a run folder: to go on in it" in " ".join(done.stderr.split())


@pytest.mark.slow
def test_a_small_run_gives_every_promised_file_and_is_recognised_as_done(tmp_path):
    out = tmp_path / "run"
    first = raysplit("run", "demo", "--out", out, *SMALL)
    assert first.returncode == 0, first.stderr
    for name in ("experiment.yaml", "measurements.sqlite", "measurements.parquet", "report.html"):
        assert (out / name).is_file()
    assert list((out / "figures").glob("*.pdf"))
    assert (out / "surrogate").is_dir()

    manifest = json.loads((out / "manifest.json").read_text())
    assert list(manifest) == ["measure", "fit", "train", "evaluate", "report"]
    for stage, record in manifest.items():
        assert record["stage"] == stage
        assert {"inputs_sha256", "outputs", "versions", "started", "seconds"} <= record.keys()

    evaluation = json.loads((out / "evaluation.json").read_text())
    assert {"case", "link_states", "optimal_split_points", "best_fixed_share_of_gap"} <= evaluation[
        "problem"
    ].keys()
    agent = evaluation["agents"]["ppo"]
    for score in ("return", "share_of_gap"):
        low, high = agent["measured"][f"{score}_ci95"]
        assert low <= agent["measured"][score] <= high
    assert agent["surrogate"]["regret"] >= -1e-9
    curve = load_agent(out / "agents" / "ppo" / "seed-0").curve
    judged = [point.judged_return for point in curve]
    assert max(judged) <= evaluation["problem"]["surrogate"]["optimal_return"] + 1e-9

    before = (out / "report.html").stat().st_mtime_ns
    again = raysplit_here("run", "demo", "--out", out, *SMALL)
    assert again.returncode == 0
    assert again.stderr.count("done before") == 5
    assert (out / "report.html").stat().st_mtime_ns == before

    # A lost output makes its stage, and only what follows it, run again.
    (out / "evaluation.json").unlink()
    repaired = raysplit_here("run", "demo", "--out", out, *SMALL)
    assert repaired.stderr.count("done before") == 4
    assert (out / "evaluation.json").is_file()

    other = raysplit_here("run", "demo", "--out", out, *SMALL, "--set", "problem.lambda=0.3")
    assert other.returncode == 2
    message = " ".join(other.stderr.split())
    assert "problem.lambda is 0.2 there and 0.3 here" in message


def test_the_three_packages_share_a_folder():
    import envs
    import raysplit as package
    import tuning

    homes = {Path(module.__file__).parent.parent for module in (package, envs, tuning)}
    assert homes == {ROOT}


@pytest.mark.parametrize(
    ("backend", "number", "code"),
    [
        ("inprocess", signal.SIGINT, 130),
        pytest.param("ray", signal.SIGTERM, 143, marks=[pytest.mark.ray, pytest.mark.slow]),
    ],
)
@pytest.mark.slow
def test_a_stopped_run_goes_on_where_it_was(tmp_path, request, backend, number, code):
    out = tmp_path / "demo"
    ledger = out / "measurements.sqlite"
    command = ["measure", "demo", "--out", str(out), *SMALL, f"--set=backend.kind={backend}"]
    command += ["--set=measuring.target_stderr=0.002", "--set=backend.edge_shards=1"]
    # Enough of them that the first is seen and the signal sent before the last is done.
    settings = 24
    command.append(f"--set=plan.settings={settings}")
    process = subprocess.Popen(
        [*RUN, *command],
        cwd=ROOT,
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        # Tests that run in a shell's background inherit that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while process.poll() is None and not rows_in(ledger):
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == code, errors
    *progress, last = errors.splitlines()
    assert last == "interrupted: the same command goes on where this one stopped"
    # Neither a traceback nor a word of Ray's, whose actors were at work.
    assert {line.split()[0] for line in progress} <= {"text", "clean", "anchors", "measure"}, errors
    held = len(rows_in(ledger))
    assert 1 <= held < settings
    if backend == "ray":
        request.getfixturevalue("ray_session")
    done = raysplit_here(*command)
    assert done.returncode == 0, done.stderr
    assert len(rows_in(ledger)) == settings


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (("model.name={folder}",), "no config.json"),
        (("corpus.source=file", "corpus.path={folder}/word.txt"), "holds 0 sentences"),
        (("corpus.source=file", "corpus.path={folder}/nul.txt"), "NUL bytes"),
        (("measuring.ledger={folder}",), "is a folder"),
    ],
)
def test_what_the_files_say_is_refused_before_a_run_folder_is_made(tmp_path, changes, reason):
    (tmp_path / "word.txt").write_text("word")
    (tmp_path / "nul.txt").write_bytes(b"a\0b")
    overrides = [f"--set={change.format(folder=tmp_path)}" for change in changes]
    done = raysplit_here("measure", "demo", "--out", tmp_path / "run", *overrides)
    assert done.returncode == 2
    assert reason in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("measure", "demo", "--out", ""),
        ("sweep", "--resume", " "),
        ("compare", "a", "--out", ""),
        ("import", "smollm2-135m", "--out", ""),
        ("doctor", "--out", ""),
    ],
)
def test_an_empty_folder_is_refused(words):
    done = raysplit_here(*words)
    assert done.returncode == 2
    assert "it is empty" in done.stderr


def test_the_doctor_runs_without_options():
    """A default folder goes through the same parser as a given one."""
    done = raysplit_here("doctor")
    assert done.returncode in (0, 1)
    assert "Traceback" not in done.stderr
    assert "models" in done.stdout
