"""The run folder: whose it is, who may work in it, and which stages a change leaves done."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from raysplit import __version__
from raysplit.base.errors import UserError
from raysplit.pipeline import run_folder
from raysplit.pipeline.experiment import load_experiment
from raysplit.pipeline.input_hashes import inputs_sha256
from raysplit.pipeline.run import STAGE_NAMES, check_resume
from raysplit.pipeline.run_folder import RunFolder, first_difference

ROOT = Path(__file__).parent.parent
HOLD = """
import sys, time
from pathlib import Path
from raysplit.pipeline.experiment import load_experiment
from raysplit.pipeline.run_folder import RunFolder
with RunFolder.open(Path(sys.argv[1]), load_experiment("demo")):
    print("held", flush=True)
    time.sleep(600)
"""


def demo(*overrides):
    return load_experiment("demo", list(overrides))


def declare_all(folder):
    """Declare every stage done, each with one output."""
    for i, stage in enumerate(STAGE_NAMES):
        output = folder.path / stage
        output.write_text(stage)
        folder.declare_done(stage, inputs_sha256(folder, stage, STAGE_NAMES[:i]), [output], 0.0)


def done(folder):
    return [
        stage
        for i, stage in enumerate(STAGE_NAMES)
        if folder.is_done(stage, inputs_sha256(folder, stage, STAGE_NAMES[:i]))
    ]


@pytest.fixture
def held_elsewhere(tmp_path):
    """A process that works in tmp_path / "run"."""
    command = [sys.executable, "-W", "ignore", "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_kept_out_until_the_first_is_gone(tmp_path, held_elsewhere):
    path = tmp_path / "run"
    before = (path / "experiment.yaml").read_bytes()
    with (
        pytest.raises(UserError, match=f"in use by process {held_elsewhere.pid} on "),
        RunFolder.open(path, demo("description=another")),
    ):
        pass
    assert (path / "experiment.yaml").read_bytes() == before
    RunFolder.read(path)  # looking is free
    os.kill(held_elsewhere.pid, signal.SIGKILL)
    held_elsewhere.wait()
    with RunFolder.open(path, demo()) as folder:
        assert folder.experiment == demo()


def test_the_lock_ends_with_the_block_also_after_an_error(tmp_path):
    path = tmp_path / "run"
    with pytest.raises(RuntimeError, match="mine"), RunFolder.open(path, demo()):
        raise RuntimeError("mine")
    with RunFolder.open(path, demo()):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match=r"run folder .*file/run cannot be written"),
        RunFolder.open(tmp_path / "file" / "run", demo()),
    ):
        pass


@pytest.mark.parametrize(
    ("override", "kept"),
    [
        ("backend.kind=inprocess", STAGE_NAMES),
        ("tracking.backend=tensorboard", STAGE_NAMES),
        ("sweep.samples=3", STAGE_NAMES),
        ("measuring.ledger=/elsewhere/ledger.sqlite", STAGE_NAMES),
        ("agents.ppo.checkpoint_every_steps=400", STAGE_NAMES),
        ("name=renamed", STAGE_NAMES[:4]),
        ("description=Said better.", STAGE_NAMES[:4]),
        ("agents.ppo.seeds=[0, 1, 2, 3, 4, 5]", STAGE_NAMES[:2]),
        ("agents.a2c={algorithm: a2c}", STAGE_NAMES[:2]),
    ],
)
def test_what_changes_no_result_leaves_the_stages_done(tmp_path, override, kept):
    with RunFolder.open(tmp_path / "run", demo()) as folder:
        declare_all(folder)
        assert done(folder) == list(STAGE_NAMES)
    with RunFolder.open(tmp_path / "run", demo(override)) as folder:
        assert done(folder) == list(kept)
    assert RunFolder.read(tmp_path / "run").experiment == demo(override)


def test_a_section_that_one_side_lacks_is_not_printed_whole():
    said = first_difference({"anchors": {"format": 1}}, {"anchors": None})
    assert said == "anchors is set there and None here"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("problem.lambda=0.3", "problem.lambda is 0.2 there and 0.3 here"),
        ("plan.seed=1", "plan.seed is 0 there and 1 here"),
        ("agents.ppo.seeds=[0, 2, 5]", "agents.ppo has seed 1 there and not here"),
        ("agents={a2c: {algorithm: a2c}}", "agent ppo is there and not here"),
        ("agents.ppo.total_steps=99", "agents.ppo.total_steps is 24000 there and 99 here"),
    ],
)
def test_another_experiment_is_refused_by_its_first_difference(tmp_path, override, message):
    with RunFolder.open(tmp_path / "run", demo()) as folder:
        (folder.path / "measurements.sqlite").touch()
    before = (tmp_path / "run" / "experiment.yaml").read_bytes()
    with (
        pytest.raises(UserError, match=message) as caught,
        RunFolder.open(tmp_path / "run", demo(override)),
    ):
        pass
    assert len(str(caught.value)) < 300
    assert (tmp_path / "run" / "experiment.yaml").read_bytes() == before


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "spiece.model", "vocab.txt"])
def test_a_changed_file_of_the_model_undoes_measuring(tmp_path, name):
    model = tmp_path / "model"
    model.mkdir()
    (model / name).write_text("before")
    experiment = demo(f"model.name={model}")
    with RunFolder.open(tmp_path / "run", experiment) as folder:
        declare_all(folder)
        assert done(folder) == list(STAGE_NAMES)
        (model / name).write_text("after")
        assert done(folder) == []


def two_coordinates(*names):
    """The demo over two link coordinates, listed in the order of `names`."""
    ranges = {"noise_std": "[0, 6]", "loss_probability": "[0, 0.3]"}
    return demo(f"problem.link={{{', '.join(f'{name}: {ranges[name]}' for name in names)}}}")


def test_link_coordinates_in_another_order_are_another_experiment(tmp_path):
    names = ("noise_std", "loss_probability")
    with RunFolder.open(tmp_path / "run", two_coordinates(*names)) as folder:
        declare_all(folder)
    message = (
        "problem.link lists noise_std, loss_probability there and loss_probability, noise_std here"
    )
    swapped = two_coordinates(*names[::-1])
    with pytest.raises(UserError, match=message), RunFolder.open(tmp_path / "run", swapped):
        pass
    assert done(RunFolder(tmp_path / "run", two_coordinates(*names))) == list(STAGE_NAMES)
    assert done(RunFolder(tmp_path / "run", swapped)) == []  # whoever writes the folder's own file


def test_another_first_agent_is_compared_with_anew(tmp_path):
    a2c = "a2c: {algorithm: a2c}"
    one, other = demo(f"agents={{ppo: {{}}, {a2c}}}"), demo(f"agents={{{a2c}, ppo: {{}}}}")
    with RunFolder.open(tmp_path / "run", one) as folder:
        declare_all(folder)
    with RunFolder.open(tmp_path / "run", other) as folder:
        assert done(folder) == ["measure", "fit"]


def test_a_changed_output_undoes_its_stage(tmp_path):
    with RunFolder.open(tmp_path / "run", demo()) as folder:
        declare_all(folder)
        (folder.path / "train").write_text("other")
        assert done(folder) == ["measure", "fit", "evaluate", "report"]


def cut(path):
    """Leave only the first lines of a file: they may still be valid YAML."""
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[: len(lines) // 2]))


@pytest.mark.parametrize("damage", [cut, lambda path: path.write_bytes(path.read_bytes()[:-9])])
@pytest.mark.parametrize("name", ["experiment.yaml", "manifest.json"])
def test_a_file_cut_short_is_made_good_by_its_copy(tmp_path, capfd, name, damage):
    run = tmp_path / "run"
    with RunFolder.open(run, demo()) as folder:
        declare_all(folder)
    whole = (run / name).read_text()
    damage(run / name)
    assert RunFolder.read(run).experiment == demo()
    with RunFolder.open(run, demo()) as folder:
        assert done(folder) == list(STAGE_NAMES)
        folder.declare_done("report", "other", [], 0.0)
    told = capfd.readouterr().err.splitlines()
    assert told == [f"{run / name} was changed or cut; going on from its copy {name}.copy"]
    assert len((run / name).read_text()) > 0.5 * len(whole)
    _, _, copy = (run / f"{name}.copy").read_text().partition("\n")  # behind its hash
    assert (run / name).read_text() == copy


def test_damage_of_both_copies_is_named_with_its_remedy(tmp_path):
    run = tmp_path / "run"
    with pytest.raises(UserError, match=r"is no run folder \(it has no experiment\.yaml\)"):
        RunFolder.read(tmp_path)
    with RunFolder.open(run, demo()) as folder:
        declare_all(folder)
        for name in ("manifest.json", "manifest.json.copy"):
            (run / name).write_text("{")
        with pytest.raises(UserError, match=r"manifest\.json is damaged.*: delete it"):
            folder.stage_record("measure")
        (run / "manifest.json").unlink()
        declare_all(folder)
    for name in ("experiment.yaml", "experiment.yaml.copy"):
        (run / name).write_text("name: [")
    with pytest.raises(
        UserError, match=rf"delete it and start `raysplit run EXPERIMENT --out {run}"
    ):
        RunFolder.read(run)
    (run / "experiment.yaml").unlink()  # the remedy
    with RunFolder.open(run, demo()) as folder:
        assert done(folder) == list(STAGE_NAMES)


def test_a_folder_of_another_version_is_refused_by_one_line(tmp_path, monkeypatch):
    run = tmp_path / "run"
    with RunFolder.open(run, demo()) as folder:
        monkeypatch.setattr(run_folder, "__version__", "0.1.0")
        declare_all(folder)
    monkeypatch.undo()
    before = {path: path.read_bytes() for path in run.iterdir()}
    message = f"run was made by raysplit 0.1.0, and this is {__version__}: choose another --out"
    with pytest.raises(UserError, match=message), RunFolder.open(run, demo()):
        pass
    with pytest.raises(UserError, match=message):
        RunFolder.read(run)
    assert {p: p.read_bytes() for p in before if p.name != "lock"} == {
        p: content for p, content in before.items() if p.name != "lock"
    }


def test_a_folder_of_another_patch_of_this_version_is_read(tmp_path, monkeypatch):
    run = tmp_path / "run"
    with RunFolder.open(run, demo()) as folder:
        monkeypatch.setattr(run_folder, "__version__", f"{__version__.rpartition('.')[0]}.99")
        declare_all(folder)
    monkeypatch.undo()
    assert RunFolder.read(run).stage_record("measure")["versions"]["raysplit"].endswith(".99")
    with RunFolder.open(run, demo()) as folder:
        assert done(folder) == list(STAGE_NAMES)


def test_a_sweep_that_was_not_begun_cannot_be_resumed(tmp_path):
    run = tmp_path / "a run"
    with RunFolder.open(run, demo()):
        pass
    paste = f"`raysplit sweep '{run}/experiment.yaml' --out '{run}'`"
    with pytest.raises(UserError, match=re.escape(f"holds no sweep to resume; start one: {paste}")):
        check_resume(run)
    (run / "sweep" / "trials").mkdir(parents=True)
    paste = f"`raysplit measure '{run}/experiment.yaml' --out '{run}'`"
    with pytest.raises(UserError, match=re.escape(f"run {paste} first")):
        check_resume(run)


def test_a_folder_where_nothing_was_measured_yet_may_be_corrected(tmp_path):
    first = load_experiment("demo", ["corpus.seed=1"])
    with RunFolder.open(tmp_path / "run", first):
        pass  # it failed before anything was measured
    with RunFolder.open(tmp_path / "run", load_experiment("demo", ["corpus.seed=2"])) as folder:
        (folder.path / "measurements.sqlite").touch()
    with (
        pytest.raises(UserError, match=r"corpus\.seed is 2 there and 1 here"),
        RunFolder.open(tmp_path / "run", first),
    ):
        pass
