"""Active plans: what they choose, when they stop, how they go on, and what is refused."""

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

from raysplit.base.errors import UserError
from raysplit.measure.ledger import Ledger
from raysplit.measure.rows import Row
from raysplit.measure.table import Measurements
from raysplit.pipeline import active
from raysplit.pipeline.active import (
    CHOICES,
    ActiveStep,
    measure_actively,
    measured_settings,
    read_choices,
    write_choices,
)
from raysplit.pipeline.experiment import load_experiment
from raysplit.pipeline.input_hashes import inputs_sha256
from raysplit.pipeline.problem import anchor_plan, ledger_path, measured_problem
from raysplit.pipeline.rewards import RewardSources
from raysplit.pipeline.run_folder import RunFolder
from raysplit.pipeline.stages import measure
from raysplit.pipeline.views.panels import expected_shares
from tuning.settings import TrainConfig

QUICK = {"steps": 60, "folds": 3, "hidden": 16}


def experiment(**plan):
    plan = {"kind": "active", "first_settings": 8, "batch_settings": 3, "target_regret": 0.0} | plan
    values = ", ".join(f"{key}: {value}" for key, value in plan.items())
    surrogate = ", ".join(f"{key}: {value}" for key, value in QUICK.items())
    return load_experiment("demo", [f"plan={{{values}}}", f"surrogate={{{surrogate}}}"])


class Service:
    """Answers by a formula, keeps a ledger, and can be killed after so many settings."""

    card, card_sha256 = {"model": {"layers": 16}}, "a card"
    tokens_per_sequence = 12.0
    sentence_use = None

    def __init__(self, dies_after=10**9, broken=()):
        self.known, self.broken, self.dies_after = {}, broken, dies_after
        self.batches = []

    def reference(self, keep=()):
        corpus = SimpleNamespace(log_ppl=2.0)
        return SimpleNamespace(first_split_point=1, corpus=corpus, rms_P=np.ones(10))

    def measure(self, settings, title=""):
        new = [setting for setting in settings if setting not in self.known]
        self.batches.append(len(new))
        for setting in new:
            if len(self.known) == self.dies_after:
                raise KeyboardInterrupt
            self.known[setting] = self.row(setting)
        return {setting: self.known[setting] for setting in settings}

    def row(self, setting):
        if setting.split_point in self.broken:
            return Row(setting=setting, status="quarantined", reason="broken", seconds=0.5)
        value = 2.0 + setting.link.noise_std / np.sqrt(setting.split_point) / 3
        return Row(setting=setting, status="done", log_ppl=value, stderr=0.01, seconds=0.5)


def choices(service, **plan):
    rows, steps = measure_actively(experiment(**plan), service)
    assert list(rows) == list(steps[-1].settings)
    return steps


def test_it_begins_with_a_sobol_plan_and_stops_exactly_at_the_most_settings():
    service = Service()
    steps = choices(service, max_settings=13)
    assert [len(step.settings) for step in steps] == [8, 11, 13]
    assert service.batches == [8, 3, 2]
    settings = steps[-1].settings
    sobol = load_experiment("demo", ["plan={kind: sobol, settings: 8}"])
    assert list(settings[:8]) == sobol.planned_settings()
    assert all(s.link.noise_std > 0 for s in settings)  # over a perfect link the outcome is known
    assert len(set(settings)) == 13
    assert {s.seed for s in settings} == {0}
    # What is added lies on the candidates' grid, eleven values of the noise.
    assert {s.link.noise_std for s in settings[8:]} <= set(np.linspace(0, 6, 11).round(6))


def test_it_stops_once_the_expected_regret_is_small_enough_twice():
    steps = choices(Service(), max_settings=40, target_regret=0.99)
    assert [len(step.settings) for step in steps] == [8, 11]
    assert all(0 <= step.expected_regret <= 0.99 for step in steps)


def test_one_small_expected_regret_may_be_chance(monkeypatch):
    regrets = iter([0.01, 0.5, 0.02, 0.03, 0.02, 0.01])
    monkeypatch.setattr(active, "expected_regret", lambda *_: next(regrets))
    steps = choices(Service(), max_settings=40, target_regret=0.02)
    assert [step.expected_regret for step in steps] == [0.01, 0.5, 0.02, 0.03, 0.02, 0.01]


@pytest.mark.slow
def test_equal_seeds_choose_alike_and_others_otherwise():
    one, again = (choices(Service(), max_settings=14) for _ in range(2))
    assert one == again
    other = choices(Service(), max_settings=14, seed=1)
    assert {s.link for s in one[-1].settings} != {s.link for s in other[-1].settings}


def test_a_killed_plan_goes_on_with_the_same_choices():
    whole = Service()
    steps = choices(whole, max_settings=14)
    killed = Service(dies_after=12)
    with pytest.raises(KeyboardInterrupt):
        choices(killed, max_settings=14)
    assert len(killed.known) == 12
    killed.dies_after, killed.batches = 10**9, []
    assert choices(killed, max_settings=14) == steps
    assert killed.known == whole.known
    assert sum(killed.batches) == 2  # nothing was measured twice


def test_what_failed_is_not_asked_for_again():
    service = Service(broken=(1,))
    steps = choices(service, max_settings=20, first_settings=10)
    settings = steps[-1].settings
    assert len(set(settings)) == len(settings) == 20
    assert any(s.split_point == 1 for s in settings)


def test_it_ends_where_every_candidate_was_measured():
    steps = choices(Service(), grid_points=2, max_settings=90, batch_settings=50)
    asked = {(s.split_point, s.link.noise_std) for s in steps[-1].settings}
    assert {(p, 6.0) for p in range(1, 11)} <= asked
    assert 0.0 not in {noise_std for _, noise_std in asked}
    assert len(steps[-1].settings) < 90


def test_unpaired_settings_have_seeds_of_their_own():
    """They are those of the settings' places in the plan, as in every unpaired plan."""
    settings = choices(Service(), max_settings=11, paired="false", seed=5)[-1].settings
    sobol = load_experiment("demo", ["plan={settings: 11, paired: false, seed: 5}"])
    assert [s.seed for s in settings] == [s.seed for s in sobol.planned_settings()]
    assert len({s.seed for s in settings}) == 11


def test_a_case_asks_only_within_its_own_decisions():
    bad = load_experiment("demo", ["plan={kind: active}", "problem.case=H"])
    noise = [s.link.noise_std for s in bad.planned_settings()]
    assert 2.0 <= min(noise) < max(noise) <= 6.0
    assert len(noise) == 12
    assert bad.perfect_link() is None


# In a run


@pytest.fixture
def folder(tmp_path, monkeypatch):
    service = Service()

    @contextmanager
    def opened(_folder):
        yield service

    monkeypatch.setattr(measure, "measuring_service", opened)
    with RunFolder.open(tmp_path / "run", experiment(max_settings=11)) as folder:
        yield SimpleNamespace(of=folder, service=service)


def test_the_stage_writes_what_was_chosen(folder):
    paths = measure.run(folder.of)
    assert [path.name for path in paths] == [
        "measurements.parquet",
        "protocol_card.json",
        CHOICES,
    ]
    steps = read_choices(folder.of)
    assert [len(step.settings) for step in steps] == [8, 11]
    assert list(steps[-1].settings) == list(folder.service.known) == measured_settings(folder.of)
    table = Measurements.from_parquet(folder.of.path / "measurements.parquet")
    assert table.split_points_N.tolist() == [s.split_point for s in steps[-1].settings]
    shown = expected_shares(folder.of)
    band = shown.curves["expected"]
    assert band.x.tolist() == [8, 11]
    np.testing.assert_allclose(band.centre, [1 - step.expected_regret for step in steps])
    assert shown.target == 1.0


def test_a_surrogate_costs_the_settings_that_were_chosen(folder):
    measure.run(folder.of)
    with Ledger(ledger_path(folder.of)) as ledger:
        ledger.add(Service.card_sha256, folder.service.known.values())
    params, _ = measured_problem(folder.of)
    bill = RewardSources(folder.of, params, None).cost(TrainConfig(rewards="surrogate"), None)
    assert (bill.llm_evaluations, bill.worker_seconds) == (11, 5.5)


def test_choices_survive_the_file(folder):
    first = folder.of.experiment.planned_settings()
    steps = [ActiveStep(tuple(first[:6]), 0.1 + 0.2), ActiveStep(tuple(first), 1e-7)]
    write_choices(folder.of, steps)
    assert read_choices(folder.of) == steps
    path = folder.of.path / CHOICES
    path.write_text(path.read_text().replace("1e-07", "2e-07"))
    with pytest.raises(UserError, match=r"active_plan.json was changed after it was saved"):
        read_choices(folder.of)


def test_other_plans_have_no_curve_and_measure_what_was_planned(tmp_path):
    folder = RunFolder(tmp_path, load_experiment("demo"))
    assert expected_shares(folder) is None
    assert len(measured_settings(folder)) == 96


def test_an_active_plan_depends_on_the_surrogate_and_others_do_not(tmp_path):
    def measured_from(kind, steps):
        chosen = [f"plan.kind={kind}", f"surrogate.steps={steps}"]
        return inputs_sha256(RunFolder(tmp_path, load_experiment("demo", chosen)), "measure", ())

    assert measured_from("active", 100) != measured_from("active", 200)
    assert measured_from("sobol", 100) == measured_from("sobol", 200)


def test_another_form_of_the_fit_makes_what_rests_on_it_stale(tmp_path, monkeypatch):
    def hashes():
        active = RunFolder(tmp_path, load_experiment("demo", ["plan.kind=active"]))
        sobol = RunFolder(tmp_path, load_experiment("demo"))
        return [
            inputs_sha256(sobol, "measure", ()),
            inputs_sha256(active, "measure", ()),
            inputs_sha256(sobol, "fit", ("measure",)),
            inputs_sha256(sobol, "train", ("measure", "fit")),
        ]

    before = hashes()
    monkeypatch.setattr("raysplit.pipeline.input_hashes.FIT_FORM", 0)
    assert [a == b for a, b in zip(before, hashes(), strict=True)] == [True, False, False, False]


def test_anchors_are_made_for_the_most_settings_that_may_come():
    chosen = ["plan={kind: active, max_settings: 40}", "measuring.anchors=true"]
    assert anchor_plan(load_experiment("demo", chosen)).settings == 40


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ("first_settings: 8", "plan.first_settings 8 cannot be cut into surrogate.folds 5"),
        ("first_settings: 0", r"plan.first_settings = 0: .*greater than or equal to 1"),
        ("max_settings: 10", "max_settings 10 must be at least first_settings 12"),
        ("target_regret: 1", "plan.target_regret = 1: .*less than 1"),
        ("batch_settings: 0", "plan.batch_settings = 0: .*greater than or equal to 1"),
        ("target_regrets: 0.1", "did you mean 'target_regret'"),
    ],
)
def test_wrong_plans_are_refused_in_one_line(plan, message):
    with pytest.raises(UserError, match=message) as refused:
        load_experiment("demo", [f"plan={{kind: active, {plan}}}"])
    assert "\n" not in str(refused.value)


def test_a_plan_for_several_codecs_is_refused():
    with pytest.raises(UserError, match=r"chooses for one codec, and problem\.codecs has 2"):
        load_experiment("demo", ["plan={kind: active}", "problem.codecs=[identity, int8]"])


def test_members_are_asked_each_for_itself():
    """The sources of the members, averaged in log PPL, are the surrogate's mean."""
    service = Service()
    settings = experiment().planned_settings()
    table = active.as_table(service.measure(settings), ("noise_std",), 2.0)
    params = active.problem_of(experiment(), 2.0, 12.0)
    surrogate = active.believed(table, params, experiment().surrogate, 0, None)
    p, x = np.array([1, 4, 10]), np.array([[0.5], [2.0], [6.0]])
    members = [np.log(source(p, x)) for source in active._members(surrogate)]
    assert len(members) == 12
    assert np.std(members, axis=0).min() > 0
    np.testing.assert_allclose(np.mean(members, axis=0), surrogate.predict_log_ppl(p, x)[0])
