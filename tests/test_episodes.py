"""Episodes on measured perplexity, and what an agent decides: Fig. 6 and Fig. 7 of a run."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from envs.example import example_params, example_source
from envs.oracle import Oracle
from envs.policies import FixedPolicy, RandomPolicy, StayPolicy
from raysplit.pipeline.episodes import EPISODES_TABLE, played_returns
from raysplit.pipeline.views.decisions import best_agents_decisions
from raysplit.pipeline.views.episodes import episode_returns
from tuning.settings import TrainConfig
from tuning.train import train

PARAMS = example_params()
ORACLE = Oracle(PARAMS, example_source)


@pytest.mark.parametrize("dynamics", ["constant", "iid", "gauss_markov"])
def test_every_policy_plays_the_same_episodes(dynamics):
    params = dataclasses.replace(PARAMS, link_dynamics=dynamics, correlation=0.5)

    def links_seen(policy):
        seen = []

        def source(split_points, links):
            seen.append(links.copy())
            return np.ones(len(links))

        source.quantity = "ppl"
        played_returns(params, source, policy, 20, seed=3)
        return np.array(seen)

    np.testing.assert_array_equal(links_seen(RandomPolicy(1)), links_seen(StayPolicy(PARAMS)))


@pytest.mark.parametrize("discount", [1.0, 0.9])
def test_the_mean_return_is_the_exact_one(discount):
    params = dataclasses.replace(PARAMS, discount=discount)
    exact = Oracle(params, example_source, grid_points=[201]).policy_return(FixedPolicy(params, 7))
    returns = played_returns(params, example_source, FixedPolicy(params, 7), 20_000, seed=0)
    error = returns.std() / np.sqrt(len(returns))
    assert returns.mean() == pytest.approx(exact, abs=4 * error)


def test_the_figure_shows_agents_then_untrained_ones_then_random(tmp_path):
    rows = [
        ("agent", "random", 0, 0, 3.0),
        ("untrained", "random", 0, 0, 1.0),
        ("agent", "random", 1, 0, 2.0),
        ("untrained", "random", 1, 0, 0.5),
        ("untrained", "like it", 0, 0, 1.0),
        ("untrained", "like it", 1, 0, 0.5),
        ("random", "random", 0, 0, 0.0),
        ("optimum", "optimum", 0, 0, 4.0),
    ]
    table = pd.DataFrame(rows, columns=["kind", "policy", "seed", "episode", "return"])
    table.loc[[0, 1, 2, 3], "policy"] = "dqn"
    table.to_parquet(tmp_path / EPISODES_TABLE)
    shown = episode_returns(SimpleNamespace(path=tmp_path), 3.5)
    assert {name: list(values) for name, values in shown.returns.items()} == {
        "dqn": [3.0, 2.0],
        "untrained dqn": [1.0, 0.5],
        "random": [0.0],
    }
    assert list(shown.optimum_N) == [4.0]


def decisions(policies):
    oracles = SimpleNamespace(params=PARAMS, measured=ORACLE, agents=policies)
    shares = {name: 1 / (1 + turn) for turn, name in enumerate(policies)}
    agents = {name: {"measured": {"share_of_gap": share}} for name, share in shares.items()}
    return best_agents_decisions(oracles, {"agents": agents})


def test_the_best_agent_is_asked_where_it_settles():
    both = decisions(
        {
            "ppo": {0: FixedPolicy(PARAMS, 3), 1: FixedPolicy(PARAMS, 9)},
            "dqn": {0: StayPolicy(PARAMS)},
        }
    )
    assert (both.agent, both.seeds) == ("ppo", 2)
    np.testing.assert_array_equal(both.split_points_N, [3, 9] * 250)
    assert both.x_N.min() >= 0
    assert both.x_N.max() <= 0.3


def test_decisions_start_where_the_problem_starts():
    chosen = decisions({"stay": {0: StayPolicy(PARAMS)}})
    assert set(chosen.split_points_N) == set(PARAMS.split_points_P)
    greedy = decisions({"greedy": {0: ORACLE.greedy_policy()}})
    x, optimum = greedy.optimum
    nearest = abs(greedy.x_N[:, None] - x).argmin(axis=1)
    np.testing.assert_array_equal(greedy.split_points_N, optimum[nearest])


@pytest.mark.slow
def test_an_untrained_policy_is_the_network_that_training_began_with(tmp_path):
    config = TrainConfig(total_steps=400, overrides={"epochs": 1})
    agents = [train(PARAMS, example_source, config, seed, tmp_path / str(seed)) for seed in (0, 1)]
    first, other = ([w for w, _ in agent.untrained_policy().layers] for agent in agents)
    trained = [w for w, _ in agents[0].policy().layers]
    assert [w.shape for w in first] == [w.shape for w in trained]
    for other_weights in (other, trained):
        assert not np.array_equal(first[-1], other_weights[-1])
    # Lost, it is exported again, the same, without another step.
    (tmp_path / "0/untrained/policy.json").unlink()
    again = train(PARAMS, example_source, config, 0, tmp_path / "0")
    assert again.curve == agents[0].curve
    np.testing.assert_array_equal(again.untrained_policy().layers[-1][0], first[-1])
