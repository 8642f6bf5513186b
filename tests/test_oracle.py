"""The exact optimum: against brute force, closed forms and simulation; baselines; grids."""

import dataclasses
import itertools

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from envs.grid_sources import TableSource
from envs.link_chain import grid_axes, grid_states, link_chain
from envs.oracle import Oracle, moved_by_grid, share_of_gap
from envs.params import params_from
from envs.policies import FixedPolicy, RandomPolicy, StayPolicy, TabularPolicy
from envs.problem import ProblemConfig
from envs.sources import as_source
from envs.vector import LayerSplitVectorEnv
from raysplit.base.errors import UserError


def gain(split_points_N, link_states_NK):
    """A hand-made f(loss, p) with the shape of the authors' published one.

    Flat on the whole, with one hill at p = 1 on good links and one at p = 7 on bad links; its
    constants are chosen so that optimum and random policy return what the authors' do.
    """
    loss_N = link_states_NK[:, 0] / 0.3
    near = (1 - loss_N**2) * np.exp(-(split_points_N - 1) / 2)
    deep = loss_N * np.exp(-(((split_points_N - 7) / 2) ** 2))
    return (0.458 - (10 - split_points_N) / 10 + 0.22 * near + 0.22 * deep) / 10


def ppl(split_points_N, link_states_NK):
    return 16.0 * np.exp(4.0 * link_states_NK.sum(axis=1) / np.sqrt(split_points_N))


GAIN = as_source(gain, quantity="relative_gain")
PPL = as_source(ppl, quantity="ppl")


def authors(grid_points=7, **section):
    """The authors' surrogate environment: 3 actions, p 1-9 at the start, loss 0.01-0.3."""
    link = {"loss_probability": {"low": 0.01, "high": 0.3, "grid_points": grid_points}}
    section = {"initial_split_points": [1, 9], "reward": "authors", "link": link} | section
    return params_from(ProblemConfig.model_validate(section))


def objective(grid_points=9, **section):
    link = {"loss_probability": {"low": 0.0, "high": 0.3, "grid_points": grid_points}}
    section = {"link": link, "lambda": 1.0} | section
    return params_from(ProblemConfig.model_validate(section), 16.0, np.arange(1, 11) / 16)


def returns_of_sequences(params, source, split_points_N, links_NK):
    """Play all 3^5 action sequences from N starts in the environment: returns (243, N)."""
    env = LayerSplitVectorEnv(params, source, len(split_points_N))
    start = {"split_point": split_points_N, "link_state": links_NK}
    returns = []
    for actions in itertools.product(range(3), repeat=5):
        env.reset(seed=0, options=start)
        steps = [env.step(np.full(env.num_envs, action)) for action in actions]
        returns.append(sum(step[1] for step in steps))
    return np.array(returns)


def starts(params, grid_points):
    """Return every start: split points, link states, and (independently made) probabilities."""
    first, last = params.start_split_points
    links_GK = grid_states(params, [grid_points])
    split_points = np.repeat(np.arange(first, last + 1), grid_points)
    links = np.tile(links_GK, (last - first + 1, 1))
    trapezoid = np.array([0.5, *np.ones(grid_points - 2), 0.5]) / (grid_points - 1)
    return split_points, links, np.tile(trapezoid, last - first + 1) / (last - first + 1)


@pytest.mark.parametrize("section", [{}, {"dynamics": {"drift_per_layer": 0.0005}}])
def test_the_optimum_equals_brute_force_on_the_authors_reward_shape(section):
    params = authors(**section)
    oracle = Oracle(params, GAIN)
    p, links, weights = starts(params, 7)
    returns = returns_of_sequences(params, GAIN, p, links)
    # With drift, going down and up again is neglected: 2.5e-7 of the link state.
    tolerance = 1e-6 if section else 1e-12
    assert oracle.optimal_return == pytest.approx(returns.max(axis=0) @ weights, abs=tolerance)
    assert oracle.random_return == pytest.approx(returns.mean(axis=0) @ weights, abs=tolerance)


def test_each_start_has_its_own_optimum():
    params = authors()
    oracle = Oracle(params, GAIN)
    p, links, _ = starts(params, 7)
    best = returns_of_sequences(params, GAIN, p, links).max(axis=0)
    np.testing.assert_allclose(oracle.values_TPM[0][:9].ravel(), best, rtol=1e-12)


def test_the_optimum_equals_brute_force_in_two_coordinates():
    link = {
        "noise_std": {"low": 0, "high": 0.2, "grid_points": 3},
        "loss_probability": {"low": 0, "high": 0.3, "grid_points": 4},
    }
    params = params_from(
        ProblemConfig.model_validate({"link": link, "lambda": 1.0}), 16.0, np.arange(1, 11) / 16
    )
    oracle = Oracle(params, PPL)
    links_GK = grid_states(params, [3, 4])
    best = returns_of_sequences(params, PPL, np.full(12, 6), links_GK).max(axis=0)
    np.testing.assert_allclose(oracle.values_TPM[0, 5], best, rtol=1e-12)


def test_discount_enters_as_in_eq_9_up_to_one_factor():
    params = objective(discount=0.5)
    oracle = Oracle(params, PPL)
    rewards_PM = oracle.rewards_PM
    stay = oracle.policy_values(StayPolicy(oracle.params))
    np.testing.assert_allclose(stay, rewards_PM * (1 + 0.5 + 0.25 + 0.125 + 0.0625))
    # Eq. 9 counts steps from 1: its value is one factor of the discount smaller.


def test_without_any_gain_going_down_is_optimal_with_a_closed_form():
    params = authors()
    oracle = Oracle(params, as_source(lambda p, x: np.zeros(len(p)), quantity="relative_gain"))
    closed = np.mean([sum((10 - max(p - t, 1)) / 10 for t in range(1, 6)) for p in range(1, 10)])
    assert oracle.optimal_return == pytest.approx(closed)
    assert oracle.best_fixed() == (1, pytest.approx(closed))
    assert oracle.policy_return(StayPolicy(oracle.params)) == pytest.approx(2.5)
    assert oracle.optimal_static_split_points().tolist() == [1] * 7


def test_a_problem_shaped_like_the_authors_behaves_as_theirs():
    """Theirs: optimum 2.9917, random 2.6946; staying closes 0.7 % of the gap, going down 38 %."""
    oracle = Oracle(authors(30), GAIN)
    assert oracle.optimal_return == pytest.approx(2.99, abs=0.01)
    assert oracle.random_return == pytest.approx(2.69, abs=0.01)
    assert oracle.share_of_gap(oracle.policy_return(StayPolicy(oracle.params))) < 0.1
    assert 0.3 < oracle.share_of_gap(oracle.policy_return(FixedPolicy(oracle.params, 1))) < 0.5
    assert set(oracle.optimal_static_split_points().tolist()) == {1, 7}
    assert oracle.share_of_gap(oracle.policy_return(oracle.greedy_policy())) < 0.95  # two hills


# Random links and traces


def test_over_an_iid_link_the_best_plan_ignores_the_link():
    params = objective(dynamics={"kind": "iid"})
    oracle = Oracle(params, PPL)
    mean_P = oracle.rewards_PM @ (np.array([0.5, *np.ones(7), 0.5]) / 8)
    best = []
    for p in range(10):
        returns = []
        for actions in itertools.product((-1, 0, 1), repeat=5):
            path = list(
                itertools.accumulate(actions, lambda q, a: min(max(q + a, 0), 9), initial=p)
            )
            returns.append(mean_P[path[1:]].sum())
        best.append(max(returns))
    assert oracle.optimal_return == pytest.approx(np.mean(best), rel=1e-12)
    np.testing.assert_allclose(oracle.values_TPM[0], np.array(best)[:, None].repeat(9, axis=1))


def test_a_gauss_markov_link_lies_between_iid_and_constant():
    def optimum(dynamics):
        return Oracle(objective(41, dynamics=dynamics), PPL).optimal_return

    markov = [
        optimum({"kind": "gauss_markov", "correlation": rho}) for rho in (0.0, 0.5, 0.9, 0.9999)
    ]
    assert markov[0] == pytest.approx(optimum({"kind": "iid"}), rel=1e-9)
    assert markov == sorted(markov)  # the more predictable, the better
    assert markov[-1] == pytest.approx(optimum({"kind": "constant"}), abs=2e-3)


def test_the_gauss_markov_kernel_is_stochastic_and_nearly_stationary():
    chain = link_chain(
        objective(dynamics={"kind": "gauss_markov", "correlation": 0.8}), grid_points=[101]
    )
    kernel = chain.kernels[0]
    np.testing.assert_allclose(kernel.sum(axis=1), 1.0)
    uniform = chain.start_PM.sum(axis=0)
    np.testing.assert_allclose(np.cumsum(uniform @ kernel), np.cumsum(uniform), atol=2e-3)


def test_two_coordinates_move_independently_in_the_chain():
    link = {"noise_std": [0.0, 1.0], "loss_probability": [0.0, 0.3]}
    params = params_from(
        ProblemConfig.model_validate(
            {"link": link, "dynamics": {"kind": "gauss_markov", "correlation": 0.6}}
        ),
        16.0,
        np.arange(1, 11) / 16,
    )
    chain = link_chain(params, [4, 5])
    joint = np.kron(*chain.kernels)
    values_PM = np.random.default_rng(0).normal(size=(10, 20))
    np.testing.assert_allclose(chain.expected(values_PM), values_PM @ joint.T)


@pytest.mark.parametrize(
    "dynamics",
    [{"kind": "constant"}, {"kind": "iid"}, {"kind": "gauss_markov", "correlation": 0.9}],
)
def test_exact_returns_agree_with_simulation(dynamics):
    params = objective(61, dynamics=dynamics)
    oracle = Oracle(params, PPL)
    for policy, exact in (
        (oracle.optimal_policy(), oracle.optimal_return),
        (RandomPolicy(1), oracle.random_return),
        (FixedPolicy(params, 3), oracle.policy_return(FixedPolicy(oracle.params, 3))),
    ):
        returns_N = simulate(params, PPL, policy, 20_000)
        error = returns_N.std() / np.sqrt(len(returns_N))
        assert abs(returns_N.mean() - exact) < 4 * error + 1e-3


def simulate(params, source, policy, episodes):
    """Return the returns of episodes played in the environment, seeing only observations."""
    env = LayerSplitVectorEnv(params, source, episodes)
    seen, _ = env.reset(seed=0)
    returns_N = np.zeros(episodes)
    for step in range(params.episode_steps):
        p, links = seen[:, -1].astype(np.int64), seen[:, :-1].astype(np.float64)
        seen, reward_N, *_ = env.step(policy(p, links, np.full(episodes, step)))
        returns_N += reward_N
    return returns_N


def test_the_optimum_over_a_trace_equals_brute_force(tmp_path):
    loss = np.random.default_rng(0).uniform(0, 0.3, 12)
    path = tmp_path / "trace.csv"
    path.write_text("loss_probability\n" + "".join(f"{x}\n" for x in loss))
    oracle = Oracle(objective(dynamics={"kind": "trace", "path": path}), PPL)
    best = []
    for row, p in itertools.product(range(7), range(1, 11)):
        returns = []
        for actions in itertools.product((-1, 0, 1), repeat=5):
            path_p = list(
                itertools.accumulate(actions, lambda q, a: min(max(q + a, 1), 10), initial=p)
            )[1:]
            values = ppl(np.array(path_p), loss[row + 1 : row + 6, None])
            returns.append(-(values / 16 + np.array(path_p) / 16).sum())
        best.append(max(returns))
    assert oracle.optimal_return == pytest.approx(np.mean(best), rel=1e-12)
    with pytest.raises(UserError, match="uses the rows to come"):
        oracle.optimal_policy()
    assert oracle.policy_return(oracle.greedy_policy()) < oracle.optimal_return


# Policies


def test_policies_read_off_the_oracle_reach_what_it_says():
    oracle = Oracle(objective(), PPL)
    assert oracle.policy_return(oracle.optimal_policy()) == pytest.approx(
        oracle.optimal_return, rel=1e-12
    )
    for name, policy in oracle.baselines().items():
        assert oracle.regret(oracle.policy_return(policy)) >= -1e-12, name
    assert oracle.share_of_gap(oracle.optimal_return) == 1.0
    assert oracle.share_of_gap(oracle.random_return) == 0.0


def test_greedy_is_optimal_without_hills_and_trapped_by_one():
    smooth = Oracle(objective(), PPL)
    greedy = smooth.policy_return(smooth.greedy_policy())
    assert smooth.share_of_gap(greedy) == pytest.approx(1.0)

    def hill(split_points_N, link_states_NK):  # p = 4 is bad, p = 5 very good
        return np.select([split_points_N == 4, split_points_N >= 5], [40.0, 1.0], 16.0)

    oracle = Oracle(objective(**{"lambda": 0.0}), as_source(hill, quantity="ppl"))
    first = oracle.policy_values(oracle.greedy_policy())[2, 0]
    assert first == -5.0  # stays at p = 3
    assert oracle.values_TPM[0, 2, 0] == pytest.approx(-(40 + 4 * 1) / 16)


def test_fixed_policies_walk_and_stay():
    policy = FixedPolicy(objective(), 4)
    assert policy(np.array([1, 4, 9]), np.zeros((3, 1)), np.zeros(3)).tolist() == [2, 1, 0]
    oracle = Oracle(objective(), PPL)
    by_hand = sum(oracle.rewards_PM[p, 2] for p in (7, 6, 5, 4, 3))  # from p = 9 down to 4
    assert oracle.policy_values(policy)[8, 2] == pytest.approx(by_hand)


def test_the_best_fixed_split_point_is_that_of_the_best_return():
    # PPL has its minimum at p = 7; from there on no other fixed split point is as good.
    source = as_source(lambda p, x: 16.0 + (p - 7.0) ** 2, quantity="ppl")
    params = objective(3, initial_split_points=[7, 7], **{"lambda": 0.0})
    assert Oracle(params, source).best_fixed() == (7, -5.0)


def test_baselines_have_the_names_that_reports_show():
    names = list(Oracle(objective(3), PPL).baselines())
    assert names == ["random", "stay", "greedy", "threshold", *(f"fixed {p}" for p in range(1, 11))]


def test_a_plan_is_played_from_its_first_step_on():
    params = objective(3, initial_split_points=[5, 5])
    oracle = Oracle(params, PPL)
    plan = [2, 2, 0, 1, 0]  # arrives at 6, 7, 6, 6, 5
    plan_TPM = np.broadcast_to(np.array(plan)[:, None, None], oracle.actions_TPM.shape)
    rewards_P = oracle.rewards_PM @ [0.25, 0.5, 0.25]
    by_hand = rewards_P[np.array([6, 7, 6, 6, 5]) - 1].sum()
    assert oracle.plan_return(plan_TPM) == pytest.approx(by_hand, rel=1e-12)


def test_stochastic_policies_are_averaged_not_sampled():
    class Mixed:
        """Stays with probability 3/4, else goes down."""

        def __call__(self, split_points_N, link_states_NK, steps_N):
            raise AssertionError("an exact return samples nothing")

        def action_probabilities(self, split_points_N, link_states_NK, steps_N):
            return np.tile([0.25, 0.75, 0.0], (len(split_points_N), 1))

    params = authors()
    oracle = Oracle(params, GAIN)
    p, links, weights = starts(params, 7)
    returns = returns_of_sequences(params, GAIN, p, links)
    chance = np.array(
        [
            np.prod([(0.25, 0.75, 0.0)[a] for a in actions])
            for actions in itertools.product(range(3), repeat=5)
        ]
    )
    assert oracle.policy_return(Mixed()) == pytest.approx(chance @ returns @ weights)


def test_a_policy_sees_step_split_point_and_link_state():
    asked = []

    def policy(split_points_N, link_states_NK, steps_N):
        asked.append((split_points_N, link_states_NK, steps_N))
        return np.ones(len(split_points_N), dtype=np.int64)

    oracle = Oracle(objective(3), PPL)
    oracle.policy_return(policy)
    assert sorted({int(s) for *_, steps in asked for s in steps}) == [0, 1, 2, 3, 4]
    p, links, _ = asked[0]
    assert p.tolist() == np.repeat(np.arange(1, 11), 3).tolist()
    assert links.ravel().tolist() == [0.0, 0.15, 0.3] * 10


def of_nodes(first, last, *spans):
    """A problem of so many split points whose link coordinates are that wide."""
    return dataclasses.replace(
        objective(),
        min_split_point=first,
        max_split_point=last,
        link_low_K=np.zeros(len(spans)),
        link_high_K=np.array(spans),
    )


def test_a_tabular_policy_takes_the_nearest_node_of_its_step_and_split_point():
    rng = np.random.default_rng(0)
    actions_TPM = rng.integers(0, 3, (5, 4, 6))
    links_PMK = rng.uniform([0, 0], [1.2, 0.3], (4, 6, 2))
    policy = TabularPolicy(of_nodes(3, 6, 1.2, 0.3), links_PMK, actions_TPM)
    step, p, node = (column.ravel() for column in np.indices(actions_TPM.shape))
    links = links_PMK[p, node] + rng.normal(size=(120, 2)) * [1.2e-3, 0.3e-3]
    assert policy(p + 3, links, step).tolist() == actions_TPM.ravel().tolist()


def test_of_two_nodes_equally_near_the_first_is_taken():
    nodes = np.array([[0.0, 3.0], [0.5, 3.0], [0.5, 1.0], [1.0, 2.0]])
    policy = TabularPolicy(of_nodes(1, 1, 1.0, 4.0), nodes[None], np.array([[[0, 1, 2, 0]]]))
    states = np.array([[0.25, 3.0], [0.5, 2.0], [0.5, 1.9]])
    assert policy(np.ones(3, dtype=int), states, np.zeros(3, dtype=int)).tolist() == [0, 1, 2]


def test_a_long_trace_is_looked_up_in_slices(monkeypatch):
    """All distances at once would be rows times rows."""
    rng = np.random.default_rng(0)
    nodes_M1 = rng.random((300, 1))
    policy = TabularPolicy(of_nodes(1, 1, 1.0), nodes_M1[None], rng.integers(0, 3, (1, 1, 300)))
    states = np.ones(300, dtype=int), nodes_M1, np.zeros(300, dtype=int)
    whole = policy(*states)
    assert whole.tolist() == policy.actions_TPM.ravel().tolist()
    monkeypatch.setattr("envs.policies._MOST_DISTANCES", 7 * 300)
    asked = []

    def counted(a, b, *metric, **weights):
        asked.append(len(a))
        return cdist(a, b, *metric, **weights)

    monkeypatch.setattr("scipy.spatial.distance.cdist", counted)
    assert policy(*states).tolist() == whole.tolist()
    assert asked == [7] * 42 + [6]


def test_the_random_policy_is_seeded():
    state = np.ones(50, dtype=np.int64), np.zeros((50, 1)), np.zeros(50)
    a, b, c = (RandomPolicy(seed)(*state).tolist() for seed in (1, 1, 2))
    assert a == b != c


def test_share_of_a_gap_that_is_not_there_is_nan():
    assert np.isnan(share_of_gap(1.0, 1.0, 1.0))
    assert share_of_gap(0.5, 0.0, 2.0) == 0.25


# Grids


def test_a_plan_is_worth_the_optimum_where_it_was_made_and_less_elsewhere():
    params = objective(9)
    here, elsewhere = (
        Oracle(params, PPL),
        Oracle(params, as_source(lambda p, x: 20 / p, quantity="ppl")),
    )
    assert here.plan_return(here.actions_TPM) == pytest.approx(here.optimal_return, abs=1e-12)
    assert elsewhere.plan_return(here.actions_TPM) < elsewhere.optimal_return
    policy_return = elsewhere.policy_return(here.optimal_policy())
    assert elsewhere.plan_return(here.actions_TPM) == pytest.approx(policy_return, abs=1e-12)


@pytest.mark.parametrize("dynamics", ["iid", "gauss_markov"])
def test_a_random_links_optimum_moves_less_on_finer_grids(dynamics):
    params = dataclasses.replace(objective(3), link_dynamics=dynamics, correlation=0.7)
    moved = [moved_by_grid(Oracle(params, PPL, grid_points=[n])) for n in (3, 9, 33)]
    assert moved[0] > moved[1] > moved[2] > 0
    assert moved_by_grid(Oracle(objective(3), PPL)) is None


def test_a_grid_too_fine_to_be_doubled_is_not_compared(monkeypatch):
    params = dataclasses.replace(objective(3), link_dynamics="iid")
    oracle = Oracle(params, PPL, grid_points=[30])
    assert moved_by_grid(oracle) is not None
    monkeypatch.setattr("envs.oracle._MOST_SETTINGS", 10 * 59 - 1)
    assert moved_by_grid(oracle) is None


def test_the_oracle_of_a_table_on_its_own_grid_needs_no_interpolation():
    params = objective(9)
    (axis,) = grid_axes(params, [9])
    p = np.repeat(np.arange(1, 11), 9)
    table = TableSource((1, 10), [axis], ppl(p, np.tile(axis, 10)[:, None]).reshape(10, 9))
    assert Oracle(params, table).optimal_return == pytest.approx(
        Oracle(params, PPL).optimal_return, rel=1e-13
    )


def test_the_share_that_a_grid_moves_is_that_of_twice_as_fine_a_grid(monkeypatch):
    params = dataclasses.replace(objective(3), link_dynamics="iid")
    oracle, finer = Oracle(params, PPL), Oracle(params, PPL, grid_points=[5])
    gap = oracle.optimal_return - oracle.random_return
    by_hand = abs(finer.optimal_return - oracle.optimal_return) / gap
    monkeypatch.setattr("envs.oracle._MOST_SETTINGS", 50)  # 5 link states at 10 split points
    assert moved_by_grid(oracle) == pytest.approx(by_hand, rel=1e-12)
    monkeypatch.setattr("envs.oracle._MOST_SETTINGS", 49)
    assert moved_by_grid(oracle) is None


def test_a_grid_moves_no_share_of_a_gap_that_is_not_there():
    flat = as_source(lambda p, x: np.full(len(p), 16.0), quantity="ppl")
    params = dataclasses.replace(objective(3, **{"lambda": 0.0}), link_dynamics="iid")
    assert moved_by_grid(Oracle(params, flat)) is None


def test_the_map_of_best_split_points_is_eq_7():
    params = objective(5)
    oracle = Oracle(params, PPL)
    for x, best in zip(
        oracle.link_states_GK[:, 0], oracle.optimal_static_split_points(), strict=True
    ):
        values = [16 * np.exp(4 * x / np.sqrt(p)) / 16 + 1.0 * p / 16 for p in range(1, 11)]
        assert best == 1 + int(np.argmin(values))


def test_the_map_under_drift_is_that_of_the_undrifted_links():
    drifting = Oracle(objective(5, dynamics={"drift_per_layer": 0.0005}), PPL)
    still = Oracle(objective(5), PPL)
    assert (
        drifting.optimal_static_split_points().tolist()
        == still.optimal_static_split_points().tolist()
    )


@pytest.mark.parametrize(
    ("section", "settings"), [({}, 10 * 5), ({"dynamics": {"drift_per_layer": 5e-4}}, 10 * 55)]
)
def test_no_setting_of_the_grid_is_asked_twice(section, settings):
    """With drift, the map of the grid's own link states comes on top of the 50 nodes of each p."""
    asked = []
    counted = as_source(lambda p, x: asked.extend(p) or ppl(p, x), quantity="ppl")
    Oracle(objective(5, **section), counted)
    assert len(asked) == settings


def test_the_oracle_refuses_a_source_that_cannot_serve():
    with pytest.raises(UserError, match="objective needs PPL"):
        Oracle(objective(), GAIN)
