"""Settings, presets, and that every algorithm learns on an env whose best actions are known."""

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from pydantic import ValidationError

from envs.example import example_params
from tuning.rllib.a2c import A2C
from tuning.rllib.algorithms import algorithm_config, schedule
from tuning.rllib.local import quiet_rllib
from tuning.rllib.runner import LeanEnvRunner
from tuning.settings import HYPERPARAMETERS, TrainConfig, is_hindsight

pytestmark = pytest.mark.slow


class SidesEnv(VectorEnv):
    """Reward 1 for naming the third of [0, 1] that x lies in, at each of 5 steps."""

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012
    steps_per_episode = 5

    def __init__(self, num_envs):
        self.num_envs = num_envs
        high = np.array([1, self.steps_per_episode], np.float32)
        self.single_observation_space = gymnasium.spaces.Box(np.zeros(2, np.float32), high)
        self.single_action_space = gymnasium.spaces.Discrete(3)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.step_index = 0
        return self._observe(), {}

    def step(self, actions):
        if self.step_index == self.steps_per_episode:
            obs, info = self.reset()
            never = np.zeros(self.num_envs, bool)
            return obs, np.zeros(self.num_envs), never, never, info
        reward = (actions == best_action(self.x)).astype(float)
        self.step_index += 1
        ended = np.full(self.num_envs, self.step_index == self.steps_per_episode)
        return self._observe(), reward, ended, np.zeros(self.num_envs, bool), {}

    def _observe(self):
        self.x = self.np_random.random(self.num_envs, dtype=np.float32)
        return np.column_stack([self.x, np.full(self.num_envs, self.step_index, np.float32)])


def best_action(x):
    return np.minimum((3 * np.asarray(x)).astype(int), 2)


@pytest.fixture(scope="module", autouse=True)
def _sides():
    gymnasium.register("Sides-v0", vector_entry_point=SidesEnv)
    with quiet_rllib(0):
        yield
    del gymnasium.registry["Sides-v0"]


def sides_config(config, seed=0):
    hindsight = is_hindsight(config.hyperparameters())
    problem = {"params": example_params()} if hindsight else None
    return algorithm_config(
        config, env="Sides-v0", env_config=problem, actor_inputs=1, critic_inputs=2, seed=seed
    )


def share_of_best_actions(algo):
    x = np.linspace(0.01, 0.99, 99, dtype=np.float32)
    obs = np.column_stack([x, np.zeros_like(x)])
    import torch

    outputs = algo.get_module().forward_inference({"obs": torch.from_numpy(obs)})
    return (outputs["action_dist_inputs"].numpy(force=True).argmax(1) == best_action(x)).mean()


FAST = {
    "ppo": {"learning_rate": 3e-3},
    "a2c": {"learning_rate": 3e-3, "steps_per_update": 40, "entropy_coefficient": 0.02},
    "dqn": {"learning_rate": 3e-3, "target_update_steps": 200, "exploration_fraction": 0.5},
}
STEPS = {"ppo": 3_000, "a2c": 8_000, "dqn": 3_000}


@pytest.mark.parametrize(
    ("engine", "algorithm"),
    [
        ("lean", "ppo"),
        ("lean", "a2c"),
        ("lean", "dqn"),
        pytest.param("stock", "ppo", marks=pytest.mark.slow),
        # That RLlib's own engine runs these, too, tests/test_debugging.py shows.
        pytest.param("stock", "a2c", marks=[pytest.mark.slow, pytest.mark.thorough]),
        pytest.param("stock", "dqn", marks=[pytest.mark.slow, pytest.mark.thorough]),
    ],
)
def test_every_algorithm_learns_the_known_best_actions(algorithm, engine):
    config = TrainConfig(
        algorithm=algorithm,
        preset="paper",
        engine=engine,
        total_steps=STEPS[algorithm],
        overrides=FAST[algorithm],
    )
    algo = sides_config(config).build_algo()
    before, steps = share_of_best_actions(algo), 0
    while steps < config.total_steps:
        result = algo.train()
        steps = result["num_env_steps_sampled_lifetime"]
    after = share_of_best_actions(algo)
    algo.stop()
    assert before < 0.7
    # RLlib's replay buffer takes no seed: what stock DQN learns in so few steps varies.
    assert after > (0.75 if (algorithm, engine) == ("dqn", "stock") else 0.85)
    assert result["env_runners"]["episode_return_mean"] > 3.3  # random: 5 / 3


def test_paper_is_table_iii_and_sb3s_defaults():
    ppo = sides_config(TrainConfig(preset="paper"))
    assert ppo.lr == 3e-4
    assert ppo.gamma == 0.99
    assert ppo.clip_param == 0.2
    assert ppo.train_batch_size_per_learner == 400
    assert ppo.minibatch_size == 100
    assert ppo.lambda_ == 0.95
    assert ppo.num_epochs == 10
    assert ppo.vf_loss_coeff == 0.5
    assert ppo.entropy_coeff == 0.0
    assert ppo.grad_clip == 0.5
    assert ppo.learner_config_dict == {"adam_epsilon": 1e-5, "hindsight": False}
    assert not ppo.use_kl_loss
    assert ppo.vf_clip_param == float("inf")
    model = ppo.rl_module_spec.model_config
    assert (model["hidden_sizes"], model["activation"]) == ((64, 64), "tanh")


def test_papers_a2c_has_sb3s_defaults():
    a2c = sides_config(TrainConfig(algorithm="a2c", preset="paper"))
    assert (a2c.lr, a2c.gamma, a2c.lambda_) == (7e-4, 0.99, 1.0)
    assert (a2c.vf_loss_coeff, a2c.entropy_coeff, a2c.grad_clip) == (0.5, 0.0, 0.5)
    assert (a2c.num_epochs, a2c.minibatch_size, a2c.use_kl_loss) == (1, None, False)
    # 5 steps of each env an update.
    assert a2c.train_batch_size_per_learner == 5 * a2c.num_envs_per_env_runner
    assert a2c.learner_config_dict == {
        "rmsprop_epsilon": 1e-5,
        "rmsprop_smoothing": 0.99,
        "standardise_advantages": False,
        "hindsight": False,
    }
    model = a2c.rl_module_spec.model_config
    assert (model["hidden_sizes"], model["activation"]) == ((64, 64), "tanh")


def test_papers_dqn_has_sb3s_defaults():
    dqn = sides_config(TrainConfig(algorithm="dqn", preset="paper"))
    assert (dqn.lr, dqn.gamma, dqn.grad_clip) == (1e-4, 0.99, 10.0)
    assert dqn.replay_buffer_config["capacity"] == 1_000_000
    assert dqn.num_steps_sampled_before_learning_starts == 100
    assert dqn.train_batch_size_per_learner == 32
    assert dqn.training_intensity == 32 / 4  # a gradient step for every 4 env steps
    assert dqn.target_network_update_freq == 10_000
    assert (dqn.double_q, dqn.dueling, dqn.noisy) == (False, False, False)
    model = dqn.rl_module_spec.model_config
    assert model["epsilon"] == [[0, 1.0], [2_400, 0.05]]  # a tenth of 24,000
    assert (model["hidden_sizes"], model["activation"]) == ((64, 64), "relu")


@pytest.mark.parametrize("algorithm", ["ppo", "a2c", "dqn"])
@pytest.mark.parametrize("preset", ["paper", "tuned"])
def test_a_run_asks_for_one_cpu_and_no_remote_process(algorithm, preset):
    config = sides_config(TrainConfig(algorithm=algorithm, preset=preset))
    request = config.algo_class.default_resource_request(config)
    assert request.required_resources == {"CPU": 1}
    assert config.env_runner_cls is LeanEnvRunner
    assert config.num_learners == 0


def test_a_remote_runner_asks_for_one_more_cpu():
    config = sides_config(TrainConfig(num_env_runners=1))
    assert config.algo_class.default_resource_request(config).required_resources == {"CPU": 2}


def test_stock_runs_rllibs_own_runner():
    config = sides_config(TrainConfig(algorithm="a2c", engine="stock"))
    assert config.env_runner_cls is None
    assert config.algo_class is A2C


@pytest.mark.parametrize("algorithm", ["ppo", "a2c", "dqn"])
def test_every_hyperparameter_can_be_overridden_by_name(algorithm):
    kind = HYPERPARAMETERS[algorithm]
    preset = TrainConfig(algorithm=algorithm, rewards="measured").hyperparameters().model_dump()
    config = TrainConfig(algorithm=algorithm, overrides=preset)
    assert config.hyperparameters() == kind(**preset)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"overrides": {"batch_size": 50}}, "did you mean 'minibatch_size'"),
        ({"overrides": {"clip_range": -0.1}}, "clip_range"),
        ({"overrides": {"minibatch_size": 900}}, "only 800 steps"),
        ({"overrides": {"num_envs": 30}}, "multiple of all parallel envs"),
        ({"num_env_runners": 3}, "multiple of all parallel envs"),
        ({"algorithm": "dqn", "overrides": {"clip_range": 0.1}}, "dqn has no hyper-parameter"),
        ({"algorithm": "dqn", "overrides": {"step_seen_by": "critic"}}, "one network"),
        (
            {"algorithm": "dqn", "overrides": {"steps_per_gradient_step": 20.5}},
            "20.5 but an update has only 20 steps; lower it or raise steps_per_update",
        ),
        ({"overrides": {"link_knots": 1}}, "use 0, or 2 and more"),
        ({"overrides": {"activation": "tanh"}}, "needs scale_observations: true and"),
        ({"overrides": {"gae_lambda": 0.9}}, "goes with advantages: gae; set that too"),
        (
            {"rewards": "measured", "overrides": {"advantages": "hindsight"}},
            "every split point over every link state, and rewards is 'measured'",
        ),
        ({"seeds": [1, 1]}, "each only once"),
        ({"seeds": []}, "at least one"),
        ({"total_steps": 0}, "total_steps"),
        ({"algorithm": "sac"}, "algorithm"),
    ],
)
def test_bad_settings_are_refused_with_a_remedy(section, message):
    with pytest.raises(ValidationError, match=message):
        TrainConfig(**section)


@pytest.mark.parametrize(
    ("algorithm", "field", "sampled"),
    [("ppo", "advantages", "gae"), ("a2c", "advantages", "gae"), ("dqn", "targets", "sampled")],
)
def test_tuned_is_hindsight_where_the_source_costs_nothing(algorithm, field, sampled):
    def chosen(**section):
        return getattr(TrainConfig(algorithm=algorithm, **section).hyperparameters(), field)

    assert chosen() == "hindsight"
    assert chosen(preset="paper") == sampled
    assert chosen(rewards="measured") == chosen(rewards="algorithm_1") == sampled
    overridden = TrainConfig(algorithm=algorithm, overrides={field: sampled}).hyperparameters()
    measured = TrainConfig(algorithm=algorithm, rewards="measured").hyperparameters()
    assert overridden == measured  # with what else goes with it


def test_schedules_are_rllibs():
    assert schedule(0.1, 100) == 0.1
    assert schedule((0.1, 0.0), 100) == [[0, 0.1], [100, 0.0]]
