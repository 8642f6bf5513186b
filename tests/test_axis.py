"""One axis for all: what plan, evaluation and rewards take of a link coordinate's range."""

import numpy as np
import pytest

from envs.grid_sources import TableSource
from envs.link_chain import grid_axes, grid_states
from envs.oracle import Oracle
from envs.params import params_from
from envs.problem import ProblemConfig
from raysplit.link.axis import grid_axis, rounded_within
from raysplit.measure.anchors import choose_anchors
from raysplit.measure.plan import PlanConfig, make_plan


def problem(low, high, name="noise_std", **section):
    link = {name: {"low": low, "high": high, "grid_points": 7}}
    return ProblemConfig.model_validate({"link": link, "reward": "authors", **section})


@pytest.mark.parametrize(
    ("low", "high", "points", "values"),
    [
        (0.0, 6.0, 11, [0.0, 0.6, 1.2, 1.8, 2.4, 3.0, 3.6, 4.2, 4.8, 5.4, 6.0]),
        (0.0, 6.0, 9, [0.0, 0.75, 1.5, 2.25, 3.0, 3.75, 4.5, 5.25, 6.0]),
        (0.0, 0.3, 4, [0.0, 0.1, 0.2, 0.3]),
        (0.0, 1e-6, 5, [0.0, 2.5e-7, 5e-7, 7.5e-7, 1e-6]),
        (0.0, 1.0, 4, [0.0, 0.333333, 0.666667, 1.0]),
        (1 / 3, 2 / 3, 3, [1 / 3, 0.5, 2 / 3]),
        (-1e9, 1e9, 3, [-1e9, 0.0, 1e9]),
    ],
)
def test_an_axis_has_exact_ends_and_values_that_read_well(low, high, points, values):
    assert grid_axis(low, high, points).tolist() == values  # the very same floats


@pytest.mark.parametrize("high", [3e-9, 1e-6, 0.3333333, 0.05, 1.0, 6.0, 30.0, 1e6])
def test_rounding_loses_less_than_the_range_can_see(high):
    exact = np.random.default_rng(0).random(1000) * high
    rounded = rounded_within(exact, 0.0, high)
    assert np.abs(rounded - exact).max() <= 0.51e-6 * max(1.0, high)
    assert len(np.unique(rounded)) > 990


def test_rounding_never_leaves_the_range():
    low, high = 0.12345678949, 0.12345678951
    values = rounded_within(np.array([low, high]), low, high)
    assert (values >= low).all()
    assert (values <= high).all()


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.3333333), (1 / 7, 2 / 7), (0.0, 1e-6)])
@pytest.mark.parametrize("case", "LHA")
def test_a_grid_plan_measures_what_the_evaluation_asks_for(low, high, case):
    section = problem(low, high, case=case)
    params = params_from(section)
    (axis,) = grid_axes(params, params.grid_points)
    assert (axis[0], axis[-1]) == section.ranges()["noise_std"]
    plan = make_plan(PlanConfig(kind="grid", grid_points=7), (1, 10), section.ranges())
    assert sorted({setting.link.noise_std for setting in plan}) == axis.tolist()


@pytest.mark.parametrize("case", "LHA")
@pytest.mark.parametrize("high", [0.3333333, 1e-6, 1 / 3])
def test_a_drifting_link_stays_on_the_measured_table(high, case):
    params = params_from(problem(0.0, high, case=case, dynamics={"drift_per_layer": 5e-4}))
    states = grid_states(params, params.grid_points)
    split_points = np.repeat(params.split_points_P, len(states))
    links = np.tile(states, (10, 1))
    log_ppl = 3 + links[:, 0] / high - 0.1 * split_points
    table = TableSource.from_rows(split_points, links, log_ppl)
    assert np.isfinite(Oracle(params, table).optimal_return)


def test_case_l_of_a_narrow_range_is_a_range():
    assert problem(0.0, 1e-6, case="L").ranges() == {"noise_std": (0.0, 3.33333e-7)}
    assert problem(0.0, 0.3, case="L").ranges() == {"noise_std": (0.0, 0.1)}
    assert problem(0.0, 1.0, case="H").ranges() == {"noise_std": (0.333333, 1.0)}


def test_a_plan_over_a_narrow_range_has_different_settings():
    plan = make_plan(PlanConfig(settings=16), (1, 10), {"loss_probability": (0.0, 1e-6)})
    losses = [setting.link.loss_probability for setting in plan]
    assert len(set(losses)) == 16
    assert max(losses) <= 1e-6


def test_anchors_of_a_narrow_range_are_as_bad_as_those_of_a_wide_one():
    narrow = choose_anchors((1, 10), {"loss_probability": (0.0, 1e-6)}, 96)
    assert [link.loss_probability for _, link in narrow.points] == [1e-6, 5e-7, 1e-6, 7.5e-7]


def test_a_range_that_floats_cannot_divide_is_refused():
    with pytest.raises(ValueError, match="too close together"):
        problem(1.0, 1.0 + 1e-15, name="fading_scale")
