"""Agents over a family of problems: who plays a member, and what training draws."""

from dataclasses import replace

import numpy as np
import pytest

from envs.dynamics import initial_state, reward, transition
from envs.family import member, own_values, training_problem, unseen_members
from envs.oracle import Oracle
from envs.params import params_from
from envs.problem import ProblemConfig
from envs.sources import as_source
from envs.vector import LayerSplitVectorEnv
from raysplit.base.errors import UserError
from tuning.settings import TrainConfig
from tuning.train import train

PPL = as_source(
    lambda p, x: 16.0 * np.exp(4.0 * x[:, 0] / p), quantity="ppl", link_names=("loss_probability",)
)
FAMILY = {
    "correlation": {"low": 0.0, "high": 0.95, "held_out": [0.4, 0.6]},
    "lambda": {"low": 0.1, "high": 1.0, "held_out": [0.5, 0.6]},
}


def problem(**values):
    chosen = {
        "link": {"loss_probability": {"low": 0.0, "high": 0.3, "grid_points": 11}},
        "dynamics": {"kind": "gauss_markov", "correlation": 0.9},
        "family": FAMILY,
        "lambda": 0.3,
    } | values
    return params_from(ProblemConfig.model_validate(chosen), 16.0, np.arange(1, 11) / 16)


def test_training_draws_the_whole_family_but_for_what_is_held_out():
    params = training_problem(problem())
    drawn = initial_state(params, 20_000, np.random.default_rng(0)).link_states_NK
    for column, one in enumerate(FAMILY.values(), start=1):
        x = drawn[:, column]
        low, high = one["held_out"]
        assert not ((x > low) & (x < high)).any()
        assert x.min() == pytest.approx(one["low"], abs=0.01)
        assert x.max() == pytest.approx(one["high"], abs=0.01)
        share_below = (low - one["low"]) / (one["high"] - one["low"] - (high - low))
        assert (x <= low).mean() == pytest.approx(share_below, abs=0.02)


def test_each_episode_keeps_its_member_and_moves_as_it_says():
    params = training_problem(problem())
    generator = np.random.default_rng(0)
    state = initial_state(params, 50_000, generator)
    after = transition(params, state, np.ones(50_000, dtype=int), generator)
    np.testing.assert_array_equal(after.link_states_NK[:, 1:], state.link_states_NK[:, 1:])
    rho = state.link_states_NK[:, 1]
    for low, high in ((0.0, 0.1), (0.85, 0.95)):
        some = (rho >= low) & (rho < high)
        pair = state.link_states_NK[some, 0], after.link_states_NK[some, 0]
        assert np.corrcoef(*pair)[0, 1] == pytest.approx((low + high) / 2, abs=0.05)


def test_an_episode_is_rewarded_as_its_member_would_be():
    params = problem()
    whole = training_problem(params)
    state = initial_state(whole, 50, np.random.default_rng(0))
    rewards = reward(whole, PPL, state.split_points_N, state.link_states_NK)
    for n in range(50):
        _, rho, weight = state.link_states_NK[n]
        alone = member(params, {"correlation": rho, "lambda": weight})
        own = reward(
            alone, PPL, state.split_points_N[n : n + 1], state.link_states_NK[n : n + 1, :1]
        )
        assert rewards[n] == pytest.approx(own[0], rel=1e-12)


def test_a_path_is_that_of_its_own_mean():
    path = {"mean_snr_db": 8.0, "steps": 500}
    chosen = {
        "link": {"snr_db": {"low": -10.0, "high": 20.0}},
        "dynamics": {"kind": "fading", "fading": path},
        "family": {"mean_snr_db": {"low": 0.0, "high": 12.0}},
    }
    params = problem(**chosen)
    whole = training_problem(params)
    state = initial_state(whole, 300, np.random.default_rng(1))
    after = transition(whole, state, np.ones(300, dtype=int), np.random.default_rng(2))
    for n in range(0, 300, 30):
        alone = member(params, {"mean_snr_db": after.link_states_NK[n, 1]})
        expected = np.clip(alone.trace_RK[after.rows_N[n], 0], -10.0, 20.0)
        assert after.link_states_NK[n, 0] == pytest.approx(expected)


def test_members_that_training_never_saw_lie_in_what_is_held_out():
    params = problem()
    assert own_values(params) == {"correlation": 0.9, "lambda": 0.3}
    assert [list(values.values()) for values in unseen_members(params)] == [
        pytest.approx([0.5, 0.3]),
        pytest.approx([0.9, 0.55]),
        pytest.approx([0.5, 0.55]),
    ]


def test_an_agent_of_the_family_plays_a_member_as_its_env_shows_it(tmp_path):
    params = problem()
    config = TrainConfig(total_steps=800, overrides={"epochs": 1})
    agent = train(training_problem(params), PPL, config, 0, tmp_path).policy()
    alone = member(params, {"correlation": 0.5, "lambda": 0.55})
    policy = agent.for_problem(alone)
    env = LayerSplitVectorEnv(training_problem(params), PPL, 200)
    obs, _ = env.reset(seed=0)
    obs[:, 1:3] = 0.5, 0.55
    seen = agent.outputs(obs).argmax(axis=1)
    asked = policy(obs[:, 3].astype(int), obs[:, :1].astype(float), np.zeros(200))
    np.testing.assert_array_equal(asked, seen)
    assert np.isfinite(Oracle(alone, PPL).policy_return(policy))
    with pytest.raises(UserError, match="correlation, lambda"):
        agent.for_problem(replace(params, family=()))


def test_a_family_is_solved_member_by_member():
    with pytest.raises(UserError, match="member by member"):
        Oracle(training_problem(problem()), PPL)


@pytest.mark.parametrize(
    ("family", "said"),
    [
        ({"mean_snr_db": {"low": 0, "high": 5}}, "goes with dynamics.kind: fading"),
        ({"correlation": {"low": 0, "high": 1}}, "below 1"),
        ({"lambda": {"low": 1, "high": 0.5}}, "must be below"),
        ({"lambda": {"low": 0.1, "high": 0.5, "held_out": [0.05, 0.2]}}, "between"),
        ({"colour": {"low": 0, "high": 1}}, "correlation"),
        ({"lambda": {"low": 0.4, "high": 0.5}}, "no training would see it"),
        ({"lambda": {"low": 0.1, "high": 0.5, "held_out": [0.2, 0.4]}}, "no training would see it"),
    ],
)
def test_what_is_no_family_is_refused(family, said):
    with pytest.raises(ValueError, match=said):
        problem(family=family)


def test_the_authors_reward_asks_for_link_coordinates_alone():
    """The values of the family stand in the link state, and no source knows them."""
    params = problem(reward="authors", family={"correlation": FAMILY["correlation"]})
    env = LayerSplitVectorEnv(training_problem(params), PPL, 20)
    env.reset(seed=0)
    assert np.isfinite(env.step(np.full(20, 2))[1]).all()
