"""Which settings the stages have measured, and that each value keeps its own names and seed."""

import dataclasses
import json
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

from raysplit.base.errors import UserError
from raysplit.measure.ledger import Ledger
from raysplit.measure.rows import Row
from raysplit.measure.table import Measurements
from raysplit.pipeline.experiment import load_experiment
from raysplit.pipeline.problem import ledger_path, measured_problem
from raysplit.pipeline.rewards import RewardSources
from raysplit.pipeline.run_folder import RunFolder
from raysplit.pipeline.stages import evaluate, fit, measure
from raysplit.surrogate import Surrogate
from tuning.settings import TrainConfig

RANGES = {"noise_std": (0.0, 6.0), "loss_probability": (0.0, 0.3)}


def log_ppl(split_points, noise, loss):
    """Other in each argument, so that exchanged ones are noticed."""
    return 3 + 0.1 * noise + 2 * loss - 0.05 * split_points


class Service:
    """Answers by the formula, by name, and remembers what it was asked."""

    card, card_sha256 = {"model": {"layers": 16}}, "a card"
    tokens_per_sequence = 12.0
    sentence_use = None

    def __init__(self):
        self.asked = []

    def reference(self):
        corpus = SimpleNamespace(log_ppl=2.0)
        return SimpleNamespace(first_split_point=1, corpus=corpus, rms_P=np.ones(10))

    def measure(self, settings, title=""):
        settings = list(settings)
        self.asked += settings
        return {setting: self.row(setting) for setting in settings}

    def seed_stderr(self, seeds):
        return 0.001

    def row(self, setting):
        link = setting.link
        value = log_ppl(setting.split_point, link.noise_std, link.loss_probability)
        return Row(setting=setting, status="done", log_ppl=value, stderr=0.01)


@pytest.fixture
def service(monkeypatch):
    fake = Service()

    @contextmanager
    def opened(_folder):
        yield fake

    monkeypatch.setattr(measure, "measuring_service", opened)
    monkeypatch.setattr(evaluate, "same_measuring_service", opened)
    return fake


def folder_of(path, names, *overrides):
    link = ", ".join(f"{n}: {{low: {RANGES[n][0]}, high: {RANGES[n][1]}}}" for n in names)
    settings = ["plan.settings=64", f"problem.link={{{link}}}", *overrides]
    return RunFolder(path, load_experiment("demo", settings))


@pytest.mark.parametrize("case", "LHA")
def test_every_case_measures_the_whole_range(tmp_path, service, case):
    """A surrogate serves all cases, and its rows are found again by another case's run."""
    measure.run(folder_of(tmp_path, ["noise_std"], f"problem.case={case}"))
    noise = [setting.link.noise_std for setting in service.asked]
    assert min(noise) < 0.2
    assert max(noise) > 5.8
    assert {setting.split_point for setting in service.asked} == set(range(1, 11))


@pytest.mark.parametrize("case", "LH")
def test_a_surrogate_costs_the_whole_plan_in_every_case(tmp_path, service, case):
    folder = folder_of(tmp_path, ["noise_std"], f"problem.case={case}")
    measure.run(folder)
    with Ledger(ledger_path(folder)) as ledger:
        rows = (dataclasses.replace(service.row(s), seconds=0.5) for s in service.asked)
        ledger.add(service.card_sha256, rows)
    params, _ = measured_problem(folder)
    bill = RewardSources(folder, params, None).cost(TrainConfig(rewards="surrogate"), None)
    assert (bill.llm_evaluations, bill.worker_seconds) == (64, 32.0)


@pytest.mark.parametrize("seed", [0, 4294967295])
@pytest.mark.parametrize("paired", ["true", "false"])
def test_what_is_judged_was_not_learned_from(tmp_path, service, paired, seed):
    """Another seed, so another randomness of the link: the evaluation's is none of the plan's."""
    folder = folder_of(tmp_path, ["noise_std"], f"plan.paired={paired}", f"plan.seed={seed}")
    measure.run(folder)
    planned = {setting.seed for setting in service.asked}
    service.asked.clear()
    evaluate._measure_grid(folder)
    evaluated = {setting.seed for setting in service.asked}
    service.asked.clear()
    params, _ = measured_problem(folder)
    sources = RewardSources(folder, params, service)
    source = sources.source_of(TrainConfig(rewards="measured"), 0, tmp_path)
    source(np.array([1]), np.array([[0.5]]))
    rewarded = {setting.seed for setting in service.asked}
    assert len(evaluated) == len(rewarded) == 1
    assert not planned & evaluated | planned & rewarded | evaluated & rewarded


@pytest.mark.parametrize("names", [tuple(RANGES), tuple(RANGES)[::-1]])
def test_every_column_is_measured_under_its_own_name(tmp_path, service, names):
    folder = folder_of(tmp_path, names)
    table_path, card_path = measure.run(folder)
    assert json.loads(card_path.read_text())["clean_log_ppl"] == 2.0
    evaluate._measure_grid(folder)
    for path in (table_path, tmp_path / "evaluation.parquet"):
        table = Measurements.from_parquet(path)
        assert table.link_names == names
        columns = dict(zip(names, table.link_states_NK.T, strict=True))
        expected = log_ppl(table.split_points_N, columns["noise_std"], columns["loss_probability"])
        np.testing.assert_allclose(table.log_ppl_N, expected)
        assert columns["noise_std"].max() > 5.8
    params, _ = measured_problem(folder)
    source = RewardSources(folder, params, service).source_of(
        TrainConfig(rewards="measured"), 0, tmp_path
    )
    state = {"noise_std": 3.0, "loss_probability": 0.15}  # both on the rewards' grid
    asked = np.array([[state[name] for name in names]])
    np.testing.assert_allclose(np.log(source(np.array([4]), asked)), log_ppl(4, 3.0, 0.15))


def test_the_surrogate_answers_for_every_split_point_of_the_problem(tmp_path):
    """Also where nothing could be measured at the first or the last of them."""
    changes = ["problem.max_split_point=10", "surrogate.steps=1", "surrogate.folds=2"]
    split_points = np.repeat(np.arange(2, 10), 3)
    noise = np.tile([0.0, 3.0, 6.0], 8)
    table = Measurements(
        split_points_N=split_points,
        link_names=("noise_std",),
        link_states_NK=noise[:, None],
        log_ppl_N=log_ppl(split_points, noise, 0),
        stderr_N=np.full(24, 0.01),
        clean_log_ppl=2.0,
    )
    with RunFolder.open(tmp_path / "run", load_experiment("demo", changes)) as folder:
        table.to_parquet(folder.path / "measurements.parquet")
        fit.run(folder)
        surrogate = Surrogate.load(folder.path / "surrogate")
    ends, states = np.array([1, 10]), np.full((2, 1), 3.0)
    assert np.isfinite(surrogate.predict_log_ppl(ends, states)[0]).all()
    with pytest.raises(UserError, match=r"outside 1\.\.10"):
        surrogate.predict_log_ppl(ends + 1, states)
