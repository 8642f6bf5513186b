"""The lean runner and learner against definitions, gradients and RLlib's own batches."""

import dataclasses

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.evaluation.postprocessing import Postprocessing

from envs.example import example_params, example_source
from envs.sources import as_source
from tuning.rllib.algorithms import algorithm_config
from tuning.rllib.env import register_with_ray
from tuning.rllib.learner import TrainBatch
from tuning.rllib.local import quiet_rllib
from tuning.rllib.replay import Replay, Transitions
from tuning.rllib.reward_scaling import RewardScaling
from tuning.rllib.rollout import Rollout, advantages, standardised
from tuning.settings import TrainConfig

SMALL = {"num_envs": 4, "steps_per_update": 40, "minibatch_size": 16, "epochs": 2}


@pytest.fixture(autouse=True)
def _quiet():
    with quiet_rllib(0):
        yield


def algorithm(env_config=None, **changes):
    config = {"preset": "paper", "total_steps": 400, "overrides": SMALL} | changes
    env_config = env_config or {"params": example_params(), "source": example_source}
    return algorithm_config(
        TrainConfig(**config),
        env=register_with_ray(),
        env_config=env_config,
        actor_inputs=2,
        critic_inputs=2,
        seed=3,
    ).build_algo()


@pytest.fixture(scope="module")
def lean():
    """A lean PPO for tests that leave it as it is, apart from its weights."""
    with quiet_rllib(0):
        algo = algorithm()
        yield algo
        algo.stop()


def random_rollout(steps=12, envs=5, seed=0):
    """Episodes of random lengths, some truncated, each followed by the step that resets."""
    rng = np.random.default_rng(seed)
    ended, valid = np.zeros((2, steps, envs), bool)
    resets = np.zeros(envs, bool)
    for t in range(steps):
        valid[t] = ~resets
        resets = ended[t] = (rng.random(envs) < 0.3) & valid[t]
    return Rollout(
        obs_TNI=rng.random((steps + 1, envs, 2), np.float32),
        actions_TN=rng.integers(0, 3, (steps, envs)),
        log_probs_TN=np.full((steps, envs), -np.log(3), np.float32),
        rewards_TN=(rng.standard_normal((steps, envs)) * valid).astype(np.float32),
        terminated_TN=ended & (rng.random((steps, envs)) < 0.5),
        ended_TN=ended,
        valid_TN=valid,
    )


def advantage_by_definition(rollout, values, discount, gae_lambda, t, n):
    """Sum of (discount * lambda)^k * delta, walked forward from one step to its episode's end."""
    total, weight = 0.0, 1.0
    for s in range(t, len(rollout.rewards_TN)):
        future = 0.0 if rollout.terminated_TN[s, n] else discount * values[s + 1, n]
        total += weight * (rollout.rewards_TN[s, n] + future - values[s, n])
        if rollout.ended_TN[s, n]:
            break
        weight *= discount * gae_lambda
    return total


def test_advantages_equal_their_definition():
    rollout = random_rollout()
    values = np.random.default_rng(1).standard_normal(rollout.obs_TNI.shape[:2]).astype(np.float32)
    found, targets = advantages(rollout, values, 0.9, 0.8)
    assert rollout.ended_TN.any()
    assert (rollout.ended_TN & ~rollout.terminated_TN).any()
    for t, n in np.argwhere(rollout.valid_TN):
        expected = advantage_by_definition(rollout, values, 0.9, 0.8, t, n)
        assert found[t, n] == pytest.approx(expected, abs=1e-5)
        assert targets[t, n] == pytest.approx(expected + values[t, n], abs=1e-5)
    assert found.dtype == targets.dtype == np.float32


def test_lean_advantages_have_mean_0_and_std_1_over_valid_rows(lean):
    (rollout,) = lean.env_runner.sample()
    batch = lean.learner_group._learner.make_batch([rollout])
    assert not rollout.valid_TN.all()  # else this says nothing about padding
    assert len(batch.actions_BC) == rollout.steps == 40
    assert batch.advantages_BC.mean().item() == pytest.approx(0, abs=1e-5)
    assert batch.advantages_BC.std(correction=0).item() == pytest.approx(1, abs=1e-4)


def test_stock_advantages_have_mean_0_and_std_1_over_valid_rows():
    """RLlib standardises over the padding row it adds to each episode too (ray#57989)."""
    algo = algorithm(engine="stock")
    learner = algo.learner_group._learner
    batch = learner._learner_connector(
        rl_module=learner.module, batch={}, episodes=algo.env_runner.sample(), shared_data={}
    )[DEFAULT_MODULE_ID]
    algo.stop()
    valid = batch[Columns.LOSS_MASK].bool()
    found = batch[Postprocessing.ADVANTAGES]
    assert not valid.all()
    assert found[valid].mean().item() == pytest.approx(0, abs=1e-5)
    assert found[valid].std(correction=0).item() == pytest.approx(1, abs=1e-4)


def test_equal_advantages_standardise_to_zero():
    np.testing.assert_array_equal(standardised(np.full(4, 2.5, np.float32)), 0)


def test_rollouts_hold_the_envs_transitions(lean):
    (rollout,) = lean.env_runner.sample(force_reset=True)
    params = example_params()
    split_points = rollout.obs_TNI[..., 1]
    moved = np.clip(split_points[:-1] + rollout.actions_TN - 1, 1, params.max_split_point)
    valid = rollout.valid_TN
    np.testing.assert_array_equal(split_points[1:][valid], moved[valid])
    # Five steps and a reset, in every env at once.
    np.testing.assert_array_equal(valid[:, 0], [t % 6 != 5 for t in range(len(valid))])
    np.testing.assert_array_equal(rollout.ended_TN[:, 0], [t % 6 == 4 for t in range(len(valid))])
    np.testing.assert_array_equal(rollout.rewards_TN[~valid], 0)


def test_log_probabilities_are_those_of_the_acting_policy(lean):
    (rollout,) = lean.env_runner.sample()
    obs = torch.from_numpy(rollout.obs_TNI[:-1][rollout.valid_TN])
    logits = lean.get_module().forward_inference({Columns.OBS: obs})[Columns.ACTION_DIST_INPUTS]
    actions = torch.from_numpy(rollout.actions_TN[rollout.valid_TN])
    expected = torch.distributions.Categorical(logits=logits).log_prob(actions).detach()
    found = torch.from_numpy(rollout.log_probs_TN[rollout.valid_TN])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_the_same_seed_gives_the_same_rollouts():
    first, again = algorithm(), algorithm()
    for _ in range(2):
        (a,), (b,) = first.env_runner.sample(), again.env_runner.sample()
        np.testing.assert_array_equal(a.obs_TNI, b.obs_TNI)
        np.testing.assert_array_equal(a.actions_TN, b.actions_TN)
    first.stop()
    again.stop()


class SameStepEnv(VectorEnv):
    """Resets within the step that ends an episode."""

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(self, num_envs):
        self.num_envs = num_envs
        self.single_observation_space = gymnasium.spaces.Box(0, 1, (2,))
        self.single_action_space = gymnasium.spaces.Discrete(3)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)


def test_an_env_that_resets_in_the_same_step_is_refused():
    gymnasium.register("SameStep-v0", vector_entry_point=SameStepEnv)
    config = algorithm_config(
        TrainConfig(preset="paper"), env="SameStep-v0", actor_inputs=2, critic_inputs=2, seed=0
    )
    with pytest.raises(ValueError, match="NEXT_STEP"):
        config.build_algo()


def clipped_objective(log_probs, batch, clip):
    """Schulman et al. 2017, Eq. 7, as it is printed."""
    ratio = (log_probs - batch.log_probs_BC).exp()
    clipped = ratio.clamp(1 - clip, 1 + clip) * batch.advantages_BC
    return (batch.shares_BC * torch.min(ratio * batch.advantages_BC, clipped)).sum(1).mean()


@pytest.mark.parametrize("actions", [1, 3])
def test_policy_weights_give_the_gradient_of_the_clipped_objective(lean, actions):
    """Of the sampled action, or of all three with their probabilities as weights."""
    learner = lean.learner_group._learner
    rng = torch.Generator().manual_seed(0)
    rows = 200
    batch = TrainBatch(
        features_BF=torch.rand(rows, 2, generator=rng),
        actions_BC=torch.rand(rows, 3, generator=rng).argsort(1)[:, :actions],
        log_probs_BC=-torch.rand(rows, actions, generator=rng) - 0.5,
        shares_BC=torch.rand(rows, actions, generator=rng),
        advantages_BC=torch.randn(rows, actions, generator=rng),
        targets_B=torch.zeros(rows),
    )
    logits = learner.net.actor(batch.features_BF)
    log_probs = torch.log_softmax(logits, -1).gather(1, batch.actions_BC)
    params = list(learner.net.actor.parameters())
    objective = clipped_objective(log_probs, batch, 0.2)
    expected = torch.autograd.grad(-objective, params, retain_graph=True)
    found = torch.autograd.grad(learner.losses(batch)["total_loss"], params)
    weights = learner.policy_weights(log_probs.detach(), batch)
    assert 0.05 < (weights == 0).float().mean() < 0.95  # some are clipped, some are not
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_each_epoch_takes_every_row_once_in_another_order():
    rows = torch.arange(10.0)
    batch = TrainBatch(rows[:, None], rows[:, None].long(), *[rows[:, None]] * 3, rows)
    generator = torch.Generator().manual_seed(0)
    epochs = [
        torch.cat([part.targets_B for part in batch.shuffled(4, generator)]) for _ in range(2)
    ]
    assert all(sorted(epoch.tolist()) == rows.tolist() for epoch in epochs)
    assert epochs[0].tolist() != epochs[1].tolist() != rows.tolist()
    sizes = [len(part.targets_B) for part in batch.shuffled(4, generator)]
    assert sizes == [4, 4, 2]


def test_gradients_are_clipped_to_a_global_norm(lean):
    learner = lean.learner_group._learner
    learner.descend(1e4 * sum(param.sum() for param in learner._views))
    norm = learner._vector.grad.norm().item()
    assert norm == pytest.approx(0.5, rel=1e-4)


def test_loading_weights_into_the_module_loads_what_the_optimiser_steps(lean):
    learner = lean.learner_group._learner
    before = learner.net.get_state()
    learner.net.set_state({name: np.full_like(value, 2) for name, value in before.items()})
    vector = learner._vector.detach().clone()
    learner.net.set_state(before)
    torch.testing.assert_close(vector, torch.full_like(vector, 2))


def test_schedules_fall_linearly_over_the_run():
    falling = {"learning_rate": (1e-2, 1e-3), "entropy_coefficient": (0.1, 0.0)}
    sizes = SMALL | {"steps_per_update": 400, "minibatch_size": 400, "epochs": 1}
    algo = algorithm(total_steps=800, overrides=sizes | falling)
    learner = algo.learner_group._learner
    rates, coefficients = [], []
    for _ in range(3):
        algo.train()
        rates.append(float(learner.get_optimizer(DEFAULT_MODULE_ID).param_groups[0]["lr"]))
        schedule = learner.entropy_coeff_schedulers_per_module[DEFAULT_MODULE_ID]
        coefficients.append(float(schedule.get_current_value()))
    algo.stop()
    np.testing.assert_allclose(rates, [1e-2, 5.5e-3, 1e-3], rtol=1e-5)
    np.testing.assert_allclose(coefficients, [0.1, 0.05, 0.0], atol=1e-7)


def test_scaled_rewards_have_mean_0_and_std_1_in_the_first_batch_and_keep_that_scale():
    scaling = RewardScaling(enabled=True)
    first = np.array([1.0, 3.0, 5.0, 7.0], np.float32)
    scaling.calibrate(first)
    assert scaling(first).mean() == pytest.approx(0.0)
    assert scaling(first).std() == pytest.approx(1.0)
    scaling.calibrate(100 * first)
    assert scaling(np.float32([4.0])) == pytest.approx(0.0)
    torch.testing.assert_close(scaling(torch.tensor([4.0])), torch.zeros(1))


def test_equal_rewards_scale_to_zero():
    scaling = RewardScaling(enabled=True)
    scaling.calibrate(np.full(5, 3.0, np.float32))
    np.testing.assert_array_equal(scaling(np.full(2, 3.0, np.float32)), 0.0)


def test_rewards_stay_as_they_are_without_scaling():
    scaling = RewardScaling(enabled=False)
    rewards = np.array([1.0, 5.0], np.float32)
    scaling.calibrate(rewards)
    np.testing.assert_array_equal(scaling(rewards), rewards)


@pytest.mark.parametrize(
    ("name", "engine"), [("ppo", "lean"), ("a2c", "lean"), ("dqn", "lean"), ("ppo", "stock")]
)
@pytest.mark.slow
def test_with_scaled_rewards_another_unit_or_offset_changes_nothing(name, engine):
    """The same problem in another unit: 40 times the cost and the perplexity, plus a constant."""
    policies = []
    for factor, offset in ((1.0, 0.0), (40.0, -7.0)):
        params = example_params()
        params = dataclasses.replace(params, cost_P=params.cost_P * factor)

        def source(p, links, factor=factor, offset=offset):
            return factor * example_source(p, links) + offset

        algo = algorithm(
            algorithm=name,
            engine=engine,
            overrides={
                "scale_rewards": True,
                "num_envs": 4,
                "steps_per_update": 40,
                **({"minibatch_size": 20} if name == "ppo" else {}),
            },
            env_config={"params": params, "source": as_source(source, quantity="ppl")},
        )
        for _ in range(3):
            algo.train()
        policies.append(algo.get_module().policy_arrays()[0])
        algo.stop()
    for (weight, bias), (other_weight, other_bias) in zip(*policies, strict=True):
        np.testing.assert_allclose(weight, other_weight, atol=1e-3)
        np.testing.assert_allclose(bias, other_bias, atol=1e-3)


def test_replay_keeps_the_newest_transitions_and_survives_its_state():
    replay = Replay(capacity=60)
    rollouts = [random_rollout(seed=seed) for seed in range(3)]
    for rollout in rollouts:
        replay.add(Transitions.of(rollout))
    rewards = np.concatenate([rollout.rewards_TN[rollout.valid_TN] for rollout in rollouts])
    assert 60 < len(rewards) < 180
    drawn = replay.draw(2000, np.random.default_rng(0)).rewards_BC[:, 0]
    assert set(drawn.tolist()) == set(rewards[-60:].tolist())
    restored = Replay(capacity=60)
    restored.set_state(replay.get_state())
    again = restored.draw(2000, np.random.default_rng(0)).rewards_BC[:, 0]
    np.testing.assert_array_equal(again, drawn)
    for one in (replay, restored):
        one.add(Transitions.of(rollouts[0]))
    np.testing.assert_array_equal(
        replay.draw(50, np.random.default_rng(1)).obs_BI,
        restored.draw(50, np.random.default_rng(1)).obs_BI,
    )


def test_transitions_lead_to_where_the_episode_ended():
    rollout = random_rollout()
    transitions = Transitions.of(rollout)
    ends = np.argwhere(rollout.ended_TN)
    expected = rollout.obs_TNI[ends[:, 0] + 1, ends[:, 1]]
    ended = rollout.ended_TN[rollout.valid_TN]
    np.testing.assert_array_equal(transitions.next_obs_BCI[ended, 0], expected)


def test_dqn_targets_stop_at_the_end_of_an_episode():
    small = {"num_envs": 4, "steps_per_update": 4}
    algo = algorithm(algorithm="dqn", overrides=small)
    learner = algo.learner_group._learner
    transitions = Transitions.of(random_rollout())
    q = learner.net.forward_target({Columns.OBS: torch.from_numpy(transitions.next_obs_BCI[:, 0])})
    best = q["qf_preds"].detach().numpy().max(1)
    found = learner.targets(transitions).numpy()[:, 0]
    algo.stop()
    expected = transitions.rewards_BC[:, 0] + 0.99 * best * ~transitions.terminated_B
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert transitions.terminated_B.any()
