"""Both engines learn the same: gradients on the same rows, and the learning curve."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.evaluation.postprocessing import Postprocessing

from envs.example import example_params, example_source
from envs.oracle import Oracle
from tuning.rllib.algorithms import algorithm_config
from tuning.rllib.env import register_with_ray
from tuning.rllib.learner import TrainBatch
from tuning.rllib.local import quiet_rllib
from tuning.rllib.stock import ALL_LOG_PROBS
from tuning.settings import TrainConfig
from tuning.train import train


def build(algorithm, engine, advantages):
    overrides = {"advantages": advantages}
    config = TrainConfig(algorithm=algorithm, engine=engine, total_steps=2_400, overrides=overrides)
    return algorithm_config(
        config,
        env=register_with_ray(),
        env_config={
            "params": replace(example_params(), observe_step=True),
            "source": example_source,
        },
        actor_inputs=2,
        critic_inputs=3,
        knots=(8, 10),
        seed=3,
    ).build_algo()


def moved_alike(module, other):
    """Move the weights of both modules, so that the policy is no longer the one that acted."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for one, two in zip(module.parameters(), other.parameters(), strict=True):
            step = 0.05 * torch.randn(one.shape, generator=generator)
            one += step
            two += step


def rows(columns, net, algorithm):
    """RLlib's batch as the lean learner's, without its padding."""
    mask = columns[Columns.LOSS_MASK].bool()
    if ALL_LOG_PROBS in columns:
        return rows_of_all_actions(columns, mask, net)
    obs, targets, advantages = (
        columns[name][mask].float()
        for name in (Columns.OBS, Postprocessing.VALUE_TARGETS, Postprocessing.ADVANTAGES)
    )
    if algorithm == "a2c":  # RLlib's learner takes them from the values at the update
        advantages = targets - net.compute_values({Columns.OBS: obs}).detach()
        advantages = (advantages - advantages.mean()) / advantages.std(correction=0)
    actions, log_probs = columns[Columns.ACTIONS][mask], columns[Columns.ACTION_LOGP][mask]
    taken = (actions, log_probs, torch.ones_like(log_probs), advantages)
    return TrainBatch(net.features(obs), *(column[:, None] for column in taken), targets)


def rows_of_all_actions(columns, mask, net):
    obs, log_probs, advantages, targets = (
        columns[name][mask]
        for name in (
            Columns.OBS,
            ALL_LOG_PROBS,
            Postprocessing.ADVANTAGES,
            Postprocessing.VALUE_TARGETS,
        )
    )
    actions = torch.arange(3).expand(len(obs), 3)
    return TrainBatch(
        net.features(obs.float()), actions, log_probs, log_probs.exp(), advantages, targets
    )


@pytest.mark.parametrize("advantages", ["gae", "hindsight"])
@pytest.mark.parametrize("algorithm", ["ppo", "a2c"])
@pytest.mark.slow
def test_gradients_are_rllibs_on_the_same_rows(algorithm, advantages):
    with quiet_rllib(0):
        algos = [build(algorithm, engine, advantages) for engine in ("stock", "lean")]
        stock, lean = (algo.learner_group._learner for algo in algos)
        module = stock.module[DEFAULT_MODULE_ID].unwrapped()
        lean.net.load_state_dict(module.state_dict())
        batch = stock._learner_connector(
            rl_module=stock.module,
            batch={},
            episodes=algos[0].env_runner.sample(),
            shared_data={},
        )
        moved_alike(module, lean.net)
        outputs = stock.module.forward_train(batch)
        stock_loss = stock.compute_losses(fwd_out=outputs, batch=batch)[DEFAULT_MODULE_ID]
        schedule = stock.entropy_coeff_schedulers_per_module[DEFAULT_MODULE_ID]
        lean._entropy_coefficient = float(schedule.get_current_value())
        own = rows(batch[DEFAULT_MODULE_ID], lean.net, algorithm)
        lean_loss = lean.losses(own)[lean.TOTAL_LOSS_KEY]
        gradients = [
            torch.autograd.grad(loss, list(net.parameters()), materialize_grads=True)
            for loss, net in ((stock_loss, module), (lean_loss, lean.net))
        ]
        for expected, found in zip(*gradients, strict=True):
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-3)
        for algo in algos:
            algo.stop()


@pytest.mark.slow
def test_both_engines_follow_the_same_learning_curve(tmp_path):
    """Shares of the gap on the way: equal within what seeds differ by."""
    params = example_params()
    oracle = Oracle(params, example_source, grid_points=[31])

    def share(policy):
        return oracle.share_of_gap(oracle.policy_return(policy.actions))

    curves = {}
    for engine in ("lean", "stock"):
        config = TrainConfig(engine=engine, total_steps=8_000, checkpoint_every_steps=8_000)
        curves[engine] = np.mean(
            [
                [
                    point.judged_return
                    for point in train(
                        params,
                        example_source,
                        config,
                        seed,
                        tmp_path / f"{engine}-{seed}",
                        judge=share,
                    ).curve
                ]
                for seed in (0, 1)
            ],
            axis=0,
        )
    lean, stock = curves["lean"], curves["stock"]
    assert len(lean) == len(stock) == 10
    assert lean[0] < 0.9  # so there was something to learn
    assert stock[0] < 0.9
    assert abs(lean[2:] - stock[2:]).max() < 0.1
    assert lean[-1] == pytest.approx(stock[-1], abs=0.02)
