"""The settings of a training: algorithm, preset, seeds, and every hyper-parameter by name.

Light on purpose: no Ray, no torch, so that an experiment file is checked before either is loaded.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from raysplit.base.config import Config
from raysplit.base.errors import UserError, suggest
from raysplit.base.explain import explain
from tuning.presets import TUNED, TUNED_HINDSIGHT, Algorithm

Preset = Literal["paper", "tuned"]
Engine = Literal["lean", "stock"]
Rewards = Literal["surrogate", "measured", "algorithm_1"]
Advantages = Literal["gae", "hindsight"]
Targets = Literal["sampled", "hindsight"]
Loss = Literal["huber", "mse"]

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
# A single value, or (first, last): the value then moves linearly over the run.
Rate = Positive | tuple[Positive, Positive]
Coefficient = NonNegative | tuple[NonNegative, NonNegative]


def _different(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds are {list(seeds)}; name at least one, and each only once")
    return seeds


Seeds = Annotated[tuple[Annotated[int, Field(ge=0)], ...], AfterValidator(_different)]
"""At least one seed, each once."""


HINDSIGHT_FIELD: dict[Algorithm, str] = {
    "ppo": "advantages",
    "a2c": "advantages",
    "dqn": "targets",
}
"""The hyper-parameter that asks for hindsight."""


class Hyperparameters(Config):
    """What the three algorithms share.

    An update learns from `steps_per_update` env steps, spread evenly over `num_envs` parallel envs
    (in each env runner).
    `scale_observations` maps each bounded observation to [-1, 1]; `scale_rewards` gives rewards
    mean 0 and standard deviation 1 (`tuning.rllib.reward_scaling`). `step_seen_by` says who sees
    the index of the step within the episode, besides what the problem itself shows: nobody, the
    critic alone (a value without the number of steps that remain is an average over all of them),
    or the actor too. `link_knots` adds hat functions to the networks' inputs
    (`tuning.rllib.features`): so many over the range of each link coordinate, and one for every
    split point; 0 adds none.
    """

    learning_rate: Rate
    steps_per_update: Count
    discount: Fraction = 0.99
    max_gradient_norm: Positive = 0.5
    hidden_sizes: tuple[Count, ...] = (64, 64)
    activation: Literal["tanh", "relu"] = "tanh"
    scale_observations: bool = False
    scale_rewards: bool = False
    link_knots: Annotated[int, Field(ge=0, le=1_000)] = 0
    step_seen_by: Literal["nobody", "critic", "all"] = "nobody"
    num_envs: Count = 20

    @model_validator(mode="after")
    def _knots_fit(self) -> Self:
        if self.link_knots == 1:
            raise ValueError("link_knots is 1 but a range has two ends; use 0, or 2 and more")
        if self.link_knots and not (self.scale_observations and self.activation == "relu"):
            raise ValueError(
                f"link_knots is {self.link_knots}, which needs scale_observations: true and "
                "activation: relu; set them, or link_knots to 0"
            )
        return self


class PPOHyperparameters(Hyperparameters):
    """Proximal policy optimisation (Schulman et al. 2017). Defaults: the paper's Table III.

    `advantages`: `gae` estimates them from the sampled rewards; `hindsight` computes those of all
    actions along the link path of each episode (`tuning.rllib.hindsight`), and needs a source that
    answers any setting at no cost.
    What the table leaves open (10 epochs, value coefficient 0.5, no entropy bonus, gradient norm
    0.5, 64 x 64 tanh, Adam's epsilon 1e-5) is the default of Stable-Baselines3, which the authors
    used.
    """

    learning_rate: Rate = 3e-4
    advantages: Advantages = "gae"
    gae_lambda: Fraction = 0.95
    clip_range: Positive = 0.2
    steps_per_update: Count = 400
    minibatch_size: Count = 100
    epochs: Count = 10
    value_coefficient: NonNegative = 0.5
    entropy_coefficient: Coefficient = 0.0
    adam_epsilon: Positive = 1e-5

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.minibatch_size > self.steps_per_update:
            raise ValueError(
                f"minibatch_size is {self.minibatch_size} but an update has only "
                f"{self.steps_per_update} steps; lower it or raise steps_per_update"
            )
        return self


class A2CHyperparameters(Hyperparameters):
    """Advantage actor-critic: one full-batch step per update, with RMSprop.

    `advantages` are PPO's.
    The paper gives no numbers; the defaults are Stable-Baselines3's (advantages as they are), on 20
    parallel envs. Standardised advantages make the entropy bonus mean the same in every problem.
    """

    learning_rate: Rate = 7e-4
    advantages: Advantages = "gae"
    gae_lambda: Fraction = 1.0
    steps_per_update: Count = 100
    standardise_advantages: bool = False
    value_coefficient: NonNegative = 0.5
    entropy_coefficient: Coefficient = 0.0
    rmsprop_epsilon: Positive = 1e-5
    rmsprop_smoothing: Fraction = 0.99


class DQNHyperparameters(Hyperparameters):
    """Deep Q-learning with a replay buffer and a target network.

    The paper gives no numbers; the defaults are Stable-Baselines3's (no double Q, uniform replay),
    on 20 parallel envs: an update is a round of `steps_per_update` env steps and, after it, one
    gradient step for every `steps_per_gradient_step` of them. `targets`: `sampled` learns the value
    of the action that was taken; `hindsight` that of all actions over the link that came next.
    `loss`: `mse` learns the mean, which a value is, and `huber` something between mean and median
    where the link's draws make rewards skewed.
    """

    learning_rate: Rate = 1e-4
    max_gradient_norm: Positive = 10.0
    activation: Literal["tanh", "relu"] = "relu"
    targets: Targets = "sampled"
    loss: Loss = "huber"
    replay_capacity: Count = 1_000_000
    learning_starts: Count = 100
    steps_per_update: Count = 20
    steps_per_gradient_step: Positive = 4.0
    minibatch_size: Count = 32
    target_update_steps: Count = 10_000
    exploration_fraction: Fraction = 0.1
    final_epsilon: Fraction = 0.05

    @model_validator(mode="after")
    def _has_no_critic(self) -> Self:
        if self.step_seen_by == "critic":
            raise ValueError(
                "step_seen_by is 'critic' but DQN has one network; use 'all' or 'nobody'"
            )
        return self

    @model_validator(mode="after")
    def _each_round_learns(self) -> Self:
        if self.steps_per_gradient_step > self.steps_per_update:
            raise ValueError(
                f"steps_per_gradient_step is {self.steps_per_gradient_step!r} but an update has "
                f"only {self.steps_per_update} steps; lower it or raise steps_per_update"
            )
        return self


HYPERPARAMETERS: dict[Algorithm, type[Hyperparameters]] = {
    "ppo": PPOHyperparameters,
    "a2c": A2CHyperparameters,
    "dqn": DQNHyperparameters,
}


def is_hindsight(settings: Hyperparameters) -> bool:
    """Tell whether all actions are learned from, over the link that was met."""
    if isinstance(settings, DQNHyperparameters):
        return settings.targets == "hindsight"
    assert isinstance(settings, (PPOHyperparameters, A2CHyperparameters))
    return settings.advantages == "hindsight"


class TrainConfig(Config):
    """An agent of an experiment: an entry of its `agents`.

    Attributes:
        algorithm: ppo, a2c or dqn.
        preset: `paper` follows Table III; `tuned` is made for this problem (docs/learning.md).
        engine: `lean` is this project's fast runner and learner inside RLlib; `stock` is RLlib's.
        seeds: One agent is trained for each.
        total_steps: Env steps an agent is trained for, counted without resets.
        num_env_runners: Remote processes that step envs; 0 steps them in the learner's process.
        checkpoint_every_steps: Env steps between checkpoints: the most that a killed run repeats.
        rewards: Where perplexities come from while training. `surrogate`: the run's own.
            `measured`: the language model, each setting of measuring.reward_grid_points once.
            `algorithm_1`: measured for `true_steps`, then a surrogate fitted on those answers.
        true_steps: Only `algorithm_1`: T of Algorithm 1, in env steps.
        overrides: Hyper-parameters that differ from the preset, by name.
    """

    algorithm: Algorithm = "ppo"
    preset: Preset = "tuned"
    engine: Engine = "lean"
    seeds: Seeds = (0, 1, 2, 3, 4)
    total_steps: Count = 24_000
    num_env_runners: Annotated[int, Field(ge=0)] = 0
    checkpoint_every_steps: Count = 4_000
    rewards: Rewards = "surrogate"
    true_steps: Count = 4_000
    overrides: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _measuring_stays_here(self) -> Self:
        if self.rewards != "surrogate" and self.num_env_runners:
            raise ValueError(
                f"rewards is '{self.rewards}' but num_env_runners is {self.num_env_runners}: the "
                "measuring service stays in one process; set num_env_runners to 0"
            )
        return self

    @model_validator(mode="after")
    def _hands_over(self) -> Self:
        if self.rewards == "algorithm_1":
            self.check_hand_over(self.true_steps)
        return self

    def check_hand_over(self, true_steps: int) -> None:
        """Refuse an Algorithm 1 that would measure to the end.

        Raises:
            UserError: It would.
        """
        if true_steps >= self.total_steps:
            raise UserError(
                f"true_steps is {true_steps} but the training has {self.total_steps} steps: "
                "no surrogate would ever take over; lower it"
            )

    @model_validator(mode="after")
    def _hyperparameters_fit(self) -> Self:
        settings = self.hyperparameters()
        if is_hindsight(settings):
            self._check_hindsight()
        envs = settings.num_envs * max(1, self.num_env_runners)
        if settings.steps_per_update % envs:
            raise ValueError(
                f"steps_per_update is {settings.steps_per_update} but must be a multiple of all "
                f"parallel envs ({envs}); change it, num_envs or num_env_runners"
            )
        return self

    def hyperparameters(self) -> Hyperparameters:
        """Return the preset's hyper-parameters with this section's overrides applied.

        Raises:
            UserError: An override's name is unknown or its value is out of range.
        """
        kind = HYPERPARAMETERS[self.algorithm]
        for name in self.overrides:
            if name not in kind.model_fields:
                hint = (
                    suggest(name, kind.model_fields) or f"; it has {', '.join(kind.model_fields)}"
                )
                raise UserError(f"{self.algorithm} has no hyper-parameter '{name}'{hint}")
        try:
            return kind(**self._preset() | self.overrides)
        except ValidationError as error:
            raise UserError(f"{self.algorithm}: {explain(error, kind)}") from error

    def _preset(self) -> dict[str, Any]:
        """What differs from `paper`. An LLM is not asked for what no episode visits."""
        if self.preset == "paper":
            return {}
        name = HINDSIGHT_FIELD[self.algorithm]
        default = "hindsight" if self.rewards == "surrogate" else ""
        chosen = self.overrides.get(name, default) == "hindsight"
        return TUNED[self.algorithm] | (TUNED_HINDSIGHT[self.algorithm] if chosen else {})

    def _check_hindsight(self) -> None:
        name = HINDSIGHT_FIELD[self.algorithm]
        if self.rewards != "surrogate":
            raise ValueError(
                f"{name}: hindsight asks for every split point over every link state, and rewards "
                f"is '{self.rewards}': the language model would be asked; leave out one of them"
            )
        if "gae_lambda" in self.overrides:
            raise ValueError(
                "gae_lambda goes with advantages: gae; set that too, or leave gae_lambda out"
            )
