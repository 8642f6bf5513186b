"""The walk along a trace: whose split points stand below which link state."""

import numpy as np
import pytest

from envs.dynamics import reward
from envs.oracle import Oracle
from envs.params import params_from
from envs.policies import FixedPolicy
from envs.sources import as_source
from raysplit import figures
from raysplit.measure.table import Measurements
from raysplit.pipeline.experiment import load_experiment
from raysplit.pipeline.oracles import Oracles
from raysplit.pipeline.views.walk import trace_walk

STEPS = 4


def ppl(split_points_N, links_NK):
    return 16 * np.exp(0.1 * links_NK[:, 0] * (1 + 10 / split_points_N))


SOURCE = as_source(ppl, quantity="ppl")
EVALUATION = {
    "agents": {
        "worse": {"measured": {"share_of_gap": 0.2}},
        "better": {"measured": {"share_of_gap": 0.7}},
    }
}


def solved(*overrides):
    experiment = load_experiment("demo", [f"problem.episode_steps={STEPS}", *overrides])
    params = params_from(experiment.problem, 16.0, np.arange(1, 11) / 16)
    oracle = Oracle(params, SOURCE)
    table = Measurements(
        split_points_N=np.array([1]), link_names=("noise_std",), link_states_NK=np.zeros((1, 1)),
        log_ppl_N=np.zeros(1), stderr_N=np.zeros(1), clean_log_ppl=0.0,
    )  # fmt: skip
    return Oracles(
        params=params,
        trained_params=params,
        table=table,
        table_by_codec={"identity": table},
        surrogate=oracle,
        measured=oracle,
        agents={"worse": {0: FixedPolicy(params, 1)}, "better": {3: FixedPolicy(params, 9)}},
    )


@pytest.fixture
def over_trace(tmp_path):
    noise = np.random.default_rng(0).uniform(0, 6, 15).round(3)
    path = tmp_path / "trace.csv"
    path.write_text("noise_std\n" + "\n".join(map(str, noise)) + "\n")
    return noise, solved(f"problem.dynamics={{kind: trace, path: {path}}}")


def test_split_points_stand_below_the_link_state_that_they_are_paid_in(over_trace):
    noise, oracles = over_trace
    walk = trace_walk(oracles, EVALUATION)
    assert walk is not None
    np.testing.assert_array_equal(walk.links["noise_std"], noise[1:13])  # three whole episodes
    assert walk.agent == "better"
    assert list(walk.chosen_T) == [6, 7, 8, *[9] * 9]  # from the middle, 5; the next goes on
    paid_T = reward(oracles.params, SOURCE, walk.optimum_T, noise[1:13, None])
    value = oracles.measured.values_TPM[0, 5 - 1, 0]
    assert paid_T[:STEPS].sum() == pytest.approx(value, rel=1e-12)
    next_start = walk.optimum_T[STEPS - 1] - 1
    later = oracles.measured.values_TPM[0, next_start, STEPS]
    assert paid_T[STEPS : 2 * STEPS].sum() == pytest.approx(later, rel=1e-12)


def test_other_links_have_no_walk():
    assert trace_walk(solved(), EVALUATION) is None


def test_the_figure_draws_the_link_over_the_choices(over_trace):
    noise, oracles = over_trace
    walk = trace_walk(oracles, EVALUATION)
    assert walk is not None
    link, chosen = figures.trace_walk(walk).axes
    assert list(link.lines[0].get_ydata()) == list(noise[1:13])
    assert link.get_ylabel() == "noise σ"  # noqa: RUF001 (the Greek letter is meant)
    by_label = {line.get_label(): list(line.get_ydata()) for line in chosen.lines}
    assert by_label["better"] == list(walk.chosen_T)
    assert by_label["exact optimum"] == list(walk.optimum_T)
