"""Presets with their sources, and `raysplit budget` as a user meets it."""

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from raysplit.base.errors import UserError
from raysplit.budget import load_setup, split_costs
from raysplit.budget.compute import pass_s
from raysplit.budget.presets import presets
from raysplit.budget.setup import Edge, Network, Phone
from raysplit.budget.table import shown_rows
from raysplit.cli import app
from raysplit.model.sizes import sizes_of
from raysplit.model.zoo import EMBEDDED_FOLDER, MODELS

ROOT = Path(__file__).parents[1]
PRESETS = presets()
EACH = [(kind, name) for kind in ("phone", "edge", "network") for name in getattr(PRESETS, kind)]


def budget(*arguments):
    """Run the command in this process; return its output, or the message that refuses it."""
    result = CliRunner().invoke(app, ["budget", *arguments])
    if isinstance(result.exception, UserError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def rows(output):
    """(p, codec, numbers) of each line of the table."""
    p = None
    for line in output.splitlines():
        cells = line.split()
        if re.match(r"\s*\d+ ", line):
            p = int(cells.pop(0))
        if p is not None and re.fullmatch(r"(identity|int\d\S*)", cells[0] if cells else ""):
            yield p, cells[0], [float(cell) for cell in cells[1:]]


@pytest.mark.parametrize(("kind", "name"), EACH)
def test_every_constant_of_a_preset_has_its_source_and_date(kind, name):
    preset = PRESETS.named(kind, name)
    fields = {"phone": Phone, "edge": Edge, "network": Network}[kind].model_fields
    assert list(preset.constants) == list(fields)
    assert preset.description
    for key, constant in preset.constants.items():
        assert constant.source in PRESETS.sources, key
        assert re.fullmatch(r"20\d\d(-\d\d)?", PRESETS.sources[constant.source].date)
        if constant.source == "raysplit":
            assert constant.basis == "estimate", key
        if constant.basis == "derived" and kind != "network":
            assert constant.note, f"{key} is derived: how?"


def test_every_source_is_used():
    used = {
        constant.source
        for kind, name in EACH
        for constant in PRESETS.named(kind, name).constants.values()
    }
    assert used == set(PRESETS.sources)


def test_the_help_names_every_preset():
    text = " ".join(
        CliRunner().invoke(app, ["budget", "--help"], terminal_width=300).output.split()
    )
    assert [name for _, name in EACH if name not in text] == []


def test_the_flagship_does_what_its_source_measured():
    """8 billion weights, all on the phone: 12.93 tokens/s, 128 and 4,096 tokens in .16, 5.10 s."""
    phone = load_setup("flagship", "h100", "lte").phone
    llama3_8b, whole = sizes_of("openchat-8b"), np.array([32])
    step = pass_s(llama3_8b, phone, whole, 1, np.array([1]), head=True)
    assert 1 / step[0, 0] == pytest.approx(12.93, rel=0.02)
    long = pass_s(llama3_8b, phone, whole, 4096, np.array([4096]), head=True)
    assert long[0, 0] == pytest.approx(5.10, rel=0.02)
    short = pass_s(llama3_8b, phone, whole, 128, np.array([128]), head=True)
    assert short[0, 0] == pytest.approx(0.159, rel=0.15)


@pytest.mark.parametrize(
    ("network", "watts"),
    [("lte", 2.93 + 0.0767 * 10), ("5g-low-band", 3.2 + 0.322), ("5g-mmwave", 5.66 + 0.089)],
)
def test_the_radio_at_10_mbit_s(network, watts):
    setup = load_setup("flagship", "h100", network, overrides=["network.uplink_mbit_s=10"])
    assert setup.network.radio_power_w == pytest.approx(watts)


@pytest.mark.parametrize("phone", PRESETS.phone)
def test_every_combination_serves_every_named_model(phone):
    for edge, network, model in itertools.product(PRESETS.edge, PRESETS.network, MODELS):
        costs = split_costs(sizes_of(model), load_setup(phone, edge, network), "int8")
        assert np.isfinite(costs.request.total_s_P).all()
        assert (costs.ue_energy_j_P > 0).all()


def test_an_override_changes_its_number_alone():
    plain = load_setup("flagship", "h100", "lte").model_dump()
    changed = load_setup("flagship", "h100", "lte", overrides=["phone.memory_gb=8"]).model_dump()
    assert changed["phone"].pop("memory_gb") == 8
    assert plain["phone"].pop("memory_gb") == 6
    assert changed == plain


def test_the_table_says_what_the_records_say():
    output = budget("smollm2-135m", "--network", "5g-mmwave", "--prompt-tokens", "90")
    setup = load_setup("flagship", "h100", "5g-mmwave", prompt_tokens=90)
    sizes = sizes_of("smollm2-135m")
    found = list(rows(output))
    assert {p for p, _, _ in found} == {1, 8, 15, 23, 30}
    assert len(found) == 5 * 4
    for p, codec, numbers in found:
        costs = split_costs(sizes, setup, codec, [p])
        parts = costs.prefill
        expected = (
            *(costs.ttft_s_P, parts.ue_s_P, parts.air_s_P, parts.edge_s_P),
            *(costs.tpot_s_P, costs.ue_energy_j_P),
        )
        assert numbers[:6] == pytest.approx([float(e[0]) for e in expected], rel=0.06)
    assert "p = 1-30 of 30 fit" in output
    assert "p - 1 sends keys and values" in output


def test_splits_that_do_not_fit_are_marked():
    output = budget("llama2-7b", "--phone", "mid-range", "--set", "phone.memory_gb=3")
    assert "p = 1-22 of 32 fit into phone.memory_gb = 3" in output
    assert re.search(r"^ *24 +does not fit +3\.\d+ *$", output, re.MULTILINE)
    assert {p for p, _, _ in rows(output)} == {1, 9, 17, 22}
    output = budget("llama2-7b", "--edge", "rtx-4090", "--set", "edge.memory_gb=8")
    assert re.search(r"^ *1 +does not fit", output, re.MULTILINE)


def test_the_ends_of_what_fits_are_shown():
    setup = load_setup("flagship", "h100", "lte", overrides=["edge.memory_gb=12"])
    costs = split_costs(sizes_of("llama2-7b"), setup, "int8")
    first = int(np.flatnonzero(costs.fits_P)[0])
    assert first > 0
    assert first in shown_rows(costs)
    assert {0, 31} < set(shown_rows(costs))


def test_codecs_are_chosen_and_sources_told():
    output = budget(
        "embedded", "--codec", "top25%", "--codec", "fp8", "--sources", "--set", "phone.kv_bits=8"
    )
    assert "top25%" in output
    assert "fp8" in output
    assert "int8" not in output
    assert re.search(r"phone\.kv_bits +8 +given +--set", output)
    assert re.search(r"network\.uplink_mbit_s +5\.95 +measured +mahimahi-lte", output)
    assert "mahimahi-lte (2015): " in output
    assert "nvidia-ada" not in output


def test_a_config_json_and_a_folder_are_the_same_model(tmp_path):
    config = tmp_path / "config.json"
    config.write_text((EMBEDDED_FOLDER / "config.json").read_text())
    named = budget("embedded").partition("\n")
    for given in (tmp_path, config):
        assert budget(str(given)).partition("\n")[2] == named[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lama2-7b"], "did you mean 'llama2-7b'"),
        (["llama2-7b", "--phone", "flagshp"], "unknown phone 'flagshp'; did you mean 'flagship'"),
        (["llama2-7b", "--edge", "h200"], "unknown edge 'h200'; did you mean 'h100'"),
        (["llama2-7b", "--network", "6g"], "known: lte, 5g-low-band, 5g-mmwave"),
        (["llama2-7b", "--codec", "int5"], "unknown codec 'int5'"),
        (["embedded", "--codec", "int4/64"], "take a group of 40 or 80"),
        (["llama2-7b", "--prompt-tokens", "-4"], "request.prompt_tokens = -4"),
        (["llama2-7b", "--output-tokens", "0"], "request.output_tokens = 0"),
        (["llama2-7b", "--set", "phone.memory_gb=.1"], "the phone is too small for LLaMA2-7B"),
        (["llama2-7b", "--set", "network.uplink_mbit_s=0"], "network.uplink_mbit_s = 0"),
        (["llama2-7b", "--set", "network.rtt_ms=-1"], "network.rtt_ms = -1"),
        (["llama2-7b", "--set", "network.rtt_ms=.nan"], "network.rtt_ms = nan"),
        (["llama2-7b", "--set", "network.snr_db=400"], "unknown key network.snr_db; known here"),
        (["llama2-7b", "--set", "phone.bandwith_gb_s=9"], "did you mean 'bandwidth_gb_s'"),
        (["llama2-7b", "--set", "phone.weight_bits=four"], "must be a number"),
        (["llama2-7b", "--set", "edge.compute_utilisation=1.2"], "edge.compute_utilisation = 1.2"),
        (["llama2-7b", "--set", "edge"], "must have the form section.key=value"),
        (["llama2-7b", "--set", "edge=3"], "edge = 3"),
    ],
)
def test_wrong_input_is_refused_in_a_line_or_two(arguments, message):
    with pytest.raises(UserError) as refused:
        budget(*arguments)
    assert message in str(refused.value)
    assert str(refused.value).count("\n") <= 1


@pytest.mark.slow
def test_the_command_loads_nothing_heavy_and_ends_with_code_2_where_it_refuses():
    code = (
        "import json, sys; from raysplit.cli import main\n"
        "codes = []\n"
        "for words in (['embedded'], ['embedded', '--phone', 'x']):\n"
        "    sys.argv = ['raysplit', 'budget', *words]\n"
        "    try: main()\n"
        "    except SystemExit as end: codes.append(end.code)\n"
        "heavy = {'torch', 'ray', 'transformers', 'matplotlib', 'scipy', 'pandas'}\n"
        "print(json.dumps([codes, sorted(heavy & set(sys.modules))]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert json.loads(done.stdout.splitlines()[-1]) == [[None, 2], []]
    assert done.stderr.startswith("error: unknown phone 'x'")
