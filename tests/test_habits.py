"""What users of other tools expect: a schema for editors, completion, JSON, quiet, no colours."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from raysplit.base import progress
from raysplit.base.yaml_text import parse_yaml
from raysplit.budget import load_setup, split_costs
from raysplit.cli import app
from raysplit.model.sizes import sizes_of
from raysplit.pipeline.experiment import load_experiment
from raysplit.pipeline.preset_names import PRESETS

ROOT = Path(__file__).parents[1]


def output(*words):
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def checked():
    """A checker of experiments by the printed schema."""
    schema = json.loads(output("schema"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("name", PRESETS)
def test_the_schema_takes_every_preset_as_written_and_as_shown(checked, name):
    written = parse_yaml((ROOT / f"raysplit/presets/{name}.yaml").read_text())
    assert [error.message for error in checked.iter_errors(written)] == []
    shown = yaml.safe_load(output("show", name))
    assert [error.message for error in checked.iter_errors(shown)] == []


@pytest.mark.parametrize(
    "wrong", [{"problm": {}}, {"link": {"fading": "rayleih"}}, {"measuring": {"ledgr": "x"}}]
)
def test_the_schema_underlines_a_wrong_key_or_word(checked, wrong):
    good = parse_yaml((ROOT / "raysplit/presets/demo.yaml").read_text())
    assert list(checked.iter_errors({**good, **wrong}))


def test_what_show_prints_names_the_schema_first_and_is_the_same_experiment(tmp_path):
    text = output("show", "demo")
    assert text.splitlines()[0] == "# yaml-language-server: $schema=raysplit.schema.json"
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    assert load_experiment(str(path)) == load_experiment("demo")


def test_budget_as_json_holds_every_split_point():
    found = json.loads(output("budget", "llama2-7b", "--codec", "int8", "--json"))
    setup = load_setup(
        phone="flagship", edge="h100", network="lte", prompt_tokens=512, output_tokens=128
    )
    costs = split_costs(sizes_of("llama2-7b"), setup, "int8")
    rows = found["codecs"]["int8"]
    assert [row["split_point"] for row in rows] == list(range(1, 33))
    assert [row["ttft_s"] for row in rows] == costs.ttft_s_P.tolist()
    assert [row["ue_energy_j"] for row in rows] == costs.ue_energy_j_P.tolist()
    assert found["setup"]["request"]["prompt_tokens"] == 512


def test_the_doctors_checks_as_json(monkeypatch):
    from raysplit.doctor.check import error

    monkeypatch.setattr(
        "raysplit.doctor.run.run_checks", lambda *_: [error("it is [red]", "paint it")]
    )
    result = CliRunner().invoke(app, ["doctor", "--json"])
    assert result.exit_code == 1
    assert json.loads(result.stdout) == [
        {"name": "", "status": "error", "detail": "it is [red]", "remedy": "paint it"}
    ]


def test_quiet_leaves_warnings(capfd):
    try:
        progress.set_verbosity(quiet=True)
        progress.say("fit        done", "green", " in 3 s")
        progress.console.print("of no importance")
        progress.say("ledger", "yellow", ": a row was changed")
    finally:
        progress.set_verbosity()
    assert capfd.readouterr().err == "ledger: a row was changed\n"


def test_verbose_shows_what_our_loggers_say():
    code = (
        "import logging; from raysplit.base.progress import set_verbosity\n"
        "set_verbosity(verbose=True)\n"
        "logging.getLogger('raysplit.measure').debug('seen'); logging.getLogger('x').info('not')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert re.search(r"DEBUG raysplit\.measure: seen", done.stderr)
    assert "not" not in done.stderr


def test_quiet_and_verbose_exclude_each_other():
    done = raysplit("--quiet", "--verbose", "show", "demo")
    assert done.returncode == 2
    assert "exclude each other" in done.stderr


def raysplit(*words, **changes):
    return subprocess.run(
        [sys.executable, "-m", "raysplit.cli", *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | changes,
        check=False,
    )


@pytest.mark.parametrize(("changes", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_a_terminal_gets_colours_unless_no_color_is_set(changes, coloured):
    ours, theirs = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    command = [sys.executable, "-m", "raysplit.cli", "run", "dmo"]
    environment |= {"TERM": "xterm-256color", **changes}
    subprocess.run(command, stderr=theirs, cwd=ROOT, env=environment, check=False)
    os.close(theirs)
    said = os.read(ours, 10_000).decode()
    os.close(ours)
    assert "did you mean 'demo'?" in " ".join(said.split())
    assert ("\x1b[31m" in said) == coloured


def test_help_of_run_names_every_preset():
    done = subprocess.run(
        [sys.executable, "-c", "from raysplit.cli import main; main()", "run", "--help"],
        capture_output=True, text=True, cwd=ROOT, check=True,
        env=os.environ | {"COLUMNS": "250", "NO_COLOR": "1"},
    )  # fmt: skip
    wrapped_anywhere = "".join(done.stdout.split())
    assert f"Apreset({','.join(PRESETS)})" in wrapped_anywhere


def test_a_shell_completes_commands_and_presets():
    asked = {"_RAYSPLIT_COMPLETE": "complete_bash", "COMP_CWORD": "2"}
    code = "import sys; from raysplit.cli import app; app(prog_name='raysplit')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False,
        env=os.environ | asked | {"COMP_WORDS": "raysplit run sm"},
    )  # fmt: skip
    assert done.stdout.split() == ["smollm2"]


def test_hugging_faces_own_settings_are_followed(tmp_path):
    code = (
        "from raysplit.base.errors import UserError\n"
        "from raysplit.model.checkpoint import open_checkpoint\n"
        "try: open_checkpoint('org/none')\n"
        "except UserError as error: print(error)\n"
        "from huggingface_hub import constants; print(constants.HF_HUB_CACHE)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True,
        env=os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    message, cache = done.stdout.strip().splitlines()
    assert "org/none" in message
    assert cache == str(tmp_path / "hub")
