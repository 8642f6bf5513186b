"""The networks: who sees what, how inputs are scaled, and what exploration does."""

import gymnasium
import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from tuning.rllib.features import Features, input_scaling
from tuning.rllib.module import ActorCritic, QNetwork, linear_layers, mlp_output

OBSERVATIONS = gymnasium.spaces.Box(
    np.array([0.0, 1, 0], np.float32), np.array([1.2, 10, 5], np.float32)
)
MODEL = {
    "actor_inputs": 2,
    "critic_inputs": 3,
    "hidden_sizes": (8, 8),
    "activation": "tanh",
    "scale_observations": True,
    "scale_rewards": True,
    "epsilon": [[0, 1.0], [100, 0.1]],
}


def build(kind, **changes):
    torch.manual_seed(0)
    return RLModuleSpec(
        module_class=kind,
        observation_space=OBSERVATIONS,
        action_space=gymnasium.spaces.Discrete(3),
        model_config=MODEL | changes.pop("model", {}),
        **changes,
    ).build()


def observations(rows=16):
    rng = np.random.default_rng(0)
    drawn = rng.uniform(OBSERVATIONS.low, OBSERVATIONS.high, (rows, 3))
    return torch.from_numpy(drawn.astype(np.float32))


def test_the_critic_sees_the_step_and_the_actor_does_not():
    module = build(ActorCritic)
    obs, later = observations(), observations()
    later[:, 2] = 5 - later[:, 2]
    logits = module.forward_inference({Columns.OBS: obs})[Columns.ACTION_DIST_INPUTS]
    same = module.forward_inference({Columns.OBS: later})[Columns.ACTION_DIST_INPUTS]
    torch.testing.assert_close(logits, same, rtol=0, atol=0)
    values = module.compute_values({Columns.OBS: obs})
    assert (values != module.compute_values({Columns.OBS: later})).any()


def test_bounds_map_to_minus_one_and_one():
    module = build(ActorCritic)
    ends = torch.from_numpy(np.stack([OBSERVATIONS.low, OBSERVATIONS.high]))
    expected = torch.tensor([[-1.0, -1, -1], [1, 1, 1]])
    torch.testing.assert_close(module.features(ends), expected)


def test_inputs_stay_raw_without_scaling():
    module = build(ActorCritic, model={"scale_observations": False})
    torch.testing.assert_close(module.features(observations()), observations())


def test_unbounded_columns_are_left_alone():
    space = gymnasium.spaces.Box(
        np.array([-np.inf, 0], np.float32), np.array([np.inf, 4], np.float32)
    )
    centre, half_range = input_scaling(space, True)
    np.testing.assert_array_equal(centre, [0, 2])
    np.testing.assert_array_equal(half_range, [1, 2])


def test_a_hat_is_one_at_its_knot_and_falls_to_its_neighbours():
    features = Features(OBSERVATIONS, scaled=True, knots_I=(4, 10))
    assert [features.leading(columns) for columns in (1, 2, 3)] == [5, 16, 17]
    obs = torch.tensor([[0.4, 3.0, 0.0], [0.5, 10.0, 5.0], [-1.0, 1.0, 0.0], [9.0, 1.0, 0.0]])
    rows = features(obs)
    torch.testing.assert_close(rows[:, [0, 5, 16]], (obs - features.centre) / features.half_range)
    torch.testing.assert_close(
        rows[:, 1:5],  # knots at 0, 0.4, 0.8, 1.2; beyond them it is as at the border
        torch.tensor([[0, 1, 0, 0], [0, 0.75, 0.25, 0], [1, 0, 0, 0], [0, 0, 0, 1]]),
    )
    torch.testing.assert_close(rows[:2, 6:16], torch.eye(10)[[2, 9]])  # one for a split point


def test_columns_without_bounds_have_no_knots():
    space = gymnasium.spaces.Box(
        np.array([-np.inf, 0], np.float32), np.array([np.inf, 4], np.float32)
    )
    features = Features(space, scaled=True, knots_I=(3, 3))
    assert features(torch.tensor([[7.0, 4.0]])).tolist() == [[7.0, 1.0, 0.0, 0.0, 1.0]]


def test_features_are_a_relu_layer():
    features = Features(OBSERVATIONS, scaled=True, knots_I=(21, 10))
    obs = observations() * 1.5 - 0.2  # some lie beyond the bounds
    weight, bias, combine, offset = map(torch.from_numpy, features.as_relu_layer(2))
    scaled = ((obs - features.centre) / features.half_range)[:, :2]
    layer = (scaled @ weight.T + bias).relu() @ combine.T + offset
    torch.testing.assert_close(layer, features(obs)[:, : features.leading(2)], atol=2e-5, rtol=0)


def test_hidden_weights_start_orthogonal_and_the_policy_almost_uniform():
    module = build(ActorCritic)
    weight = linear_layers(module.actor)[1].weight.detach()
    torch.testing.assert_close(weight @ weight.T, 2 * torch.eye(8), atol=1e-5, rtol=0)
    logits = module.forward_inference({Columns.OBS: observations()})[Columns.ACTION_DIST_INPUTS]
    assert logits.detach().abs().max() < 0.1


def test_env_runners_hold_no_critic():
    runner_module = build(ActorCritic, inference_only=True)
    assert not any(name.startswith("critic") for name in runner_module.state_dict())
    learner_module = build(ActorCritic)
    runner_module.set_state(learner_module.get_state(inference_only=True))
    batch = {Columns.OBS: observations()}
    torch.testing.assert_close(
        runner_module.forward_inference(batch)[Columns.ACTION_DIST_INPUTS],
        learner_module.forward_inference(batch)[Columns.ACTION_DIST_INPUTS],
    )


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_the_functional_forward_equals_the_module(activation):
    module = build(ActorCritic, model={"activation": activation})
    x = observations()
    output = mlp_output(linear_layers(module.critic), x, module.activation)
    torch.testing.assert_close(output, module.critic(x), rtol=0, atol=0)


@pytest.mark.parametrize(("step", "epsilon"), [(0, 1.0), (50, 0.55), (100, 0.1), (500, 0.1)])
def test_exploration_is_epsilon_greedy(step, epsilon):
    module = build(QNetwork)
    batch = {Columns.OBS: observations()}
    logits = module.forward_exploration(batch, t=step)[Columns.ACTION_DIST_INPUTS]
    probabilities = torch.softmax(logits, 1)
    best = module.forward_inference(batch)[Columns.ACTION_DIST_INPUTS].argmax(1)
    expected = torch.full((16, 3), epsilon / 3)
    expected[torch.arange(16), best] += 1 - epsilon
    torch.testing.assert_close(probabilities, expected, atol=1e-6, rtol=0)


def test_no_action_has_probability_zero_logits_when_epsilon_is_zero():
    module = build(QNetwork, model={"epsilon": 0.0})
    logits = module.forward_exploration({Columns.OBS: observations()}, t=0)
    assert torch.isfinite(logits[Columns.ACTION_DIST_INPUTS]).all()
