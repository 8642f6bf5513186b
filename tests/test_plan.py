"""Plans: which settings are measured."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from raysplit.base.errors import UserError
from raysplit.link.config import LinkConfig
from raysplit.link.state import LinkState
from raysplit.measure.plan import PlanConfig, make_plan
from raysplit.measure.rows import Row
from raysplit.measure.service import as_table
from raysplit.measure.setting import Setting
from raysplit.pipeline.experiment import load_experiment
from raysplit.pipeline.preflight import refuse_early

RANGES = {"noise_std": (0.0, 1.2), "loss_probability": (0.0, 0.3)}


def test_sobol_fills_split_points_and_link_states_evenly():
    plan = make_plan(PlanConfig(kind="sobol", settings=1280), (1, 10), RANGES)
    counts = np.bincount([s.split_point for s in plan])[1:]
    assert len(counts) == 10
    assert counts.min() >= 120  # 128 each if perfectly even
    assert counts.max() <= 136
    noise = np.array([s.link.noise_std for s in plan])
    assert noise.min() >= 0
    assert noise.max() <= 1.2
    assert abs(noise.mean() - 0.6) < 0.01
    assert abs(np.corrcoef(noise, [s.link.loss_probability for s in plan])[0, 1]) < 0.05


def test_sobol_is_seeded_and_its_beginning_does_not_depend_on_its_length_below_a_power_of_two():
    short = make_plan(PlanConfig(settings=70), (1, 10), RANGES)
    assert short == make_plan(PlanConfig(settings=128), (1, 10), RANGES)[:70]
    assert short != make_plan(PlanConfig(settings=70, seed=1), (1, 10), RANGES)


def test_the_paper_default_has_9718_distinct_settings():
    plan = make_plan(PlanConfig(), (1, 10), RANGES)
    assert len(plan) == len(set(plan)) == 9718


def test_pairing_decides_whether_settings_share_their_randomness():
    paired = make_plan(PlanConfig(settings=8), (1, 3), RANGES)
    assert {s.seed for s in paired} == {0}
    assert {s.seed for s in make_plan(PlanConfig(settings=8, seed=7), (1, 3), RANGES)} == {7}
    unpaired = make_plan(PlanConfig(settings=8, paired=False), (1, 3), RANGES)
    assert len({s.seed for s in unpaired}) == 8
    assert [(s.split_point, s.link) for s in unpaired] == [(s.split_point, s.link) for s in paired]


def test_unpaired_plans_of_neighbouring_seeds_share_no_randomness():
    plans = [
        make_plan(PlanConfig(settings=200, paired=False, seed=seed), (1, 3), RANGES)
        for seed in (0, 1, 2, 2**32 - 1)
    ]
    again = make_plan(PlanConfig(settings=100, paired=False, seed=1), (1, 3), RANGES)
    assert [s.seed for s in again] == [s.seed for s in plans[1][:100]]
    seeds = [s.seed for plan in plans for s in plan]
    assert len(set(seeds)) == 800
    assert min(seeds) >= 2**42  # above the evaluation's and the rewards' own
    assert max(seeds) < 2**53


def test_grid_has_every_combination_with_both_ends():
    plan = make_plan(PlanConfig(kind="grid", grid_points=3), (2, 4), {"noise_std": (0.0, 1.0)})
    expected = [(p, s) for p in (2, 3, 4) for s in (0.0, 0.5, 1.0)]
    assert [(s.split_point, s.link.noise_std) for s in plan] == expected


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_listed_plan_is_read_from_a_file(tmp_path, suffix):
    table = pd.DataFrame({"noise_std": [0.25, 0.5], "split_point": [3, 1], "note": ["a", "b"]})
    path = tmp_path / f"plan.{suffix}"
    table.to_csv(path) if suffix == "csv" else table.to_parquet(path)
    plan = make_plan(PlanConfig(kind="list", path=path), (1, 4), {"noise_std": (0.0, 1.0)})
    assert plan == [Setting(3, LinkState(noise_std=0.25)), Setting(1, LinkState(noise_std=0.5))]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"split_point": [11], "noise_std": [0.1]}, "line 2: split_point 11 is none of 1 to 4"),
        ({"split_point": [1.5], "noise_std": [0.1]}, "line 2: split_point 1.5 is none of 1 to 4"),
        ({"split_point": [1], "noise_std": [float("nan")]}, "line 2: noise_std is ''"),
        ({"split_point": [], "noise_std": []}, "holds no row"),
        ({"p": [1], "noise_std": [0.1]}, r"lacks the column\(s\) split_point"),
        ({"split_point": [1], "noise_std": [0.1], "snr_db": [3.0]}, "varies snr_db"),
        ({"split_point": [1], "noise_std": ["2020-01-01"]}, "noise_std is '2020-01-01', which is"),
        ({"split_point": [1], "noise_std": [True]}, "noise_std is 'True', which is no number"),
        ({"split_point": [1, 1], "noise_std": [0.1, -0.5]}, r"line 3: noise_std -0.5 is outside"),
        ({"split_point": [1, 1], "noise_std": [0.1, 60]}, r"line 3: noise_std 60 is outside .0, 1"),
    ],
)
def test_a_wrong_list_is_refused(tmp_path, columns, message):
    path = tmp_path / "plan.csv"
    pd.DataFrame(columns).to_csv(path)
    with pytest.raises(UserError, match=message):
        make_plan(PlanConfig(kind="list", path=path), (1, 4), {"noise_std": (0.0, 1.0)})


def test_a_path_needs_kind_list():
    with pytest.raises(ValidationError, match="goes with"):
        PlanConfig(kind="grid", path="x.csv")


def test_a_key_names_everything_that_decides_the_result():
    base = Setting(3, LinkState(noise_std=0.5), 1)
    others = [
        Setting(4, LinkState(noise_std=0.5), 1),
        Setting(3, LinkState(noise_std=0.6), 1),
        Setting(3, LinkState(noise_std=0.5, loss_probability=0.1), 1),
        Setting(3, LinkState(noise_std=0.5), 2),
    ]
    keys = {s.key("card") for s in [base, *others]} | {base.key("another card")}
    assert len(keys) == 6
    assert base.key("card") == Setting(3, LinkState(noise_std=0.5, fading_scale=1.0), 1).key("card")


def test_an_outage_is_measured_at_its_fading_scale_and_listed_as_it_was_asked():
    link = LinkConfig(fading="rayleigh", gain_threshold=0.5)
    ranges = {"outage_probability": (0.1, 0.3)}
    plan = make_plan(PlanConfig(settings=32), (1, 3), ranges, link)
    asked = [setting.link.outage_probability for setting in plan]
    assert min(asked) < 0.12 < 0.28 < max(asked)
    lost = [1 - math.exp(-(0.5**2) / (2 * setting.link.fading_scale**2)) for setting in plan]
    assert lost == pytest.approx(asked)  # Eq. 4
    # The ledger knows the channel's state alone.
    known = [replace(s, link=LinkState(**s.link.as_dict())) for s in plan]
    assert [s.key("card") for s in known] == [s.key("card") for s in plan]
    assert all(s.link.outage_probability is None for s in known)
    rows = {
        setting: Row(setting=of_ledger, status="done", log_ppl=1.0, stderr=0.1)
        for setting, of_ledger in zip(plan, known, strict=True)
    }
    assert as_table(rows, tuple(ranges), 1.0).link_states_NK[:, 0].tolist() == asked
    with pytest.raises(UserError, match="set both for outage_probability"):
        make_plan(PlanConfig(settings=2), (1, 3), ranges)


@pytest.mark.parametrize(
    ("field", "fewest", "most", "default"),
    [("settings", 1, None, 9718), ("grid_points", 2, None, 11), ("seed", 0, 2**32 - 1, 0)],
)
def test_the_sections_numbers_have_stated_bounds(field, fewest, most, default):
    assert getattr(PlanConfig(), field) == default
    assert getattr(PlanConfig(**{field: fewest}), field) == fewest
    with pytest.raises(ValidationError):
        PlanConfig(**{field: fewest - 1})
    if most is not None:
        assert getattr(PlanConfig(**{field: most}), field) == most
        with pytest.raises(ValidationError):
            PlanConfig(**{field: most + 1})


@pytest.mark.parametrize("settings", [1, 2, 3])
def test_short_sobol_plans_are_whole_and_do_not_begin_at_the_corner(settings):
    plan = make_plan(PlanConfig(settings=settings), (1, 10), RANGES)
    assert len(plan) == settings
    assert plan[0].link.noise_std > 0  # an unscrambled sequence begins at the lowest corner
    assert plan[0].link.loss_probability > 0


def test_a_listed_plan_may_lie_on_every_end_of_the_problem(tmp_path):
    path = tmp_path / "plan.csv"
    path.write_text("split_point,noise_std\n1,0\n4,1\n")
    plan = make_plan(PlanConfig(kind="list", path=path), (1, 4), {"noise_std": (0.0, 1.0)})
    assert plan == [Setting(1, LinkState()), Setting(4, LinkState(noise_std=1.0))]


def test_a_listed_plan_of_outages_is_as_good_before_the_run_as_in_it(tmp_path):
    path = tmp_path / "plan.csv"
    path.write_text("split_point,outage_probability\n2,0.1\n3,0.3\n")
    experiment = load_experiment(
        "demo",
        [
            "link={fading: rayleigh, gain_threshold: 0.5}",
            "problem.link={outage_probability: [0.1, 0.3]}",
            f"plan={{kind: list, path: {path}}}",
        ],
    )
    refuse_early(experiment)
    asked = [setting.link.outage_probability for setting in experiment.planned_settings()]
    assert asked == [0.1, 0.3]


def test_a_listed_plan_is_named_by_its_key(tmp_path):
    with pytest.raises(UserError, match=r"^plan\.path .*nowhere\.csv"):
        make_plan(
            PlanConfig(kind="list", path=tmp_path / "nowhere.csv"), (1, 4), {"noise_std": (0.0, 1)}
        )
