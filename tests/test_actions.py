"""Codecs chosen with the split point, jumps, costs of moving, fading: against brute force."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from envs.actions import arrived, number_of_actions, targets_of_actions, towards
from envs.hindsight import moving_costs, steps_of_all_actions
from envs.oracle import Oracle, planning_problem
from envs.params import params_from
from envs.problem import ProblemConfig
from envs.sources import PerCodecSource, as_source
from envs.vector import LayerSplitVectorEnv
from raysplit.base.errors import UserError

CODECS = ("identity", "int8")
COARSE = as_source(lambda p, x: 16.0 * np.exp(4.0 * x[:, 0] / p), quantity="ppl")
FINE = as_source(lambda p, x: 16.5 * np.exp(2.0 * x[:, 0] / np.sqrt(p)), quantity="ppl")
BOTH = PerCodecSource(CODECS, (COARSE, FINE))


def problem(actions="split_and_codec", *, moving=None, rewards=0.2, **values):
    chosen = {
        "link": {"loss_probability": {"low": 0.0, "high": 0.3, "grid_points": 4}},
        "codecs": list(CODECS),
        "actions": actions,
        "max_split_point": 3,
        "episode_steps": 3,
        "lambda": rewards,
    } | values
    config = ProblemConfig.model_validate(chosen)
    return params_from(config, 16.0, [0.1, 0.4, 0.6], moving=moving)


def drawn_moving(params, seed=0):
    """A cost for every pair of places and four link states, nothing for staying."""
    places = len(params.split_points_P)
    cost = np.random.default_rng(seed).uniform(0, 0.3, (places, places, 4))
    return cost * (1 - np.eye(places))[..., None]


def with_moving(params, seed=0):
    axis = np.linspace(0.0, 0.3, 4)
    cost_PX = np.repeat(params.cost_P[:, None], 4, axis=1)
    return replace(params, moving_PPX=drawn_moving(params, seed), cost_axis_X=axis, cost_PX=cost_PX)


def source_of(params):
    return BOTH if params.chooses_codec else COARSE


@pytest.mark.parametrize("actions", ["split", "split_and_codec", "absolute"])
@pytest.mark.parametrize("start", [(1, 0), (2, 0), (3, 1)])
def test_the_optimum_is_that_of_every_sequence_played_in_the_env(actions, start):
    params = with_moving(problem(actions))
    codec = start[1] if params.chooses_codec else 0
    state = params.link_states_at(np.array([[1 / 3], [2 / 3]]))  # two nodes of the grid
    sequences = np.array(list(itertools.product(range(number_of_actions(params)), repeat=3)))
    oracle = Oracle(params, source_of(params))
    place = params.places(np.array([start[0]]), np.array([codec]))[0]
    for node, link_state in ((1, state[0]), (2, state[1])):
        env = LayerSplitVectorEnv(params, source_of(params), len(sequences))
        options = {"split_point": start[0], "link_state": link_state}
        if params.chooses_codec:
            options["codec"] = codec
        env.reset(seed=0, options=options)
        returns_N = sum(env.step(actions_N)[1] for actions_N in sequences.T)
        assert oracle.values_TPM[0, place, node] == pytest.approx(returns_N.max(), rel=1e-12)


@pytest.mark.parametrize("dynamics", ["iid", "gauss_markov"])
def test_values_over_a_random_link_are_those_of_an_independent_value_iteration(dynamics):
    params = with_moving(replace(problem(), link_dynamics=dynamics, correlation=0.8))
    oracle = Oracle(params, BOTH)
    (kernel,) = oracle.chain.kernels
    links = oracle.chain.links_PMK[0, :, 0]
    values = np.zeros((3, 2, 4))  # split point, codec, node
    for _ in range(3):
        best = np.full(values.shape, -np.inf)
        for p, c, m in np.ndindex(values.shape):
            for up, on in itertools.product((-1, 0, 1), repeat=2):
                q, d = np.clip(p + up, 0, 2), np.clip(c + on, 0, 1)
                total = 0.0
                for n, x in enumerate(links):
                    ppl = (COARSE, FINE)[d](np.array([q + 1]), np.array([[x]]))[0]
                    reward = -(ppl / 16.0 + 0.2 * [0.1, 0.4, 0.6][q])
                    reward -= params.moving_PPX[2 * p + c, 2 * q + d, n]
                    total += kernel[m, n] * (reward + values[q, d, n])
                best[p, c, m] = max(best[p, c, m], total)
        values = best
    np.testing.assert_allclose(oracle.values_TPM[0].reshape(3, 2, 4), values, rtol=1e-12)


@pytest.mark.parametrize("actions", ["split", "split_and_codec", "absolute"])
def test_what_all_actions_would_have_given_is_what_the_env_gives(actions):
    params = with_moving(problem(actions))
    number = number_of_actions(params)
    env = LayerSplitVectorEnv(params, source_of(params), number)
    options = {"split_point": 2, "link_state": 0.17}
    if params.chooses_codec:
        options["codec"] = 1
    obs, _ = env.reset(seed=0, options=options)
    after, rewards, *_ = env.step(np.arange(number))
    led, found = steps_of_all_actions(params, source_of(params), obs[:1], after[:1])
    np.testing.assert_array_equal(led[0], after)
    # Hindsight takes the same number off every action.
    np.testing.assert_allclose(np.diff(found[0]), np.diff(rewards), atol=1e-6)
    costs_PA = moving_costs(params, after[:1])[0]
    place = params.observed_places(obs[:1])[0]
    to_A = targets_of_actions(params)[:, place]
    expected = [
        np.interp(0.17, params.cost_axis_X, params.moving_PPX[place, to]) for to in to_A.tolist()
    ]
    np.testing.assert_allclose(costs_PA[place], expected, rtol=1e-6)


@pytest.mark.parametrize("dynamics", ["constant", "iid"])
def test_what_moving_costs_a_policy_is_what_its_return_lacks(dynamics):
    params = with_moving(replace(problem(discount=0.8), link_dynamics=dynamics))
    oracle = Oracle(params, BOTH)
    free = Oracle(replace(params, moving_PPX=np.zeros((0, 0, 0))), BOTH)
    for policy in oracle.baselines().values():
        lacking = free.policy_return(policy) - oracle.policy_return(policy)
        assert oracle.moving_cost(policy) == pytest.approx(lacking, abs=1e-12)
    assert oracle.moving_cost(oracle.optimal_policy()) > 0
    assert free.moving_cost(oracle.optimal_policy()) == 0


def test_going_towards_a_place_ends_there():
    for actions in ("split", "split_and_codec", "absolute"):
        params = problem(actions)
        places = np.arange(len(params.split_points_P))
        pairs = np.array(list(itertools.product(places, repeat=2))).T
        at, goals = pairs
        for _ in range(2):  # three split points and two codecs are two moves apart at most
            at = arrived(params, at, towards(params, at, goals))
        np.testing.assert_array_equal(at, goals)
        np.testing.assert_array_equal(arrived(params, goals, towards(params, goals, goals)), goals)


def test_the_threshold_rule_is_the_best_of_all():
    params = problem()
    oracle = Oracle(params, BOTH)
    rule = oracle.threshold_policy()
    static = oracle.static_rewards_PG * np.array([1, 2, 2, 1]) / 6  # the trapezoidal rule
    places = range(len(static))
    best = max(
        static[below, :cut].sum() + static[above, cut:].sum()
        for cut, below, above in itertools.product((1, 2, 3), places, places)
    )
    cut = int(np.searchsorted(oracle.link_states_GK[:, 0], rule.threshold))
    found = static[rule.place_below, :cut].sum() + static[rule.place_above, cut:].sum()
    assert found == pytest.approx(best, rel=1e-12)


def test_an_endless_episode_solves_bellmans_equation():
    params = with_moving(replace(problem(), link_dynamics="gauss_markov", correlation=0.5))
    oracle = Oracle(params, BOTH)
    values = oracle.endless_values(0.9)
    q_APM = oracle._action_values(values, 0.9)
    np.testing.assert_allclose(q_APM.max(axis=0), values, atol=1e-8)
    stay = Oracle(
        replace(params, link_dynamics="constant", moving_PPX=1e9 * drawn_moving(params)), BOTH
    )
    # Where moving is never worth it, a state is worth its reward for ever.
    np.testing.assert_allclose(stay.endless_values(0.9), stay.rewards_PM / (1 - 0.9), rtol=1e-7)


def test_a_horizon_as_long_as_the_episode_is_the_optimum():
    params = problem(switching={"per_layer": 0.1})  # a move pays over three steps, not in one
    oracle = Oracle(params, BOTH)
    whole = oracle.policy_return(oracle.receding_horizon_policy(3))
    assert whole == pytest.approx(oracle.optimal_return, rel=1e-12)
    greedy = oracle.policy_return(oracle.receding_horizon_policy(1))
    assert greedy < whole


def fading(**values):
    path = {"mean_snr_db": 8.0, "step_s": 0.02, "steps": 20_000} | values
    config = ProblemConfig.model_validate(
        {
            "link": {"snr_db": {"low": -10.0, "high": 20.0, "grid_points": 61}},
            "dynamics": {"kind": "fading", "fading": path},
            "lambda": 1.0,
        }
    )
    return params_from(config, 16.0, np.arange(1, 11) / 16)


SNR = as_source(lambda p, x: 16.0 * np.exp(10 ** (-x[:, 0] / 10) / p), quantity="ppl")


def test_the_chain_of_a_path_moves_as_the_path_does():
    params = fading()
    oracle = Oracle(params, SNR)
    (kernel,) = oracle.chain.kernels
    np.testing.assert_allclose(kernel.sum(axis=1), 1.0, rtol=1e-12)
    x = oracle.link_states_GK[:, 0]
    path = np.clip(params.trace_RK[:, 0], -10.0, 20.0)
    shares = oracle.chain.grid_shares_G
    mean = shares @ x
    variance = shares @ (x - mean) ** 2
    correlation = shares @ ((x - mean) * (kernel @ (x - mean))) / variance
    assert mean == pytest.approx(path.mean(), abs=0.1)
    measured = np.corrcoef(path[:-1], path[1:])[0, 1]
    assert correlation == pytest.approx(measured, abs=0.01)
    assert 0.5 < measured < 0.99


def test_returns_on_the_chain_are_those_of_the_path():
    params = fading()
    oracle = Oracle(params, SNR)
    policy = oracle.threshold_policy()
    env = LayerSplitVectorEnv(params, SNR, 40_000)
    obs, _ = env.reset(seed=1)
    total = np.zeros(len(obs))
    for step in range(params.episode_steps):
        actions = policy(obs[:, 1].astype(int), obs[:, :1].astype(float), np.full(len(obs), step))
        obs, rewards, *_ = env.step(actions)
        total += rewards
    gap = oracle.optimal_return - oracle.random_return
    assert abs(total.mean() - oracle.policy_return(policy)) < 0.03 * gap


def test_a_trace_is_learned_on_one_part_and_judged_on_the_other(tmp_path):
    values = np.linspace(0.0, 0.3, 40)
    path = tmp_path / "trace.csv"
    path.write_text("loss_probability\n" + "\n".join(map(str, values)))
    params = problem("split", dynamics={"kind": "trace", "path": str(path), "trained_share": 0.75})
    trained, judged = params.for_training(), params.for_judging()
    np.testing.assert_array_equal(trained.trace_RK[:, 0], values[:30])
    np.testing.assert_array_equal(judged.trace_RK[:, 0], values[30:])
    oracle = Oracle(judged, COARSE)
    planner = Oracle(planning_problem(trained), COARSE)
    for policy in (*planner.baselines().values(), *planner.planners().values()):
        assert oracle.policy_return(policy) <= oracle.optimal_return + 1e-12
    with pytest.raises(UserError, match="4 to learn from"):
        problem(
            "split", dynamics={"kind": "trace", "path": str(path), "trained_share": 0.1},
            episode_steps=5,
        ).for_training()  # fmt: skip


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"codecs": ["identity"]}, "name more"),
        ({"reward": "authors"}, "knows no codec"),
        ({"switching": {"context_tokens": 8}}, "use switching.per_layer"),
        ({"switching": {"context_tokens": 8, "per_layer": 0.1}}, "keep one of them"),
        ({"dynamics": {"kind": "fading"}}, "is needed there"),
        ({"dynamics": {"kind": "fading", "fading": {}}}, "vary snr_db alone"),
        ({"dynamics": {"kind": "fading", "fading": {"speed_m_s": 0}}}, "kind: constant"),
        (
            {"dynamics": {"kind": "fading", "fading": {"steps": 100}}, "episode_steps": 100},
            "must be above episode_steps",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(values, said):
    with pytest.raises(ValueError, match=said):
        problem(**values)


def test_a_source_that_tells_no_codecs_apart_is_refused():
    with pytest.raises(UserError, match="tells no codecs apart"):
        Oracle(problem(), COARSE)


def test_jumps_over_a_drifting_link_stay_within_the_observations():
    drifting = {"kind": "constant", "drift_per_layer": 0.05}
    params = problem("absolute", dynamics=drifting, episode_steps=2)
    env = LayerSplitVectorEnv(params, as_source(lambda p, x: 16.0 + p, quantity="ppl"), 2)
    env.reset(seed=0, options={"split_point": [1, 3], "link_state": 0.3})
    space = env.single_observation_space
    for actions in ([2, 0], [0, 2]):
        seen = env.step(np.array(actions))[0]
        assert ((seen >= space.low) & (seen <= space.high)).all()
