"""Runs side by side: which curve stands in which panel, and which runs are refused."""

# The Greek letter sigma is meant:
# ruff: noqa: RUF001

import json
import time

import numpy as np
import pandas as pd
import pytest

from raysplit import figures
from raysplit.base.errors import UserError
from raysplit.base.files import sha256_of
from raysplit.base.sealed_json import write_sealed
from raysplit.measure.table import Measurements
from raysplit.pipeline import compare as stage
from raysplit.pipeline.experiment import Experiment
from raysplit.pipeline.oracles import EVALUATION_FORM
from raysplit.pipeline.run_folder import RunFolder

pytestmark = pytest.mark.slow

AWGN = {"noise_std": [0.0, 6.0]}
SHADES = {"fading_scale": [0.5, 5.0]}
OUTAGES = {"fading": "rayleigh", "gain_threshold": 0.5}
STAGES = ("measure", "fit", "train", "evaluate")
SPLIT_POINTS = (1, 2, 3)


def write_run(
    path,
    *,
    model="tiny",
    link=None,
    states=AWGN,
    agents=None,
    ends=(-6, -5),
    measured_ends=(-6, -5),
    card=None,
    **problem,
):
    """A run folder with what comparing reads: an evaluated grid and the agents' curves."""
    experiment = Experiment.model_validate(
        {
            "name": "some-run",
            "model": {"name": model},
            "link": link or {},
            "problem": {"link": states, "max_split_point": SPLIT_POINTS[-1]} | problem,
            "agents": agents or {"ppo": {"seeds": [0, 1]}},
        }
    )
    with RunFolder.open(path, experiment) as folder:
        table = evaluated(states)
        table.to_parquet(path / "evaluation.parquet")
        write_card(path, experiment, card or {})
        names = ("random_return", "optimal_return")
        of_source = {
            "surrogate": dict(zip(names, ends, strict=True)),
            "measured": dict(zip(names, measured_ends, strict=True)),
        }
        evaluation = path / "evaluation.json"
        write_sealed(evaluation, {"form": EVALUATION_FORM, "problem": of_source})
        for name, config in experiment.agents.items():
            for seed in config.seeds:
                write_agent(path / "agents" / name / f"seed-{seed}", config.algorithm, seed)
        for name in STAGES:
            folder.declare_done(name, "", [evaluation, path / "evaluation.parquet"], time.time())
    return path


def write_card(path, experiment, changes):
    """The card of a run; the model's weights and tokens follow its name, findings its folder."""
    name = experiment.model.name
    found = int(sha256_of(str(path))[:6], 16)
    card = {
        "model": {"name": name, "weights_sha256": name, "dtype": "float32", "attention": "sdpa"},
        "tokenizer": {"sha256": name, "prefix": "<s>"},
        "corpus": {"source": "embedded", "sha256": name, "sequences": 9, "scored_tokens": 99},
        "protocol": experiment.protocol.model_dump(mode="json"),
        "link": experiment.link.model_dump(mode="json"),
        "estimate": {"target_stderr": 0.01},
        "device": "cpu",
        "libraries": {"torch": "2.9.0"},
        # What was found differs from run to run.
        "clean_log_ppl": 2.0 + found,
        "tokens_per_sequence": 9.0 + found,
        "signal_rms": {"1": 1.0 + found},
        "card_sha256": str(path),
    }
    for place, value in changes.items():
        *sections, key = place.split(".")
        section = card
        for part in sections:
            section = section[part]
        section[key] = value
    write_sealed(path / "protocol_card.json", card)


def evaluated(states):
    """PPL 10 + p + 100 x the link coordinate, at three link states."""
    ((name, (low, high)),) = states.items()
    grid = [(p, x) for p in SPLIT_POINTS for x in (low, (low + high) / 2, high)]
    split_points, values = map(np.array, zip(*grid, strict=True))
    return Measurements(
        split_points_N=split_points,
        link_names=(name,),
        link_states_NK=values[:, None],
        log_ppl_N=np.log(10 + split_points + 100 * values),
        stderr_N=np.full(len(grid), 0.01),
        clean_log_ppl=np.log(10.0),
    )


def write_agent(home, algorithm, seed):
    home.mkdir(parents=True)
    record = {"inputs_sha256": "", "preset": "paper", "checkpoint": "checkpoints/step-200"}
    record |= {"algorithm": algorithm, "seed": seed}
    returns = [-6 + 0.1 * i + 0.01 * seed for i in range(3)]
    curve = [
        {"step": 100 * i, "episode_return": value, "seconds": 1.0, "judged_return": value}
        for i, value in enumerate(returns)
    ]
    write_sealed(home / "agent.json", record | {"curve": curve})


@pytest.fixture
def drawn(monkeypatch):
    """The panels that were drawn, by figure and title."""
    panels = {}

    def note(name):
        draw = getattr(figures, name)

        def noted(given):
            panels[name] = {panel.title: panel for panel in given}
            return draw(given)

        monkeypatch.setattr(stage, name, noted)

    note("ppl_against_split_point")
    note("learning_curves")
    return panels


def test_every_run_stands_in_the_panels_of_its_own_link(tmp_path, drawn):
    runs = [
        write_run(tmp_path / "faded", model="large", link=OUTAGES, states=SHADES),
        write_run(tmp_path / "small", model="/models/small"),
        write_run(tmp_path / "large", model="large"),
    ]
    stage.compare(runs, tmp_path / "out")
    panels = drawn["ppl_against_split_point"]
    assert {title: [curve.label for curve in p.curves] for title, p in panels.items()} == {
        "AWGN, low noise\nnoise σ = 0": ["small", "large"],
        "AWGN, high noise\nnoise σ = 6": ["small", "large"],
        # A large gain is a good link: the fewest packets are lost where it is largest.
        "Rayleigh fading, low loss\nfading scale σₕ = 5": ["large"],
        "Rayleigh fading, high loss\nfading scale σₕ = 0.5": ["large"],
    }
    assert next(iter(panels)).startswith("AWGN")
    band = panels["AWGN, high noise\nnoise σ = 6"].curves[0].band
    assert band.x.tolist() == [1, 2, 3]
    np.testing.assert_allclose(band.centre, [611, 612, 613])
    np.testing.assert_allclose(band.high / band.centre, np.exp(1.96 * 0.01))
    for name in ("perplexity", "learning"):
        for ending in ("png", "pdf", "svg"):
            assert (tmp_path / "out" / "figures" / f"{name}.{ending}").stat().st_size > 1000


def test_agents_of_one_case_share_a_panel_and_say_what_they_learned_from(tmp_path, drawn):
    measured = {"ppo": {"seeds": [0], "rewards": "measured"}, "dqn": {"algorithm": "dqn"}}
    runs = [
        write_run(tmp_path / "high", case="H"),
        write_run(tmp_path / "all", case="A", ends=(-6.0, -5.0)),
        write_run(tmp_path / "true", case="A", agents=measured, ends=(-6.2, -5.4)),
        write_run(tmp_path / "low", case="L"),
    ]
    stage.compare(runs, tmp_path / "out")
    panels = drawn["learning_curves"]
    assert list(panels) == ["Case L", "Case H", "Case A"]
    case_a = panels["Case A"]
    assert list(case_a.curves) == ["ppo", "ppo, measured rewards", "dqn"]
    assert (case_a.random_return, case_a.optimal_return) == pytest.approx((-6.1, -5.2))
    # It closes 0.205 of its own run's gap, from -6 to -5.
    assert case_a.curves["ppo"].centre[-1] == pytest.approx(-6.1 + 0.205 * 0.9)


def test_every_agent_is_judged_on_the_surrogate_whatever_it_learned_from(tmp_path, drawn):
    agents = {"ppo": {"seeds": [0]}, "true": {"seeds": [0], "rewards": "measured"}}
    run = write_run(tmp_path / "run", agents=agents, ends=(-6, -5), measured_ends=(-6, -5.6))
    stage.compare([run], tmp_path / "out")
    (case,) = drawn["learning_curves"].values()
    assert (case.random_return, case.optimal_return) == (-6, -5)
    assert case.curves["ppo"].centre[-1] == pytest.approx(-5.8)
    assert case.curves["true, measured rewards"].centre[-1] == pytest.approx(-5.8)


def test_no_curve_of_several_runs_stands_above_the_optimum(tmp_path, drawn):
    """-5.8 is a fifth of the way from -6 to -5, and a tenth of the way from -6 to -4."""
    runs = [
        write_run(tmp_path / "a" / "run", ends=(-6, -5)),
        write_run(tmp_path / "b" / "run", ends=(-6, -4)),
    ]
    stage.compare(runs, tmp_path / "out")
    (case,) = drawn["learning_curves"].values()
    assert (case.random_return, case.optimal_return) == (-6, -4.5)
    found = [case.curves[f"ppo ({run})"].centre[-1] for run in ("a/run", "b/run")]
    assert found == pytest.approx([-6 + 1.5 / 5, -6 + 1.5 / 10], abs=0.02)


def test_a_runs_own_folder_is_not_overwritten(tmp_path):
    run = write_run(tmp_path / "run")
    with pytest.raises(UserError, match="name another"):
        stage.compare([run], run)


def test_equal_labels_are_told_apart_by_the_run(tmp_path, drawn):
    runs = [write_run(tmp_path / where / "run") for where in ("here", "there")]
    stage.compare(runs, tmp_path / "out")
    (case,) = drawn["learning_curves"].values()
    assert list(case.curves) == ["ppo (here/run)", "ppo (there/run)"]


def test_other_models_or_links_have_a_panel_of_their_own(tmp_path, drawn):
    runs = [
        write_run(tmp_path / "a", model="small"),
        write_run(tmp_path / "b", model="large"),
        write_run(tmp_path / "c", model="large", link=OUTAGES, states=SHADES),
    ]
    stage.compare(runs, tmp_path / "out")
    assert list(drawn["learning_curves"]) == [
        "Case A\nsmall\nAWGN",
        "Case A\nlarge\nAWGN",
        "Case A\nlarge\nRayleigh fading",
    ]


def test_models_measured_at_other_link_states_say_at_which(tmp_path, drawn):
    wider = {"noise_std": [0.0, 9.0]}
    runs = [
        write_run(tmp_path / "a", model="small"),
        write_run(tmp_path / "b", model="large", states=wider),
    ]
    stage.compare(runs, tmp_path / "out")
    panels = drawn["ppl_against_split_point"]
    assert list(panels) == ["AWGN, low noise\nnoise σ = 0", "AWGN, high noise"]
    high = [curve.label for curve in panels["AWGN, high noise"].curves]
    assert high == ["small, noise σ = 6", "large, noise σ = 9"]


def test_link_states_that_differ_little_are_not_said_to_be_one(tmp_path, drawn):
    wider = {"noise_std": [0.0, 6.0 + 1e-8]}
    runs = [
        write_run(tmp_path / "a", model="small"),
        write_run(tmp_path / "b", model="large", states=wider),
    ]
    stage.compare(runs, tmp_path / "out")
    high = drawn["ppl_against_split_point"]["AWGN, high noise"]
    assert [curve.label for curve in high.curves] == [
        "small, noise σ = 6",
        "large, noise σ = 6.00000001",
    ]


def test_the_table_holds_the_points_that_are_drawn(tmp_path, drawn):
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", model="large")]
    stage.compare(runs, tmp_path / "out")
    table = pd.read_parquet(tmp_path / "out" / "compare.parquet")
    assert list(table) == [
        *("figure", "panel", "curve", "run", "model"),
        *("x", "value", "low", "high"),
    ]
    part = table[(table.figure == "perplexity") & (table.run == "b")]
    assert set(part.model) == {"large"}
    assert set(part.panel) == {"AWGN, low noise, noise σ = 0", "AWGN, high noise, noise σ = 6"}
    np.testing.assert_allclose(part.value, [11, 12, 13, 611, 612, 613])
    assert (part.low < part.value).all()
    assert (part.value < part.high).all()
    assert set(table[table.figure == "learning"].curve) == {"ppo"}


def refused(runs, out, match):
    with pytest.raises(UserError, match=match):
        stage.compare(runs, out)
    assert not out.exists()


def test_folders_that_are_no_finished_runs_are_refused(tmp_path):
    out = tmp_path / "out"
    good = write_run(tmp_path / "good")
    refused([good, tmp_path / "none"], out, "none is no run folder")
    refused([good, good], out, "is given twice")
    half = write_run(tmp_path / "half")
    manifest = json.loads((half / "manifest.json").read_text())
    del manifest["evaluate"]
    (half / "manifest.json").write_text(json.dumps(manifest))
    (half / "manifest.json.copy").unlink()  # it would stand in for a changed one
    refused([good, half], out, "stage 'evaluate' is not done in .*half")
    changed = write_run(tmp_path / "changed")
    (changed / "evaluation.json").write_text("{}")
    refused([good, changed], out, "is not done in .*changed")


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"lambda": 0.3}, "problem.lambda is 0.1 there and 0.3 here"),
        ({"reward": "authors"}, "problem.reward is 'objective' there and 'authors' here"),
        ({"link": {"concealment": "hold_last"}}, "link.concealment is 'zeros' there"),
    ],
)
def test_runs_that_do_not_compare_are_refused(tmp_path, changes, difference):
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", **changes)]
    refused(runs, tmp_path / "out", f"b differs from a: {difference}")


CARDS = [
    ({"device": "cuda"}, "device is 'cpu' there and 'cuda' here"),
    ({"libraries.torch": "2.8.0"}, "libraries.torch is '2.9.0' there and '2.8.0' here"),
    ({"model.dtype": "bfloat16"}, "model.dtype is 'float32' there and 'bfloat16' here"),
    ({"estimate.target_stderr": 0.1}, "estimate.target_stderr is 0.01 there and 0.1 here"),
]
OF_ONE_MODEL = [
    ({"model.weights_sha256": "x"}, "model.weights_sha256 is 'tiny' there and 'x' here"),
    ({"model.attention": "eager"}, "model.attention is 'sdpa' there"),
    ({"corpus.sha256": "x"}, "corpus.sha256 is 'tiny' there and 'x' here"),
    ({"tokenizer.sha256": "x"}, "tokenizer.sha256 is 'tiny' there"),
]


@pytest.mark.parametrize(("card", "difference"), CARDS + OF_ONE_MODEL)
def test_runs_of_one_model_that_were_measured_otherwise_are_refused(tmp_path, card, difference):
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", card=card)]
    refused(runs, tmp_path / "out", f"b differs from a: {difference}.*--allow-different")


def test_a_changed_card_is_not_believed(tmp_path):
    runs = [write_run(tmp_path / name) for name in ("a", "b")]
    card = tmp_path / "b" / "protocol_card.json"
    card.write_text(card.read_text().replace("float32", "float16"))
    refused(runs, tmp_path / "out", "protocol_card.json was changed .*`raysplit run .*` makes it")


@pytest.mark.parametrize(("card", "difference"), CARDS)
def test_models_that_were_measured_otherwise_are_refused(tmp_path, card, difference):
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", model="large", card=card)]
    refused(runs, tmp_path / "out", f"b differs from a: {difference}")


def test_a_third_run_is_held_against_the_one_of_its_own_model(tmp_path):
    runs = [
        write_run(tmp_path / "a"),
        write_run(tmp_path / "b", model="large"),
        write_run(tmp_path / "c", model="large", card={"model.weights_sha256": "x"}),
    ]
    refused(runs, tmp_path / "out", "c differs from b: model.weights_sha256 is 'large'")


def test_one_model_in_two_places_is_one_model(tmp_path, drawn):
    same = {"model.weights_sha256": "x", "corpus.sha256": "x", "tokenizer.sha256": "x"}
    runs = [write_run(tmp_path / n, model=f"/{n}/small", card=same) for n in ("a", "b")]
    stage.compare(runs, tmp_path / "out")


def test_what_is_drawn_all_the_same_says_so(tmp_path, drawn, monkeypatch, capfd):
    figures_saved = {}
    save = stage.save

    def noted(figure, folder, name):
        figures_saved[name] = figure
        return save(figure, folder, name)

    monkeypatch.setattr(stage, "save", noted)
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", card={"device": "cuda"})]
    stage.compare(runs, tmp_path / "out", allow_different=True)
    difference = "b differs from a: device is 'cpu' there and 'cuda' here"
    assert f"different: {difference}" in capfd.readouterr().err
    for figure in figures_saved.values():
        above = figure.get_suptitle().replace("\n", " ")
        assert above == f"Not measured alike: {difference}"
    stage.compare(runs[:1], tmp_path / "alike", allow_different=True)
    assert {figure.get_suptitle() for figure in figures_saved.values()} == {""}


def test_another_reward_in_another_case_is_no_matter(tmp_path, drawn):
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", case="L", reward="authors")]
    stage.compare(runs, tmp_path / "out")
    assert list(drawn["learning_curves"]) == ["Case L", "Case A"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    out = tmp_path / "out"
    out.write_text("a file")
    with pytest.raises(UserError, match=r"out.*cannot be written"):
        stage.compare([write_run(tmp_path / "a")], out)
