"""Redrawn scores on measured perplexity against closed forms."""

import numpy as np
import pytest

from envs.example import example_params, example_source
from envs.oracle import Oracle
from envs.policies import FixedPolicy, StayPolicy
from raysplit.measure.table import Measurements
from raysplit.pipeline.oracles import Oracles, measured_oracle
from raysplit.pipeline.uncertainty import (
    interval_95,
    measured_uncertainty,
    share_lost_by_error,
)

PARAMS = example_params()


def oracles(stderr, agents):
    exact = Oracle(PARAMS, example_source)
    states_GK = exact.link_states_GK
    p_N = np.repeat(PARAMS.split_points_P, len(states_GK))
    states_NK = np.tile(states_GK, (len(PARAMS.split_points_P), 1))
    table = Measurements(
        link_names=PARAMS.link_names,
        clean_log_ppl=np.log(PARAMS.ppl_scale),
        split_points_N=p_N,
        link_states_NK=states_NK,
        log_ppl_N=np.log(example_source(p_N, states_NK)),
        stderr_N=np.full(len(p_N), stderr),
    )
    return Oracles(
        params=PARAMS,
        table=table,
        table_by_codec={"identity": table},
        surrogate=exact,
        trained_params=PARAMS,
        measured=measured_oracle(PARAMS, {"identity": table}, {}),
        agents=agents,
    )


def test_the_spread_of_a_return_is_that_of_its_measurements():
    found = measured_uncertainty(oracles(0.001, {"stay": {0: StayPolicy(PARAMS)}}))["stay"]
    # A policy that stays earns five times the reward of where it started.
    chain = Oracle(PARAMS, example_source)
    ppl_PM = example_source(
        np.repeat(PARAMS.split_points_P, len(chain.link_states_GK)),
        np.tile(chain.link_states_GK, (len(PARAMS.split_points_P), 1)),
    ).reshape(len(PARAMS.split_points_P), -1)
    error_PM = 5 * chain.chain.start_PM * ppl_PM * 0.001 / PARAMS.ppl_scale
    spread = np.sqrt((error_PM**2).sum())
    assert found.returns_D.std() == pytest.approx(spread, rel=0.2)
    assert found.returns_D.mean() == pytest.approx(found.by_seed_S[0], abs=4 * spread / 200**0.5)


def test_without_errors_only_the_seeds_are_redrawn():
    agents = {
        "both": {0: FixedPolicy(PARAMS, 2), 1: FixedPolicy(PARAMS, 9)},
        "one": {0: FixedPolicy(PARAMS, 2)},
    }
    found = measured_uncertainty(oracles(0.0, agents))
    low, high = sorted(found["both"].by_seed_S)
    assert interval_95(found["both"].returns_D) == pytest.approx([low, high])
    assert found["one"].returns_D == pytest.approx(found["both"].by_seed_S[0])


def test_agents_that_act_alike_differ_by_nothing_on_every_draw():
    found = measured_uncertainty(
        oracles(0.01, {"a": {0: FixedPolicy(PARAMS, 3)}, "b": {5: FixedPolicy(PARAMS, 3)}})
    )
    np.testing.assert_array_equal(found["a"].returns_D, found["b"].returns_D)
    assert found["a"].returns_D.std() > 0


def test_the_shares_interval_lies_around_the_share():
    """A plan made anew on every draw would fit its errors and put every share too low."""
    problem = oracles(0.02, {"optimum": {0: Oracle(PARAMS, example_source).optimal_policy()}})
    shares_D = measured_uncertainty(problem)["optimum"].shares_D
    assert shares_D == pytest.approx(1.0, abs=1e-9)


def test_a_perfect_surrogate_seems_to_lose_what_errors_of_measuring_take():
    exact = share_lost_by_error(oracles(0.0, {}))
    assert exact == pytest.approx(0.0, abs=1e-12)
    small, large = (share_lost_by_error(oracles(stderr, {})) for stderr in (0.002, 0.02))
    assert 0 < small < large
    # Such a table, drawn once: its own optimum seems better than the true plan, by less than that.
    solved, errors = oracles(0.02, {}), np.random.default_rng(5)
    lost = []
    for _ in range(100):
        drawn = measured_oracle(PARAMS, solved.table_by_codec, {}, errors)
        lost.append(1 - drawn.share_of_gap(drawn.plan_return(solved.surrogate.actions_TPM)))
    assert np.mean(np.array(lost) <= large) == pytest.approx(0.95, abs=0.06)
