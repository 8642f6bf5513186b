"""The vector environment: equal to N single ones step by step, and Gymnasium's NEXT_STEP rules."""

import pickle

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import envs
from envs.layer_split import LayerSplitEnv
from envs.params import params_from
from envs.problem import ProblemConfig
from envs.vector import LayerSplitVectorEnv
from raysplit.base.errors import UserError

COPIES = 6


def make_params(**section):
    link = {"noise_std": [0.0, 1.2], "loss_probability": [0.0, 0.3]}
    problem = ProblemConfig.model_validate({"link": link, **section})
    return params_from(problem, 16.0, np.arange(1, 11) / 16)


class CountingSource:
    """A PPL over both coordinates that counts its calls and rows."""

    quantity = "ppl"

    def __init__(self):
        self.calls = 0
        self.rows = 0

    def __call__(self, split_points_N, link_states_NK):
        self.calls += 1
        self.rows += len(split_points_N)
        noise_N, loss_N = link_states_NK.T
        return 16 * np.exp((noise_N + 3 * loss_N) / split_points_N)


class Replay:
    """Stands in for a generator: hands out row n of what a vector env's generator drew."""

    def __init__(self, draws, n):
        self._draws = [draw[n : n + 1] for draw in draws]

    def _next(self, *_args, **_kwargs):
        return self._draws.pop(0)

    random = standard_normal = integers = _next


class Recording:
    """A real generator that remembers its draws."""

    def __init__(self, seed):
        self._generator = np.random.default_rng(seed)
        self.draws = []

    def _keep(self, draw):
        self.draws.append(draw)
        return draw

    def random(self, size):
        return self._keep(self._generator.random(size))

    def standard_normal(self, size):
        return self._keep(self._generator.standard_normal(size))

    def integers(self, low, high, size):
        return self._keep(self._generator.integers(low, high, size=size))


DYNAMICS = [
    {"kind": "constant"},
    {"kind": "constant", "drift_per_layer": 0.0005},
    {"kind": "iid"},
    {"kind": "gauss_markov", "correlation": 0.7},
    {"kind": "trace"},
]


@pytest.fixture
def trace(tmp_path):
    path = tmp_path / "trace.csv"
    rows = "".join(f"{t / 20},{t / 100}\n" for t in range(20))
    path.write_text("noise_std,loss_probability\n" + rows)
    return path


@pytest.mark.parametrize("reward", ["objective", "authors"])
@pytest.mark.parametrize("dynamics", DYNAMICS, ids=lambda d: d["kind"] + str(len(d)))
def test_it_equals_single_environments_step_by_step(dynamics, reward, trace):
    if dynamics["kind"] == "trace":
        dynamics = dynamics | {"path": trace}
    params = make_params(dynamics=dynamics, reward=reward, observe_step=True)
    vector = LayerSplitVectorEnv(params, CountingSource(), COPIES)
    vector.np_random = Recording(0)
    actions_TN = np.random.default_rng(1).integers(0, 3, (17, COPIES))  # almost 3 episodes
    observations = [vector.reset()[0]]
    steps = [vector.step(actions_N) for actions_N in actions_TN]

    for n in range(COPIES):
        single = LayerSplitEnv(params, CountingSource())
        single.np_random = Replay(vector.np_random.draws, n)
        np.testing.assert_array_equal(single.reset()[0], observations[0][n])
        ended = False
        for actions_N, (seen_N, reward_N, ended_N, truncated_N, info) in zip(
            actions_TN, steps, strict=True
        ):
            if ended:
                expected = (single.reset()[0], 0.0, False, False, {})
            else:
                expected = single.step(actions_N[n])
            np.testing.assert_array_equal(seen_N[n], expected[0])
            assert (reward_N[n], ended_N[n], truncated_N[n], info) == expected[1:]
            ended = expected[2]


def test_one_copy_and_the_single_environment_share_their_seed():
    params = make_params(dynamics={"kind": "iid"})
    vector = LayerSplitVectorEnv(params, CountingSource(), 1)
    single = LayerSplitEnv(params, CountingSource())
    np.testing.assert_array_equal(vector.reset(seed=4)[0][0], single.reset(seed=4)[0])
    for action in (2, 2, 0, 1, 0):
        ours, theirs = vector.step(np.array([action])), single.step(np.int64(action))
        np.testing.assert_array_equal(ours[0][0], theirs[0])
        assert (ours[1][0], ours[2][0]) == theirs[1:3]


def test_autoreset_is_next_step():
    env = LayerSplitVectorEnv(make_params(), CountingSource(), COPIES)
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    env.reset(seed=0)
    stay = np.ones(COPIES, dtype=np.int64)
    steps = [env.step(stay) for _ in range(12)]
    ended = [step[2].all() for step in steps]
    assert ended == [False] * 4 + [True] + [False] * 5 + [True] + [False]
    assert not any(step[3].any() for step in steps)
    np.testing.assert_array_equal(steps[3][0], steps[4][0])  # the last observation is shown
    assert (steps[5][1] == 0).all()
    assert not np.array_equal(steps[5][0], steps[4][0])  # then the next episode's first
    np.testing.assert_array_equal(steps[5][0], steps[6][0])


def test_a_step_asks_the_source_once_for_all_copies_and_a_reset_never():
    source = CountingSource()
    env = LayerSplitVectorEnv(make_params(), source, COPIES)
    env.reset(seed=0)
    for _ in range(12):
        env.step(env.action_space.sample())
    assert (source.calls, source.rows) == (10, 10 * COPIES)


def test_what_a_step_returned_is_never_written_again():
    env = LayerSplitVectorEnv(make_params(), CountingSource(), COPIES)
    returned = [env.reset(seed=0)[0]]
    before = [returned[0].copy()]
    for _ in range(12):
        step = env.step(env.action_space.sample())
        returned.extend(step[:4])
        before.extend(array.copy() for array in step[:4])
    for now, then in zip(returned, before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_observations_and_spaces_fit():
    env = LayerSplitVectorEnv(make_params(case="L", observe_step=True), CountingSource(), COPIES)
    observations, info = env.reset(seed=1)
    assert env.observation_space.contains(observations)
    assert env.single_observation_space.contains(observations[0])
    assert observations.dtype == np.float32
    assert info == {}


@pytest.mark.parametrize(
    "actions", [[0, 3], [0, -1], [0, 1.0], [1], [0, 1, 2], [[0], [1]], [True, True]]
)
def test_actions_that_are_none_are_refused(actions):
    env = LayerSplitVectorEnv(num_envs=2)
    env.reset(seed=0)
    with pytest.raises(UserError, match=r"0, 1, 2 for each of 2 episode"):
        env.step(np.array(actions))


@pytest.mark.parametrize(
    "options", [{"split_point": 2.5}, {"split_point": [1, 2, 3]}, {"link_state": "low"}]
)
def test_a_start_that_fits_no_episode_is_refused(options):
    with pytest.raises(UserError, match=r"reset option .* is not one for each of 2 episode"):
        LayerSplitVectorEnv(num_envs=2).reset(options=options)


def test_an_unknown_reset_option_is_refused():
    with pytest.raises(UserError, match=r"no option 'splitpoint'.*did you mean 'split_point'"):
        LayerSplitVectorEnv(num_envs=2).reset(options={"splitpoint": 3})


def test_chosen_starts_apply_to_each_copy():
    env = LayerSplitVectorEnv(make_params(), CountingSource(), 3)
    links = np.array([[0.1, 0.0], [0.2, 0.1], [0.3, 0.2]])
    observations, _ = env.reset(options={"split_point": [2, 5, 9], "link_state": links})
    np.testing.assert_array_equal(observations, np.float32(np.c_[links, [2, 5, 9]]))


def test_it_is_gymnasium_s_vector_entry_point_and_pickles():
    env = gymnasium.make_vec(envs.ENV_ID, num_envs=4, params=make_params(), source=CountingSource())
    assert isinstance(env, LayerSplitVectorEnv)
    env.reset(seed=2)
    twin = pickle.loads(pickle.dumps(env))
    for _ in range(7):
        actions_N = env.action_space.sample()
        for ours, theirs in zip(env.step(actions_N), twin.step(actions_N), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_equal_to_gymnasium_s_own_vectorisation_from_equal_starts():
    params = make_params()
    starts = {"split_point": 5, "link_state": [0.5, 0.1]}
    sync = gymnasium.make_vec(
        envs.ENV_ID,
        num_envs=3,
        vectorization_mode="sync",
        params=params,
        source=CountingSource(),
    )
    ours = LayerSplitVectorEnv(params, CountingSource(), 3)
    sync.reset(seed=0, options=starts)
    ours.reset(seed=0, options=starts)
    for actions_N in np.random.default_rng(0).integers(0, 3, (5, 3)):
        for a, b in zip(ours.step(actions_N)[:4], sync.step(actions_N)[:4], strict=True):
            np.testing.assert_array_equal(a, b)
