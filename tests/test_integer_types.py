"""Split points, steps and actions mean the same in every integer type; a bool is no action."""

import dataclasses

import numpy as np
import pytest

from envs.example import example_params, example_ppl, example_source
from envs.grid_sources import TableSource
from envs.layer_split import LayerSplitEnv
from envs.oracle import Oracle, moved_by_grid
from envs.policies import FixedPolicy, RandomPolicy, StayPolicy
from envs.sources import as_source, ask
from envs.vector import LayerSplitVectorEnv
from tuning.policy import ExportedPolicy, PolicyDescription

INTEGERS = sorted({np.dtype(code).type for code in np.typecodes["AllInteger"]}, key=str)
LINKS = np.linspace(0.0, 0.3, 30)[:, None]
SPLIT_POINTS = np.tile(np.arange(1, 11), 3)
STEPS = np.repeat([0, 1, 4], 10)

every_integer_type = pytest.mark.parametrize("kind", INTEGERS, ids=lambda kind: kind.__name__)


@pytest.fixture(scope="module")
def oracle():
    return Oracle(example_params(), example_source)


def exported_policy():
    """A network that sees link state, split point and step, and prefers each action somewhere."""
    rng = np.random.default_rng(0)
    layers = [(rng.normal(size=(16, 3)), rng.normal(size=16)), (rng.normal(size=(3, 16)), 0)]
    return ExportedPolicy(
        PolicyDescription(
            link_names=("loss_probability",),
            min_split_point=1,
            max_split_point=10,
            sees_step=True,
            activation="tanh",
            trained_by="nobody",
        ),
        [(w, np.broadcast_to(b, len(w))) for w, b in layers],
        np.array([0.15, 5.5, 2.0]),
        np.array([0.15, 4.5, 2.0]),
    )


@every_integer_type
def test_a_step_moves_by_the_action(kind):
    env = LayerSplitEnv(example_params(), example_source)
    for action, arrived in ((0, 4), (1, 5), (2, 6)):
        first, _ = env.reset(options={"split_point": kind(5)})
        assert first[1] == 5
        assert env.step(kind(action))[0][1] == arrived


@every_integer_type
@pytest.mark.parametrize("reward", ["objective", "authors"])
def test_a_vector_step_moves_by_the_actions(kind, reward):
    params = dataclasses.replace(example_params(), reward=reward, drift_per_layer=0.001)
    played = []
    for cast in (np.int64, kind):
        env = LayerSplitVectorEnv(params, example_source, 3)
        env.reset(seed=0, options={"split_point": np.array([1, 5, 10], cast)})
        played.append(env.step(np.array([0, 0, 2], cast))[:2])
    np.testing.assert_array_equal(played[1][0][:, 1], [1, 4, 10])
    for expected, got in zip(*played, strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("action", [True, np.True_])
def test_a_bool_is_no_action(action):
    single, vector = LayerSplitEnv(), LayerSplitVectorEnv(num_envs=2)
    single.reset(seed=0)
    vector.reset(seed=0)
    with pytest.raises(ValueError, match="0, 1, 2"):
        single.step(action)
    with pytest.raises(ValueError, match="0, 1, 2"):
        vector.step([action, action])


@every_integer_type
def test_policies_answer_alike(kind, oracle):
    policies = {
        "fixed": FixedPolicy(oracle.params, 5),
        "fixed, of that type": FixedPolicy(oracle.params, kind(5)),
        "stay": StayPolicy(oracle.params),
        "optimal": oracle.optimal_policy(),
        "greedy": oracle.greedy_policy(),
        "exported": exported_policy().actions,
    }
    for name, policy in policies.items():
        expected = policy(SPLIT_POINTS, LINKS, STEPS)
        got = policy(SPLIT_POINTS.astype(kind), LINKS, STEPS.astype(kind))
        np.testing.assert_array_equal(got, expected, err_msg=name)
        assert got.dtype == np.int64
        assert name == "stay" or len(set(expected.tolist())) > 1
    drawn = [RandomPolicy(3)(SPLIT_POINTS.astype(k), LINKS, STEPS) for k in (np.int64, kind)]
    np.testing.assert_array_equal(*drawn)


@every_integer_type
def test_an_exported_policy_answers_a_single_call_alike(kind):
    policy = exported_policy()
    expected = policy.actions(SPLIT_POINTS, LINKS, STEPS).tolist()
    rows = zip(SPLIT_POINTS, LINKS, STEPS, strict=True)
    assert [policy(link, kind(p), kind(step)) for p, link, step in rows] == expected


@pytest.mark.filterwarnings("error")
def test_an_exported_policy_takes_link_coordinates_of_small_types():
    two = dataclasses.replace(exported_policy().description, link_names=("snr_db", "noise_std"))
    network = [(np.ones((3, 4)), np.arange(3.0))]
    policy = ExportedPolicy(two, network, np.zeros(4), np.ones(4))
    assert policy(np.array([200, 100], np.uint8), 3) == policy((200.0, 100.0), 3) == 2
    assert policy(np.array([6e4, 6e4], np.float16), 3) == 2


@every_integer_type
def test_the_oracle_takes_actions_of_every_type(kind, oracle):
    plan = oracle.actions_TPM
    assert oracle.plan_return(plan.astype(kind)) == oracle.plan_return(plan.tolist())
    assert oracle.plan_return(plan.astype(kind)) == pytest.approx(oracle.optimal_return)
    optimal = oracle.optimal_policy()
    in_kind = oracle.policy_return(lambda *state: optimal(*state).astype(kind))
    assert in_kind == pytest.approx(oracle.optimal_return)


@pytest.mark.parametrize(
    "answer",
    [
        lambda p: p > 5,
        lambda p: np.sign(5 - p),  # -1 would be the last of three actions
        lambda p: np.ones(len(p)),
        lambda p: np.ones((len(p), 1), int),
        lambda p: 1,
    ],
    ids=["bool", "moves", "float", "column", "scalar"],
)
def test_the_oracle_refuses_what_is_no_action(oracle, answer):
    with pytest.raises(ValueError, match="0, 1, 2"):
        oracle.policy_return(lambda p, links, steps: answer(p))


@pytest.mark.parametrize("change", [lambda plan: plan > 0, lambda plan: plan - 1])
def test_the_oracle_refuses_a_plan_of_anything_but_actions(oracle, change):
    with pytest.raises(ValueError, match="0, 1, 2"):
        oracle.plan_return(change(oracle.actions_TPM))


@every_integer_type
def test_a_grid_s_size_may_be_of_every_type(kind):
    params = dataclasses.replace(example_params(), link_dynamics="iid")
    moved = [moved_by_grid(Oracle(params, example_source, grid_points=[n])) for n in (80, kind(80))]
    assert moved[0] == moved[1]


@every_integer_type
def test_sources_are_asked_for_int64(kind):
    p, links = np.array([1, 10], kind), np.array([[0.1], [0.2]])
    scaled = as_source(lambda p, link: 30 * p + link[:, 0], quantity="ppl")
    np.testing.assert_allclose(ask(scaled, p, links), [30.1, 300.2])
    axis = np.linspace(0, 0.3, 40)
    of_p, of_link = np.repeat(np.arange(1, 11), 40), np.tile(axis, 10)[:, None]
    table = TableSource.from_rows(of_p.astype(kind), of_link, np.log(example_ppl(of_p, of_link)))
    np.testing.assert_array_equal(table(p, links), table(p.astype(np.int64), links))
