"""The networks: separate actor and critic for PPO and A2C, one Q-network for DQN.

The columns of an observation come in the order link state, split point, step index. The actor reads
the first `actor_inputs` of them, the critic the first `critic_inputs`: with or without the step.

Shape suffixes: B batch, I observation columns, F features, U units, A actions.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import gymnasium
import numpy as np
import torch
import torch.nn.functional as F
from ray.rllib.algorithms.dqn.default_dqn_rl_module import (
    QF_PREDS,
    QF_TARGET_NEXT_PREDS,
)
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.utils import make_target_network
from ray.rllib.core.rl_module.apis import (
    InferenceOnlyAPI,
    QNetAPI,
    TargetNetworkAPI,
    ValueFunctionAPI,
)
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.rllib.utils.schedules.scheduler import Scheduler
from torch import Tensor, nn

from tuning.rllib.features import Features
from tuning.rllib.reward_scaling import RewardScaling

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "relu": torch.relu}


def mlp(sizes: Sequence[int], activation: str) -> nn.Sequential:
    """Return Linear layers of the given sizes with the activation between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])


def linear_layers(network: nn.Sequential) -> list[nn.Linear]:
    """Return an MLP's linear layers in order."""
    return [layer for layer in network if isinstance(layer, nn.Linear)]


def mlp_output(
    layers: list[nn.Linear], x: Tensor, activation: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return an MLP's output: what calling the module gives, without torch's bookkeeping."""
    for layer in layers[:-1]:
        x = activation(F.linear(x, layer.weight, layer.bias))
    return F.linear(x, layers[-1].weight, layers[-1].bias)


def initialise_orthogonally(network: nn.Sequential, head_gain: float) -> None:
    """Set orthogonal weights (gain sqrt 2, `head_gain` in the last layer) and zero biases."""
    linears = linear_layers(network)
    for linear in linears:
        gain = head_gain if linear is linears[-1] else math.sqrt(2)
        nn.init.orthogonal_(linear.weight, gain)
        nn.init.zeros_(linear.bias)


class SplitModule(TorchRLModule):
    """What both modules share: the scales of what they see, and the size of the networks.

    `model_config` holds actor_inputs, critic_inputs, hidden_sizes, activation, scale_observations,
    scale_rewards and, where observations have knots, knots: their number for each leading column.
    """

    def setup(self) -> None:
        """Build what turns observations into features, and rewards into what is learned from."""
        self.rewards = RewardScaling(enabled=self.model_config["scale_rewards"])
        self.features = Features(
            cast(gymnasium.spaces.Box, self.observation_space),
            scaled=self.model_config["scale_observations"],
            knots_I=self.model_config.get("knots", ()),
        )

    def network(self, columns: int, outputs: int) -> nn.Sequential:
        """Return a new MLP of the configured hidden sizes, for the leading columns' features."""
        sizes = (self.features.leading(columns), *self.model_config["hidden_sizes"], outputs)
        return mlp(sizes, self.model_config["activation"])

    @property
    def policy_network(self) -> nn.Sequential:
        """The network whose highest output is the action."""
        raise NotImplementedError

    def policy_outputs(self, obs_BI: Tensor) -> Tensor:
        """Return logits or action values, shape (B, A)."""
        return self.policy_network(self.features(obs_BI)[:, : self.actor_features])

    def behaviour_logits(self, obs_BI: Tensor, step: int) -> Tensor:
        """Return logits of the actions taken while exploring, after that many env steps, (B, A)."""
        raise NotImplementedError

    def policy_arrays(self) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray, np.ndarray]:
        """Return (weight, bias) of the policy's layers and the scaling of its inputs.

        Hats become one more layer, so that a policy is a plain network wherever it runs.
        """
        layers = [
            (linear.weight.detach().numpy().copy(), linear.bias.detach().numpy().copy())
            for linear in linear_layers(self.policy_network)
        ]
        columns = self.actor_inputs
        if self.actor_features > columns:
            weight_UI, bias_U, combine_FU, offset_F = self.features.as_relu_layer(columns)
            weight, bias = layers[0]
            layers[:1] = [(weight_UI, bias_U), (weight @ combine_FU, bias + weight @ offset_F)]
        centre_I, half_range_I = self.features.centre, self.features.half_range
        return layers, centre_I[:columns].numpy().copy(), half_range_I[:columns].numpy().copy()

    @property
    def activation(self) -> Callable[[Tensor], Tensor]:
        """The function between the layers."""
        return FUNCTIONS[self.model_config["activation"]]

    @property
    def actions(self) -> int:
        """The number of actions."""
        return int(cast(gymnasium.spaces.Discrete, self.action_space).n)

    @property
    def actor_inputs(self) -> int:
        """The number of observation columns the policy sees."""
        return self.model_config["actor_inputs"]

    @property
    def actor_features(self) -> int:
        """The number of features the policy sees."""
        return self.features.leading(self.actor_inputs)

    @property
    def critic_features(self) -> int:
        """The number of features the value function sees."""
        return self.features.leading(self.critic_inputs)

    @property
    def critic_inputs(self) -> int:
        """The number of observation columns the value function sees."""
        return self.model_config["critic_inputs"]


class ActorCritic(SplitModule, ValueFunctionAPI, InferenceOnlyAPI):
    """Separate policy and value networks; only the policy lives on the env runners."""

    def setup(self) -> None:
        """Build both networks."""
        super().setup()
        self.actor = self.network(self.actor_inputs, self.actions)
        self.critic = self.network(self.critic_inputs, 1)
        initialise_orthogonally(self.actor, 0.01)
        initialise_orthogonally(self.critic, 1.0)

    @property
    def policy_network(self) -> nn.Sequential:
        """The actor."""
        return self.actor

    def get_non_inference_attributes(self) -> list[str]:
        """Name what env runners do without."""
        return ["critic"]

    def behaviour_logits(self, obs_BI: Tensor, step: int) -> Tensor:
        """Return the policy's logits."""
        return self.policy_outputs(obs_BI)

    def _forward(self, batch: dict[str, Any], **_: object) -> dict[str, Tensor]:
        return {Columns.ACTION_DIST_INPUTS: self.policy_outputs(batch[Columns.OBS])}

    def compute_values(self, batch: dict[str, Any], embeddings: object = None) -> Tensor:
        """Return the values of the observations, shape (B,)."""
        seen_BF = self.features(batch[Columns.OBS])[:, : self.critic_features]
        return self.critic(seen_BF).squeeze(-1)


class QNetwork(SplitModule, InferenceOnlyAPI, TargetNetworkAPI, QNetAPI):
    """State-action values; explores epsilon-greedily, expressed as a categorical distribution.

    `model_config` also holds `epsilon`: a value, or RLlib's schedule [[step, value], ...].
    """

    def setup(self) -> None:
        """Build the network; the learner adds the target network."""
        super().setup()
        self.q_net = self.network(self.actor_inputs, self.actions)
        self.epsilon = Scheduler(self.model_config["epsilon"], framework="torch")

    @property
    def policy_network(self) -> nn.Sequential:
        """The Q-network, which is greedy in its values."""
        return self.q_net

    def get_non_inference_attributes(self) -> list[str]:
        """Name what env runners do without."""
        return ["target_net"]

    def make_target_networks(self) -> None:
        """Add a frozen copy of the network."""
        self.target_net = make_target_network(self.q_net)

    def get_target_network_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """Return the (main, target) pairs the learner synchronises."""
        return [(self.q_net, self.target_net)]

    def compute_q_values(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Return the main network's values of all actions, shape (B, A)."""
        return {QF_PREDS: self.policy_outputs(batch[Columns.OBS])}

    def forward_target(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Return the target network's values of all actions, shape (B, A)."""
        seen_BF = self.features(batch[Columns.OBS])[:, : self.actor_features]
        return {QF_PREDS: self.target_net(seen_BF)}

    def behaviour_logits(self, obs_BI: Tensor, step: int) -> Tensor:
        """Return the logarithm of the epsilon-greedy policy's probabilities."""
        self.epsilon.update(step)
        epsilon = float(self.epsilon.get_current_value())
        q_BA = self.policy_outputs(obs_BI)
        greedy_BA = F.one_hot(q_BA.argmax(1), self.actions)
        return (epsilon / self.actions + (1 - epsilon) * greedy_BA).log().clamp(min=-1e9)

    def _forward(self, batch: dict[str, Any], **_: object) -> dict[str, Tensor]:
        return {Columns.ACTION_DIST_INPUTS: self.policy_outputs(batch[Columns.OBS])}

    def _forward_exploration(
        self, batch: dict[str, Any], t: int = 0, **_: object
    ) -> dict[str, Tensor]:
        with torch.no_grad():
            return {Columns.ACTION_DIST_INPUTS: self.behaviour_logits(batch[Columns.OBS], t)}

    def _forward_train(self, batch: dict[str, Any], **_: object) -> dict[str, Tensor]:
        next_batch = {Columns.OBS: batch[Columns.NEXT_OBS]}
        output = self.compute_q_values(batch)
        output[QF_TARGET_NEXT_PREDS] = self.forward_target(next_batch)[QF_PREDS]
        return output
