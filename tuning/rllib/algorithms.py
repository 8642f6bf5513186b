"""From a training section to an RLlib algorithm: every setting that matters is named here.

RLlib's defaults are made for other problems (PPO: 4000 steps per update, no gradient clipping, a
KL penalty, two remote runners), so nothing is left to them.
"""

from __future__ import annotations

from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.dqn import DQN, DQNConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from envs.params import LayerSplitParams
from tuning.rllib.a2c import A2CConfig, LeanA2CLearner, StockA2CLearner
from tuning.rllib.dqn import LeanDQN, LeanDQNLearner
from tuning.rllib.learner import LeanPPOLearner
from tuning.rllib.module import ActorCritic, QNetwork
from tuning.rllib.runner import LeanEnvRunner
from tuning.rllib.stock import StockDQNLearner, StockPPOLearner
from tuning.settings import (
    A2CHyperparameters,
    DQNHyperparameters,
    Hyperparameters,
    PPOHyperparameters,
    TrainConfig,
    is_hindsight,
)


def algorithm_config(
    config: TrainConfig,
    *,
    env: str,
    env_config: dict[str, Any] | None = None,
    actor_inputs: int,
    critic_inputs: int,
    knots: tuple[int, ...] = (),
    seed: int,
) -> AlgorithmConfig:
    """Return the RLlib configuration of one training run.

    Args:
        config: The training section.
        env: Name of a vector env (NEXT_STEP autoreset), registered with gymnasium or Tune.
        env_config: Arguments of its creator.
        actor_inputs: How many leading columns of an observation the policy sees.
        critic_inputs: How many the value function sees.
        knots: Of each leading column (`tuning.rllib.features`); the others have none.
        seed: Of networks, envs, exploration and shuffles.
    """
    settings = config.hyperparameters()
    algorithm = _algorithm(settings, config)
    if is_hindsight(settings) and not isinstance(settings, DQNHyperparameters):
        assert env_config is not None, "hindsight needs the problem"
        if _plays_whole_episodes(settings, config, env_config["params"]):
            algorithm.vf_loss_coeff = 0.0  # no value is asked for
    if config.engine == "lean":
        _make_lean(algorithm)
    model_config = {
        "actor_inputs": actor_inputs,
        "critic_inputs": critic_inputs,
        "knots": knots,
        **_model_config(settings, config.total_steps),
    }
    module = QNetwork if isinstance(settings, DQNHyperparameters) else ActorCritic
    return (
        algorithm.api_stack(
            enable_rl_module_and_learner=True, enable_env_runner_and_connector_v2=True
        )
        .framework("torch")
        .environment(env=env, env_config=env_config or {}, disable_env_checking=True)
        .env_runners(
            num_env_runners=config.num_env_runners,
            num_envs_per_env_runner=settings.num_envs,
            gym_env_vectorize_mode="vector_entry_point",
            # A remote runner may wait for a language model to be measured.
            sample_timeout_s=None,
            num_cpus_per_env_runner=1,
        )
        .learners(num_learners=0, num_gpus_per_learner=0)
        .resources(num_cpus_for_main_process=1)
        .rl_module(rl_module_spec=RLModuleSpec(module_class=module, model_config=model_config))
        .training(
            gamma=settings.discount,
            lr=schedule(settings.learning_rate, config.total_steps),
            grad_clip=settings.max_gradient_norm,
            grad_clip_by="global_norm",
        )
        .reporting(min_time_s_per_iteration=None, min_sample_timesteps_per_iteration=400)
        .debugging(seed=seed, log_level="ERROR", log_sys_usage=False)
    )


def _algorithm(settings: Hyperparameters, config: TrainConfig) -> AlgorithmConfig:
    match settings:
        case PPOHyperparameters():
            return _ppo(settings, config)
        case A2CHyperparameters():
            return _a2c(settings, config)
        case DQNHyperparameters():
            return _dqn(settings, config)
        case _:
            raise AssertionError(settings)


def _plays_whole_episodes(
    settings: Hyperparameters, config: TrainConfig, params: LayerSplitParams
) -> bool:
    """Tell whether the rollouts of an update end where episodes do."""
    envs = settings.num_envs * max(1, config.num_env_runners)
    return settings.steps_per_update // envs % params.episode_steps == 0


def _model_config(settings: Hyperparameters, total_steps: int) -> dict[str, Any]:
    """Return what the networks take from the hyper-parameters (`tuning.rllib.module`)."""
    return {
        "hidden_sizes": settings.hidden_sizes,
        "activation": settings.activation,
        "scale_observations": settings.scale_observations,
        "scale_rewards": settings.scale_rewards,
        **_exploration(settings, total_steps),
    }


def _make_lean(algorithm: AlgorithmConfig) -> None:
    """Take the lean runner, and leave out the connectors that nothing would call."""
    algorithm.env_runners(
        env_runner_cls=LeanEnvRunner, add_default_connectors_to_module_to_env_pipeline=False
    )
    if not isinstance(algorithm, DQNConfig):  # its learner insists on them
        algorithm.learners(add_default_connectors_to_learner_pipeline=False)


def schedule(value: float | tuple[float, float], total_steps: int) -> Any:  # noqa: ANN401
    """Return RLlib's form of a constant, or of a straight line over the run."""
    return [[0, value[0]], [total_steps, value[1]]] if isinstance(value, tuple) else value


def _ppo(settings: PPOHyperparameters, config: TrainConfig) -> AlgorithmConfig:
    learner = LeanPPOLearner if config.engine == "lean" else StockPPOLearner
    return (
        PPOConfig()
        .learners(
            learner_class=learner,
            learner_config_dict={
                "adam_epsilon": settings.adam_epsilon,
                "hindsight": settings.advantages == "hindsight",
            },
        )
        .training(
            train_batch_size_per_learner=settings.steps_per_update,
            minibatch_size=settings.minibatch_size,
            num_epochs=settings.epochs,
            shuffle_batch_per_epoch=True,
            lambda_=settings.gae_lambda,
            clip_param=settings.clip_range,
            vf_loss_coeff=settings.value_coefficient,
            vf_clip_param=float("inf"),
            entropy_coeff=schedule(settings.entropy_coefficient, config.total_steps),
            use_kl_loss=False,
        )
    )


def _a2c(settings: A2CHyperparameters, config: TrainConfig) -> AlgorithmConfig:
    learner = LeanA2CLearner if config.engine == "lean" else StockA2CLearner
    learner_settings = {
        "rmsprop_epsilon": settings.rmsprop_epsilon,
        "rmsprop_smoothing": settings.rmsprop_smoothing,
        "standardise_advantages": settings.standardise_advantages,
        "hindsight": settings.advantages == "hindsight",
    }
    return (
        A2CConfig()
        .learners(learner_class=learner, learner_config_dict=learner_settings)
        .training(
            train_batch_size_per_learner=settings.steps_per_update,
            lambda_=settings.gae_lambda,
            vf_loss_coeff=settings.value_coefficient,
            entropy_coeff=schedule(settings.entropy_coefficient, config.total_steps),
        )
    )


def _dqn(settings: DQNHyperparameters, config: TrainConfig) -> AlgorithmConfig:
    lean = config.engine == "lean"
    envs = settings.num_envs * max(1, config.num_env_runners)
    return (
        DQNConfig(algo_class=LeanDQN if lean else DQN)
        .env_runners(rollout_fragment_length=settings.steps_per_update // envs)
        .learners(
            learner_class=LeanDQNLearner if lean else StockDQNLearner,
            learner_config_dict={
                "adam_epsilon": 1e-8,
                "hindsight": settings.targets == "hindsight",
            },
        )
        .training(
            train_batch_size_per_learner=settings.minibatch_size,
            num_steps_sampled_before_learning_starts=settings.learning_starts,
            # RLlib: steps trained on per step sampled.
            training_intensity=settings.minibatch_size / settings.steps_per_gradient_step,
            target_network_update_freq=settings.target_update_steps,
            td_error_loss_fn=settings.loss,
            double_q=False,
            dueling=False,
            noisy=False,
            num_atoms=1,
            n_step=1,
            replay_buffer_config={
                "type": "EpisodeReplayBuffer",
                "capacity": settings.replay_capacity,
            },
        )
    )


def _exploration(settings: Hyperparameters, total_steps: int) -> dict[str, Any]:
    if not isinstance(settings, DQNHyperparameters):
        return {}
    explored = max(1, int(settings.exploration_fraction * total_steps))
    epsilon = [[0, 1.0], [explored, settings.final_epsilon]]
    return {"epsilon": epsilon}
