"""The decision problem's physics and the single environment."""

import copy
import doctest
import pickle
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import envs
from envs.checks import fingerprint
from envs.dynamics import (
    initial_state,
    observation,
    observation_bounds,
    reward,
    terminated,
    transition,
)
from envs.example import example_source
from envs.layer_split import LayerSplitEnv
from envs.oracle import Oracle
from envs.params import params_from
from envs.problem import ProblemConfig
from envs.sources import as_source
from envs.vector import LayerSplitVectorEnv
from raysplit.base.errors import UserError

LOSS = {"loss_probability": [0.0, 0.3]}
COST = np.arange(1, 11) / 16


def make_params(clean_ppl=16.0, **section):
    problem = ProblemConfig.model_validate({"link": LOSS, **section})
    costs = COST[: problem.max_split_point - problem.min_split_point + 1]
    return params_from(problem, clean_ppl, costs)


def ppl(split_points_N, link_states_NK):
    return 20.0 + 100 * link_states_NK[:, 0] / split_points_N


SOURCE = as_source(ppl, quantity="ppl")


def play(env, actions, **reset):
    first, _ = env.reset(**reset)
    return [first, *(env.step(np.int64(action)) for action in actions)]


# Gymnasium's conventions


@pytest.mark.filterwarnings("ignore:.*alternative render modes")
@pytest.mark.parametrize(
    "section",
    [
        {},
        {"observe_step": True},
        {"case": "L", "dynamics": {"drift_per_layer": 0.0005}},
        {"dynamics": {"kind": "iid"}},
        {"dynamics": {"kind": "gauss_markov", "correlation": 0.9}},
        {"reward": "authors"},
    ],
)
def test_gymnasium_s_checker_passes(section):
    check_env(LayerSplitEnv(make_params(**section), SOURCE))


def test_it_is_registered_and_the_checker_passes_there_too():
    check_env(gymnasium.make(envs.ENV_ID).unwrapped)
    env = gymnasium.make(envs.ENV_ID, params=make_params(case="H"), source=SOURCE)
    first, info = env.reset(seed=0)
    assert 6 <= first[1] <= 10
    assert info == {}


def test_the_documented_example_runs():
    assert doctest.testmod(envs) == (0, 14)


@pytest.mark.slow
def test_importing_the_problem_loads_neither_torch_nor_ray():
    code = (
        "import sys, envs.vector, envs.oracle; print({'torch', 'ray', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_ray_builds_either_environment_from_its_config():
    from ray.tune.registry import _global_registry

    from tuning.rllib.env import register_with_ray

    name = register_with_ray()
    create = _global_registry.get("env_creator", name)
    config = {"params": make_params(), "source": SOURCE}
    assert isinstance(create(config), LayerSplitEnv)
    assert create(config | {"num_envs": 7}).num_envs == 7


def test_equal_seeds_give_equal_episodes():
    params = make_params(dynamics={"kind": "gauss_markov", "correlation": 0.5})
    actions = [2, 0, 1, 2, 2]
    runs = [play(LayerSplitEnv(params, SOURCE), actions, seed=seed) for seed in (5, 5, 6)]
    as_text = [repr(run) for run in runs]
    assert as_text[0] == as_text[1] != as_text[2]


def test_a_copy_by_pickle_goes_on_equally():
    env = LayerSplitEnv(make_params(dynamics={"kind": "iid"}), example_source)
    env.reset(seed=3)
    env.step(np.int64(2))
    twin = pickle.loads(pickle.dumps(env))
    for action in (0, 1):
        ours, theirs = env.step(np.int64(action)), twin.step(np.int64(action))
        assert ours[0].tolist() == theirs[0].tolist()
        assert ours[1:] == theirs[1:]


# Dynamics


def test_an_episode_by_hand():
    env = LayerSplitEnv(make_params(**{"lambda": 0.5, "observe_step": True}), SOURCE)
    start = {"split_point": 9, "link_state": [0.2]}
    first, *steps = play(env, [2, 2, 1, 0, 0], options=start)
    assert first.tolist() == np.float32([0.2, 9, 0]).tolist()
    visited = [10, 10, 10, 9, 8]
    for step, (p, (seen, value, ended, truncated, _)) in enumerate(
        zip(visited, steps, strict=True), 1
    ):
        assert seen.tolist() == np.float32([0.2, p, step]).tolist()
        assert value == pytest.approx(-((20 + 20 / p) / 16 + 0.5 * p / 16))
        assert (ended, truncated) == (step == 5, False)


def test_the_first_split_point_is_a_wall_too():
    env = LayerSplitEnv(make_params(), SOURCE)
    _, *steps = play(env, [0, 0, 2], options={"split_point": 2, "link_state": [0.1]})
    assert [step[0][1] for step in steps] == [1, 1, 2]


def test_starts_are_uniform_over_the_case():
    params = make_params(case="H", initial_split_points=[7, 9])
    state = initial_state(params, 30_000, np.random.default_rng(0))
    values, counts = np.unique(state.split_points_N, return_counts=True)
    assert values.tolist() == [7, 8, 9]
    assert counts.min() > 9_600
    loss_N = state.link_states_NK[:, 0]
    assert loss_N.min() >= 0.1
    assert loss_N.max() <= 0.3
    assert loss_N.mean() == pytest.approx(0.2, abs=0.002)
    assert loss_N.std() == pytest.approx(0.2 / np.sqrt(12), rel=0.02)


def test_authors_drift_follows_each_layer_moved():
    env = LayerSplitEnv(make_params(dynamics={"drift_per_layer": 0.0005}), SOURCE)
    _, *steps = play(env, [0, 0, 2, 0, 1], options={"split_point": 2, "link_state": [0.2]})
    down, up = 1.0005, 0.9995
    # The second move is against the wall: no layer moved, no drift.
    expected = 0.2 * np.cumprod([down, 1, up, down, 1])
    np.testing.assert_allclose([step[0][0] for step in steps], expected, rtol=1e-7)


def test_drift_may_leave_the_range_but_not_the_observation_space_or_the_source_s():
    asked = []

    def recording(split_points_N, link_states_NK):
        asked.append(link_states_NK.max())
        return ppl(split_points_N, link_states_NK)

    params = make_params(dynamics={"drift_per_layer": 0.0005})
    env = LayerSplitEnv(params, as_source(recording, quantity="ppl"))
    _, *steps = play(env, [0] * 5, options={"split_point": 10, "link_state": [0.3]})
    assert steps[-1][0][0] > 0.3007
    assert all(env.observation_space.contains(step[0]) for step in steps)
    assert max(asked) == 0.3


def run_links(params, episodes, seed=0):
    """Return link states (T + 1, N, K) of N episodes."""
    generator = np.random.default_rng(seed)
    state = initial_state(params, episodes, generator)
    links = [state.link_states_NK]
    while not terminated(params, state).all():
        state = transition(params, state, np.ones(episodes, dtype=np.int64), generator)
        links.append(state.link_states_NK)
    return np.stack(links)


def correlation_of_z(links_TNK):
    from scipy.special import ndtri

    z_TN = ndtri(links_TNK[:, :, 0] / 0.3)
    return np.corrcoef(z_TN[2], z_TN[3])[0, 1], np.corrcoef(z_TN[1], z_TN[3])[0, 1]


@pytest.mark.parametrize(
    ("dynamics", "rho"),
    [({"kind": "iid"}, 0.0), ({"kind": "gauss_markov", "correlation": 0.8}, 0.8)],
)
def test_random_links_are_stationary_and_correlated_as_stated(dynamics, rho):
    links_TNK = run_links(make_params(dynamics=dynamics), 40_000)
    quantiles = np.linspace(0.05, 0.95, 19)
    for links_NK in links_TNK:  # uniform on [0, 0.3] at every step
        np.testing.assert_allclose(np.quantile(links_NK, quantiles), 0.3 * quantiles, atol=0.004)
    one, two = correlation_of_z(links_TNK)
    assert one == pytest.approx(rho, abs=0.02)
    assert two == pytest.approx(rho**2, abs=0.02)


def test_coordinates_move_independently():
    link = {"noise_std": [0.0, 1.0], "loss_probability": [0.0, 0.3]}
    params = params_from(
        ProblemConfig.model_validate(
            {"link": link, "dynamics": {"kind": "gauss_markov", "correlation": 0.9}}
        ),
        16.0,
        COST,
    )
    last_NK = run_links(params, 20_000)[-1]
    assert abs(np.corrcoef(last_NK.T)[0, 1]) < 0.03


def test_a_trace_is_followed_row_by_row(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("loss_probability\n" + "".join(f"{t / 100}\n" for t in range(9)))
    params = make_params(dynamics={"kind": "trace", "path": path})
    links_TN = run_links(params, 500)[:, :, 0]
    assert sorted(set(links_TN[0].tolist())) == [0.0, 0.01, 0.02, 0.03]  # 4 starts of 6 rows each
    np.testing.assert_allclose(np.diff(links_TN, axis=0), 0.01)
    env = LayerSplitEnv(params, SOURCE)
    with pytest.raises(UserError, match="a trace gives the link states"):
        env.reset(options={"link_state": [0.1]})


def test_bounds_are_the_case_s_own():
    low, high = observation_bounds(make_params(case="H", max_split_point=8, observe_step=True))
    assert low.tolist() == np.float32([0.1, 1, 0]).tolist()
    assert high.tolist() == np.float32([0.3, 8, 5]).tolist()


@pytest.mark.parametrize(
    "options", [{"split_point": 0}, {"split_point": 11}, {"link_state": [0.31]}]
)
def test_a_start_outside_the_problem_is_refused(options):
    with pytest.raises(UserError, match="leave the problem"):
        LayerSplitEnv(make_params(), SOURCE).reset(options=options)


# Rewards


def rewards_at(params, source, p, loss):
    return reward(params, source, np.array(p), np.array(loss)[:, None])


def test_objective_is_eq_8_with_dimensionless_terms():
    got = rewards_at(make_params(**{"lambda": 0.5}), SOURCE, [1, 4], [0.1, 0.2])
    np.testing.assert_allclose(got, [-(30 / 16 + 0.5 / 16), -(25 / 16 + 0.5 * 4 / 16)])


def test_raw_is_eq_8_as_printed():
    got = rewards_at(make_params(raw=True, **{"lambda": 0.5}), SOURCE, [1, 4], [0.1, 0.2])
    np.testing.assert_allclose(got, [-(30 + 0.5 / 16), -(25 + 0.5 * 4 / 16)])


def test_authors_reward_from_ppl_and_from_gains_agree():
    params = make_params(reward="authors")
    p, loss = [1, 4, 10], [0.1, 0.2, 0.3]
    gains = as_source(
        lambda p, x: 1 - ppl(p, x) / ppl(np.ones_like(p), x), quantity="relative_gain"
    )
    from_ppl = rewards_at(params, SOURCE, p, loss)
    np.testing.assert_allclose(from_ppl, rewards_at(params, gains, p, loss))
    np.testing.assert_allclose(from_ppl, [0.9, 10 * (1 - 25 / 40) + 0.6, 10 * (1 - 23 / 50) + 0.0])


def test_authors_reward_generalises_the_ten_layers():
    params = make_params(reward="authors", max_split_point=4)
    gains = as_source(lambda p, x: np.zeros(len(p)), quantity="relative_gain")
    np.testing.assert_allclose(rewards_at(params, gains, [1, 4], [0.1, 0.1]), [0.75, 0.0])


def test_objective_refuses_a_source_of_gains():
    gains = as_source(lambda p, x: np.zeros(len(p)), quantity="relative_gain")
    with pytest.raises(UserError, match="objective needs PPL"):
        LayerSplitEnv(make_params(), gains)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_ppl_that_is_not_finite_stops_with_its_setting(bad):
    source = as_source(lambda p, x: np.where(p == 4, bad, 20.0), quantity="ppl")
    with pytest.raises(UserError, match=r"split point 4, loss_probability 0\.2"):
        rewards_at(make_params(), source, [1, 4], [0.1, 0.2])


@pytest.mark.parametrize("reward", ["objective", "authors"])
@pytest.mark.parametrize("bad", [0.0, -1.0])
def test_a_ppl_that_is_none_stops_with_its_setting(reward, bad):
    source = as_source(lambda p, x: np.where(p == 4, bad, 20.0), quantity="ppl")
    with pytest.raises(UserError, match=r"split point 4, loss_probability 0\.2: it must be .* 0"):
        rewards_at(make_params(reward=reward), source, [1, 4], [0.1, 0.2])


def test_any_finite_number_is_a_gain():
    source = as_source(lambda p, x: p - 2.5, quantity="relative_gain")
    got = rewards_at(make_params(reward="authors"), source, [1, 10], [0.1, 0.2])
    np.testing.assert_allclose(got, [10 * -1.5 + 0.9, 10 * 7.5])


@pytest.mark.parametrize("reward", ["objective", "authors"])
def test_a_careless_source_moves_no_episode(reward):
    def careless(split_points, links):
        split_points += 1
        links *= 2.0
        return ppl(split_points, links)

    params = make_params(reward=reward)
    start = {"split_point": 2, "link_state": [0.1]}
    env = LayerSplitEnv(params, as_source(careless, quantity="ppl"))
    seen = play(env, [1, 2], options=start)
    np.testing.assert_array_equal(seen[1][0], np.float32([0.1, 2]))
    np.testing.assert_array_equal(seen[2][0], np.float32([0.1, 3]))


@pytest.mark.parametrize("quantity", [None, "Relative_gain"])
def test_a_source_must_say_what_it_gives(quantity):
    def bare(split_points, links):
        return ppl(split_points, links)

    if quantity is not None:
        bare.quantity = quantity
    for use in (LayerSplitEnv, LayerSplitVectorEnv, Oracle, fingerprint):
        with pytest.raises(UserError, match=r"quantity is .*as_source"):
            use(make_params(reward="authors"), bare)


def test_a_source_without_length_is_still_the_source():
    class Log(list):
        quantity = "ppl"

        def __call__(self, split_points, links):
            return ppl(split_points, links)

    log = Log()
    for env in (LayerSplitEnv(make_params(), log), LayerSplitVectorEnv(make_params(), log)):
        assert env.source is log


@pytest.mark.parametrize("action", [3, -1, 1.5, None])
def test_an_action_that_is_none_is_refused(action):
    env = LayerSplitEnv(make_params(), SOURCE)
    env.reset(seed=0)
    with pytest.raises(UserError, match="0, 1, 2"):
        env.step(action)


def test_physics_leaves_its_inputs_alone():
    params = make_params(dynamics={"drift_per_layer": 0.0005})
    state = initial_state(params, 4, np.random.default_rng(0))
    before = copy.deepcopy(state)
    transition(params, state, np.array([0, 1, 2, 0]), np.random.default_rng(1))
    observation(params, state)
    assert state.split_points_N.tolist() == before.split_points_N.tolist()
    assert state.link_states_NK.tolist() == before.link_states_NK.tolist()
