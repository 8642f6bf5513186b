"""Hindsight: against brute force over actions and link paths, without variance, in both engines."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.evaluation.postprocessing import Postprocessing

from envs.actions import targets_of_actions
from envs.example import example_params, example_source
from envs.grid_sources import MeasuredSource
from envs.hindsight import arrival_rewards, at_every_place, steps_of_all_actions
from envs.sources import as_source
from envs.vector import LayerSplitVectorEnv
from raysplit.base.errors import UserError
from tuning.rllib.algorithms import algorithm_config
from tuning.rllib.env import register_with_ray
from tuning.rllib.hindsight import action_values, standardised_over_actions
from tuning.rllib.local import quiet_rllib
from tuning.rllib.stock import ALL_LOG_PROBS
from tuning.settings import TrainConfig
from tuning.train import train

DRIFT = 5e-4
TRACE_R1 = np.random.default_rng(5).uniform(0.0, 0.3, (6, 1))


@pytest.fixture(autouse=True)
def _quiet():
    with quiet_rllib(0):
        yield


def problem(**changes):
    return replace(example_params(), observe_step=True, **changes)


def built(params, *, algorithm="ppo", engine="lean", source=example_source, **overrides):
    small = {"num_envs": 4, "steps_per_update": 40}
    if algorithm == "ppo":
        small["minibatch_size"] = 20
    config = TrainConfig(
        algorithm=algorithm, engine=engine, total_steps=400, overrides=small | overrides
    )
    return algorithm_config(
        config,
        env=register_with_ray(),
        env_config={"params": params, "source": source},
        actor_inputs=2,
        critic_inputs=3,
        knots=(8, 10),
        seed=3,
    ).build_algo()


def sharpened(net, factor=1000.0):
    """Let the almost uniform policy of a new network prefer some actions."""
    with torch.no_grad():
        list(net.actor.parameters())[-2].mul_(factor)


def played(params, split_point, link_state, actions):
    """Return the rewards of a sequence of actions in the environment itself."""
    env = LayerSplitVectorEnv(params, example_source, 1)
    options = {"split_point": split_point}
    if params.link_dynamics != "trace":
        options["link_state"] = link_state
    env.reset(seed=0, options=options)
    return np.array([env.step(np.array([action]))[1][0] for action in actions])


@pytest.mark.parametrize(
    "changes",
    [
        {"link_dynamics": "trace", "trace_RK": TRACE_R1},
        {},
        {"drift_per_layer": DRIFT},
    ],
    ids=["trace", "constant", "drift"],
)
def test_values_are_those_of_every_action_sequence_along_the_path(changes):
    """Each sequence of five actions is played, and weighted by the policy on its own way."""
    params = problem(**changes)
    algo = built(params)
    learner = algo.learner_group._learner
    net, hindsight = learner.net, learner._hindsight
    sharpened(net)
    algo.env_runner.module.load_state_dict(net.state_dict(), strict=False)
    (rollout,) = algo.env_runner.sample()
    learner.make_batch([rollout])  # takes the scale of the rewards
    rows = hindsight.rows(net, rollout.obs_TNI, rollout.terminated_TN, rollout.valid_TN)
    link_state, split_point, _ = rollout.obs_TNI[0, 0]
    q_A = np.zeros(3)
    for actions in itertools.product(range(3), repeat=5):
        env = LayerSplitVectorEnv(params, example_source, 1)
        options = {"split_point": int(split_point)}
        if params.link_dynamics == "constant":
            options["link_state"] = float(link_state)
        obs_1I, _ = env.reset(seed=0, options=options)
        chance, value = 1.0, 0.0
        for step, action in enumerate(actions):
            if step:  # Q is that of the first action
                with torch.no_grad():
                    logits = net.policy_outputs(torch.from_numpy(obs_1I))
                chance *= torch.softmax(logits, -1)[0, action].item()
            obs_1I, reward, *_ = env.step(np.array([action]))
            value += 0.99**step * net.rewards(reward.astype(np.float32))[0]
        q_A[actions[0]] += chance * value
    policy_A = np.exp(rows.log_probs_TNA[0, 0])
    algo.stop()
    assert policy_A.max() > 0.5  # else every policy would do
    # Down and up again changes a drifting link by 2.5e-7; observations are float32.
    assert rows.values_TN[0, 0] == pytest.approx(policy_A @ q_A, abs=2e-4)
    np.testing.assert_allclose(rows.advantages_TNA[0, 0], q_A - policy_A @ q_A, atol=2e-4)


def test_its_expectation_over_link_paths_is_the_policys_own_value():
    """All paths of a two-state Markov link, weighted, against Bellman's equation for the policy."""
    rng = np.random.default_rng(0)
    steps, split_points, states, discount = 4, 3, 2, 0.9
    kernel = np.array([[0.7, 0.3], [0.2, 0.8]])
    reward_SP = rng.normal(size=(states, split_points))
    policy_TSPA = rng.dirichlet(np.ones(3), size=(steps, states, split_points))
    targets_PA = np.clip(np.arange(3)[:, None] + [-1, 0, 1], 0, 2)
    v_SP = np.zeros((states, split_points))
    for t in reversed(range(steps)):
        arrived_SP = kernel @ (reward_SP + discount * v_SP)
        q_SPA = arrived_SP[:, targets_PA]
        v_SP = (policy_TSPA[t] * q_SPA).sum(-1)
    paths = np.array(list(itertools.product(range(states), repeat=steps)))  # from state 0
    path_T1N = np.vstack([np.zeros(len(paths), int), paths.T])
    chances_N = kernel[path_T1N[:-1], path_T1N[1:]].prod(0)
    ended_TN = np.zeros((steps, len(paths)), bool)
    ended_TN[-1] = True
    q_TNPA = action_values(
        rewards_TNPA=reward_SP[path_T1N[1:]][..., targets_PA],
        policy_TNPA=policy_TSPA[np.arange(steps)[:, None], path_T1N[:-1]],
        ends_TNP=np.full((steps + 1, len(paths), split_points), 1e6),  # never asked for
        terminated_TN=ended_TN,
        valid_TN=np.ones_like(ended_TN),
        targets_PA=targets_PA,
        discount=discount,
    )
    assert chances_N.sum() == pytest.approx(1)
    np.testing.assert_allclose(np.einsum("n,npa->pa", chances_N, q_TNPA[0]), q_SPA[0], rtol=1e-12)


def test_a_path_that_is_cut_goes_on_with_what_its_end_is_worth():
    found = action_values(
        rewards_TNPA=np.ones((3, 1, 2, 3)),
        policy_TNPA=np.full((3, 1, 2, 3), 1 / 3),
        ends_TNP=np.arange(8.0).reshape(4, 1, 2),
        terminated_TN=np.zeros((3, 1), bool),
        valid_TN=np.array([[True], [False], [True]]),
        targets_PA=np.array([[0, 0, 1], [0, 1, 1]]),
        discount=0.5,
    )
    np.testing.assert_allclose(found[2, 0, 0], [4, 4, 4.5])  # 1 + half of 6, 6 and 7
    np.testing.assert_allclose(found[0, 0, 0], [2, 2, 2.5])  # 1 + half of 2, 2 and 3


def test_on_a_constant_link_with_a_deterministic_policy_nothing_varies():
    """Every env that stands alike gets the same advantages, and V is the return of its episode."""
    params = problem(start_split_points=(4, 4), link_low_K=np.array([0.2 - 1e-9]))
    params = replace(params, link_high_K=np.array([0.2]))
    algo = built(params)
    learner = algo.learner_group._learner
    sharpened(learner.net, 1e5)
    algo.env_runner.module.load_state_dict(learner.net.state_dict(), strict=False)
    (rollout,) = algo.env_runner.sample()
    learner.make_batch([rollout])
    rows = learner._hindsight.rows(
        learner.net, rollout.obs_TNI, rollout.terminated_TN, rollout.valid_TN
    )
    algo.stop()
    assert (np.ptp(rows.advantages_TNA, axis=1) == 0).all()
    taken = np.take_along_axis(rows.advantages_TNA, rollout.actions_TN[..., None], 2)[..., 0]
    np.testing.assert_allclose(taken[rollout.valid_TN], 0, atol=1e-6)
    scaled = learner.net.rewards(rollout.rewards_TN[:5])
    returns = (0.99 ** np.arange(5) @ scaled.astype(np.float64)).tolist()
    assert rows.values_TN[0].tolist() == pytest.approx(returns, abs=1e-5)


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.slow
def test_lean_and_stock_compute_the_same(cut):
    """Also where updates of 8 steps an env cut 5-step episodes, and the critic stands in."""
    params = problem(link_dynamics="iid")
    sizes = {"steps_per_update": 32, "minibatch_size": 16} if cut else {}
    stock = built(params, engine="stock", **sizes)
    lean = built(params, **sizes)
    learner, own = stock.learner_group._learner, lean.learner_group._learner
    module = learner.module[DEFAULT_MODULE_ID].unwrapped()
    own.net.load_state_dict(module.state_dict())
    episodes = stock.env_runner.sample()
    batch = learner._learner_connector(
        rl_module=learner.module, batch={}, episodes=episodes, shared_data={}
    )[DEFAULT_MODULE_ID]
    valid = batch[Columns.LOSS_MASK].bool()
    assert own._hindsight.bootstraps == learner.hindsight.bootstraps == cut
    own.net.rewards.load_state_dict(module.rewards.state_dict())
    ends = np.flatnonzero(~valid)
    found = []
    for begin, end in zip([0, *ends + 1], ends, strict=False):  # each episode as its own rollout
        rows = own._hindsight.rows(
            own.net,
            batch[Columns.OBS].numpy()[begin : end + 1, None],
            batch[Columns.TERMINATEDS].bool().numpy()[begin:end, None],
            np.ones((end - begin, 1), bool),
        )
        found.append((rows.advantages_TNA[:, 0], rows.log_probs_TNA[:, 0], rows.values_TN[:, 0]))
    stock.stop()
    lean.stop()
    advantages, log_probs, values = map(np.concatenate, zip(*found, strict=True))
    np.testing.assert_allclose(
        batch[Postprocessing.ADVANTAGES][valid], standardised_over_actions(advantages), atol=1e-5
    )
    np.testing.assert_allclose(batch[ALL_LOG_PROBS][valid], log_probs, atol=1e-5)
    np.testing.assert_allclose(batch[Postprocessing.VALUE_TARGETS][valid], values, atol=1e-5)


def test_an_update_asks_the_source_once():
    asked = []

    def counted(p, links):
        asked.append(len(p))
        return example_source(p, links)

    algo = built(problem(), source=as_source(counted, quantity="ppl"))
    (rollout,) = algo.env_runner.sample()
    asked.clear()
    algo.learner_group._learner.make_batch([rollout])
    algo.stop()
    assert asked == [40 * 10]  # steps times split points


def test_the_critic_learns_only_where_rollouts_are_cut():
    for steps, moves in ((40, False), (32, True)):
        algo = built(problem(), steps_per_update=steps, minibatch_size=16)
        critic = algo.learner_group._learner.net.critic
        before = critic[0].weight.detach().clone()
        algo.train()
        after = critic[0].weight.detach().clone()
        algo.stop()
        assert torch.equal(before, after) != moves


def test_dqn_learns_what_every_action_would_have_led_to():
    params = problem(link_dynamics="iid")
    algo = built(params, algorithm="dqn", steps_per_update=20, num_envs=4, learning_starts=20)
    (rollout,) = algo.env_runner.sample()
    transitions = algo._transitions(rollout)
    algo.stop()
    taken_BC = rollout.actions_TN[rollout.valid_TN][:, None]
    assert transitions.actions_BC.tolist() == [[0, 1, 2]] * rollout.steps
    rewards = np.take_along_axis(transitions.rewards_BC, taken_BC, 1)[:, 0]
    links_N1 = rollout.obs_TNI[1:][rollout.valid_TN][:, :1].astype(float)
    ppl_PN = [example_source(np.full(len(links_N1), p), links_N1) for p in range(1, 11)]
    mean_N = -(np.mean(ppl_PN, axis=0) / 16 + params.cost_P.mean())
    np.testing.assert_allclose(rewards + mean_N, rollout.rewards_TN[rollout.valid_TN], rtol=1e-6)
    led = np.take_along_axis(transitions.next_obs_BCI, taken_BC[..., None], 1)[:, 0]
    np.testing.assert_allclose(led, rollout.obs_TNI[1:][rollout.valid_TN], rtol=1e-6)
    assert (transitions.next_obs_BCI[..., 0] == led[:, None, 0]).all()  # one link for all


def test_dqns_loss_is_least_at_the_mean_of_skewed_targets():
    """Huber's is least elsewhere: it would rank actions by neither mean nor median."""
    algo = built(problem(), algorithm="dqn", steps_per_update=20, learning_starts=20)
    learner = algo.learner_group._learner
    targets = torch.tensor([[0.0], [0.0], [0.0], [12.0]])
    values = torch.linspace(0, 6, 61)
    features = torch.zeros(4, learner.net.actor_features)
    layer = learner._layers[-1]
    losses = []
    for value in values:
        with torch.no_grad():
            layer.weight.zero_()
            layer.bias.fill_(value)
            losses.append(learner.loss(features, torch.zeros(4, 1, dtype=torch.long), targets))
    algo.stop()
    assert values[int(torch.stack(losses).argmin())].item() == pytest.approx(3)


@pytest.mark.parametrize("engine", ["lean", "stock"])
@pytest.mark.parametrize("algorithm", ["a2c", "dqn"])
@pytest.mark.slow
def test_the_others_train_in_both_engines(algorithm, engine):
    sizes = {"steps_per_update": 20, "learning_starts": 20} if algorithm == "dqn" else {}
    algo = built(problem(), algorithm=algorithm, engine=engine, **sizes)
    before = [weight.copy() for weight, _ in algo.get_module().policy_arrays()[0]]
    algo.train()
    after = [weight for weight, _ in algo.get_module().policy_arrays()[0]]
    algo.stop()
    assert all(np.isfinite(weight).all() for weight in after)
    assert not np.array_equal(before[-1], after[-1])


def test_under_drift_the_link_follows_the_direct_way():
    params = problem(drift_per_layer=DRIFT)
    obs_MI = np.array([[0.2, 3, 1]], np.float32)
    everywhere_PI = at_every_place(params, obs_MI)[0]
    assert everywhere_PI[:, 1].tolist() == list(range(1, 11))
    assert everywhere_PI[:, 2].tolist() == [1] * 10
    links = [0.2 * (1 + DRIFT) ** 2, 0.2 * (1 + DRIFT), 0.2, 0.2 * (1 - DRIFT)]
    np.testing.assert_allclose(everywhere_PI[:4, 0], links, rtol=1e-6)


def test_at_the_walls_actions_lead_where_the_env_leads():
    params = problem()
    for split_point in (1, 10):
        obs_MI = np.array([[0.1, split_point, 0]], np.float32)
        led, rewards = steps_of_all_actions(params, example_source, obs_MI, obs_MI)
        index_A = targets_of_actions(params)[:, split_point - 1]
        assert led[0, :, 1].tolist() == (index_A + 1).tolist()
        env_A = [played(params, split_point, 0.1, [action])[0] for action in range(3)]
        np.testing.assert_allclose(np.diff(rewards[0]), np.diff(env_A), atol=1e-6)
        np.testing.assert_allclose(arrival_rewards(params, example_source, led)[0], env_A)


def test_a_source_that_measures_is_not_asked_for_every_split_point(tmp_path):
    source = MeasuredSource(example_source, (1, 10), [np.linspace(0, 0.3, 5)])
    with pytest.raises(UserError, match="override advantages of the agent"):
        train(example_params(), source, TrainConfig(total_steps=400), 0, tmp_path)
