"""Training one agent: learns, resumes, is recognised when finished, and needs no Ray."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace

import numpy as np
import pytest
from ray.tune.trainable import trainable

from envs.example import example_params, example_source
from envs.oracle import Oracle
from envs.score import score
from envs.sources import as_source
from raysplit.base.errors import UserError
from raysplit.base.threads import one_thread
from tuning.agent import load_agent
from tuning.checkpoint import checkpoints_of, restore_checkpoint
from tuning.evaluate import fidelity, summarise
from tuning.rllib.local import quiet_rllib
from tuning.settings import TrainConfig
from tuning.train import _build, policy_of, train

QUICK = TrainConfig(
    preset="paper",
    total_steps=800,
    checkpoint_every_steps=400,
    overrides={"num_envs": 40, "steps_per_update": 200, "epochs": 2},
)


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    out = tmp_path_factory.mktemp("agents") / "ppo-0"
    return train(example_params(), example_source, QUICK, 0, out)


def test_an_agent_leaves_a_curve_a_policy_and_a_checkpoint(agent):
    assert [point.step for point in agent.curve] == [400, 800]
    assert all(-12 < point.episode_return < -5 for point in agent.curve)
    assert 0 < agent.curve[0].seconds < agent.curve[1].seconds
    assert checkpoints_of(agent.folder)[-1].name == "step-000000800"
    policy = agent.policy()
    assert policy.description.trained_by == "ppo paper, seed 0, 800 steps"
    assert policy.description.link_names == ("loss_probability",)
    assert not policy.description.sees_step
    assert policy((0.1,), 3) in {0, 1, 2}


def test_a_judge_scores_the_policy_of_each_iteration(tmp_path):
    oracle = Oracle(example_params(), example_source)

    def judge(policy):
        return oracle.policy_return(policy.actions)

    fast = QUICK.model_copy(update={"overrides": {**QUICK.overrides, "learning_rate": 0.01}})
    judged = train(example_params(), example_source, fast, 0, tmp_path, judge=judge)
    returns = [point.judged_return for point in judged.curve]
    assert len(set(returns)) == len(returns) == 2
    assert returns[-1] == pytest.approx(judge(judged.policy()))


def test_training_writes_nothing_into_the_home_folder(tmp_path, monkeypatch):
    """RLlib would make ~/ray_results, and end where it cannot."""
    monkeypatch.setattr(trainable, "DEFAULT_STORAGE_PATH", "/proc/none/ray_results")
    elsewhere = tmp_path / "tmp"
    elsewhere.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    assert train(example_params(), example_source, QUICK, 0, tmp_path / "agent").curve
    assert list(elsewhere.glob("raysplit-*")) == []
    assert trainable.DEFAULT_STORAGE_PATH == "/proc/none/ray_results"


def test_a_finished_agent_is_not_trained_again(agent):
    asked = []

    def counted(split_points, links):
        asked.extend(split_points)
        return example_source(split_points, links)

    again = train(example_params(), as_source(counted, quantity="ppl"), QUICK, 0, agent.folder)
    assert again == agent
    assert len(asked) < 10  # enough to see that it is the same source


def test_another_configuration_in_the_same_folder_is_refused(agent):
    config = QUICK.model_copy(update={"total_steps": 1_000})
    with pytest.raises(UserError, match="new folder"):
        train(example_params(), example_source, config, 0, agent.folder)
    other = as_source(lambda p, link: 2 * example_source(p, link), quantity="ppl")
    with pytest.raises(UserError, match="new folder"):
        train(example_params(), other, QUICK, 0, agent.folder)
    params = replace(example_params(), cost_weight=2.0)
    with pytest.raises(UserError, match="new folder"):
        train(params, example_source, QUICK, 0, agent.folder)


def test_another_agents_checkpoint_is_refused_before_anything_is_built(agent, tmp_path):
    """Weights of another network would fail to load, and the other's start would be replaced."""
    folder = tmp_path / "copy"
    shutil.copytree(agent.folder, folder)
    (folder / "agent.json").unlink()
    untrained = (folder / "untrained/policy.safetensors").read_bytes()
    overrides = QUICK.overrides | {"hidden_sizes": (8,)}
    with pytest.raises(UserError, match="configuration or version"):
        train(
            example_params(),
            example_source,
            QUICK.model_copy(update={"overrides": overrides}),
            0,
            folder,
        )
    assert (folder / "untrained/policy.safetensors").read_bytes() == untrained


def test_a_folder_without_an_agent_says_so(tmp_path):
    with pytest.raises(UserError, match="no finished agent"):
        load_agent(tmp_path)


def test_an_interrupted_run_goes_on_and_ends_as_the_unbroken_one(agent, tmp_path):
    def interrupt(point):
        if point.step >= 800:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(example_params(), example_source, QUICK, 0, tmp_path, interrupt)
    seen = []
    resumed = train(
        example_params(), example_source, QUICK, 0, tmp_path, lambda point: seen.append(point.step)
    )
    assert seen == [800]  # the first 400 steps were not repeated
    assert [point.episode_return for point in resumed.curve] == [
        point.episode_return for point in agent.curve
    ]
    for one, other in zip(resumed.policy().layers, agent.policy().layers, strict=True):
        np.testing.assert_array_equal(one[0], other[0])


def test_a_damaged_checkpoint_stops_a_resumed_run(agent, tmp_path):
    def interrupt(point):
        if point.step >= 800:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(example_params(), example_source, QUICK, 0, tmp_path, interrupt)
    (file,) = tmp_path.glob("checkpoints/*/state.safetensors")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match=r"state\.safetensors differs"):
        train(example_params(), example_source, QUICK, 0, tmp_path)


PROGRAM = """
import sys
from pathlib import Path
from envs.example import example_params, example_source
from tuning.settings import TrainConfig
from tuning.train import train
config = TrainConfig(preset="paper", total_steps=100_000, checkpoint_every_steps=400,
                     overrides={"num_envs": 40, "steps_per_update": 200, "epochs": 2})
train(example_params(), example_source, config, 0, Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_a_killed_process_loses_at_most_a_checkpoint_interval(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path)])
    while len(list(tmp_path.glob("checkpoints/step-*[0-9]"))) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    newest = max(int(path.name[5:]) for path in tmp_path.glob("checkpoints/step-*[0-9]"))
    seen = []

    class Enough(Exception):
        pass

    def stop(point):
        seen.append(point.step)
        raise Enough

    config = QUICK.model_copy(update={"total_steps": 100_000})
    with pytest.raises(Enough):
        train(example_params(), example_source, config, 0, tmp_path, stop)
    assert seen == [newest + 400]


def test_ppo_tuned_comes_close_to_the_exact_optimum(tmp_path):
    config = TrainConfig(total_steps=6_000, checkpoint_every_steps=6_000)
    trained = train(example_params(), example_source, config, 0, tmp_path)
    oracle = Oracle(example_params(), example_source)
    assert score(oracle, trained.policy().actions).share_of_gap > 0.95


def test_a_policy_may_see_the_step(tmp_path):
    small = {"num_envs": 40, "steps_per_update": 40}
    config = TrainConfig(algorithm="dqn", total_steps=400, overrides=small)
    trained = train(example_params(), example_source, config, 0, tmp_path)
    assert trained.policy().description.sees_step
    assert json.loads((tmp_path / "policy/policy.json").read_text())["sees_step"]


def test_scores_are_exact_and_summed_up_over_seeds():
    oracle = Oracle(example_params(), example_source)
    best = score(oracle, oracle.optimal_policy())
    assert best.share_of_gap == pytest.approx(1)
    assert best.regret == pytest.approx(0, abs=1e-12)
    worse = score(oracle, oracle.baselines()["stay"])
    assert worse.regret == pytest.approx(oracle.optimal_return - worse.episode_return)
    summary = summarise([best, worse, best])
    assert worse.share_of_gap <= summary.share_of_gap.low <= summary.share_of_gap.value
    single = summarise([best]).episode_return
    assert single.low == single.value == single.high == best.episode_return


def test_a_faithful_surrogate_passes_the_gate_and_a_misleading_one_is_named():
    params = example_params()
    measured = Oracle(params, example_source)
    close = as_source(lambda p, link: 1.001 * example_source(p, link), quantity="ppl")
    good = fidelity(Oracle(params, close), measured)
    assert good.warning is None
    assert good.rank_correlation > 0.99
    assert good.share_lost == pytest.approx(0, abs=1e-3)
    flat = as_source(lambda p, link: 16.0 + 0.0 * link[:, 0], quantity="ppl")
    bad = fidelity(Oracle(params, flat), measured)
    assert bad.share_lost > 0.1
    assert bad.regret > 0
    assert "misleads" in bad.warning


def test_over_a_trace_a_perfect_surrogate_loses_nothing():
    """There greedy is far from the optimum, which is no loss of the surrogate's."""
    losses_R1 = np.random.default_rng(0).uniform(0.0, 0.3, (40, 1))
    params = replace(example_params(), link_dynamics="trace", trace_RK=losses_R1)
    oracle = Oracle(params, example_source)
    assert oracle.share_of_gap(oracle.policy_return(oracle.greedy_policy())) < 0.97
    found = fidelity(oracle, oracle)
    assert (found.share_lost, found.regret) == pytest.approx((0, 0), abs=1e-12)
    assert found.warning is None


def test_the_exported_policy_is_that_of_the_newest_checkpoint(agent):
    with quiet_rllib(0), one_thread():
        algorithm = _build(example_params(), example_source, QUICK, 7)
        try:
            another = policy_of(algorithm, example_params(), "")
            restore_checkpoint(algorithm, checkpoints_of(agent.folder)[-1])
            restored = policy_of(algorithm, example_params(), "")
        finally:
            algorithm.stop()
    exported = agent.policy()
    for i, (weight, bias) in enumerate(restored.layers):
        np.testing.assert_array_equal(weight, exported.layers[i][0])
        np.testing.assert_array_equal(bias, exported.layers[i][1])
        assert not np.array_equal(weight, another.layers[i][0])
