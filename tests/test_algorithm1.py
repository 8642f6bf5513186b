"""Algorithm 1: true rewards first, then the surrogate, also after every way of restoring."""

import dataclasses

import numpy as np
import pytest
from ray.rllib.algorithms.algorithm import Algorithm

from envs.example import example_params, example_ppl, example_source
from envs.sources import as_source
from raysplit.base.errors import UserError
from raysplit.surrogate import SurrogateConfig
from tuning import train as training
from tuning.algorithm1 import Algorithm1Source, fit_surrogate
from tuning.rllib.local import quiet_rllib
from tuning.settings import TrainConfig
from tuning.train import train

SMALL = {
    "ppo": {"num_envs": 40, "steps_per_update": 200, "epochs": 2},
    "a2c": {"num_envs": 40, "steps_per_update": 200},
    "dqn": {"num_envs": 40, "steps_per_update": 40},
}


@pytest.fixture(autouse=True)
def _quiet():
    with quiet_rllib(0):
        yield


class Counted:
    """A true source that counts what it is asked."""

    quantity = "ppl"

    def __init__(self):
        self.asked = 0

    def __call__(self, split_points_N, link_states_NK):
        self.asked += len(split_points_N)
        return example_ppl(split_points_N, link_states_NK)


def mean_fit(split_points_N, link_states_NK, ppl_N):
    """A surrogate without a model: the mean of what was seen."""
    mean = float(ppl_N.mean())
    return as_source(lambda p, link: np.full(len(p), mean), quantity="ppl")


def config(kind="ppo", **changes):
    sizes = {"preset": "paper", "total_steps": 1_200, "overrides": SMALL[kind]}
    return TrainConfig(algorithm=kind, **(sizes | changes))


def build(source, kind="ppo", seed=0, **changes):
    return training._build(example_params(), source, config(kind, **changes), seed)


@pytest.mark.parametrize("kind", ["ppo", "a2c", "dqn"])
def test_the_true_source_is_asked_for_the_first_steps_only(kind, tmp_path):
    true = Counted()
    source = Algorithm1Source(true, mean_fit, true_steps=400)
    train(example_params(), source, config(kind), 0, tmp_path)
    assert true.asked == 400
    assert source.use_surrogate
    split_points, links, ppl = source.seen()
    assert len(ppl) == 400
    np.testing.assert_allclose(ppl, example_ppl(split_points, links))


def test_the_surrogate_answers_after_the_hand_over():
    source = Algorithm1Source(Counted(), mean_fit, true_steps=400)
    algo = build(source)
    algo.train()
    split_points, links, ppl = source.seen()
    answers = source(split_points, links)
    algo.stop()
    np.testing.assert_allclose(answers, ppl.mean())


def restored_from_path(algo, folder, source):
    algo.save_to_path(folder)
    other = build(source, seed=1)
    other.restore_from_path(folder)
    return other


def restored_by_tune(algo, folder, source):
    algo.save(str(folder))
    other = build(source, seed=1)
    other.restore(str(folder))
    return other


def restored_from_checkpoint(algo, folder, source):
    algo.save_to_path(folder)
    return Algorithm.from_checkpoint(folder)


@pytest.mark.parametrize(
    "restored", [restored_from_path, restored_by_tune, restored_from_checkpoint]
)
@pytest.mark.parametrize("true_steps", [400, 1_000_000])
def test_every_way_of_restoring_keeps_the_switch(tmp_path, restored, true_steps):
    source = Algorithm1Source(Counted(), mean_fit, true_steps)
    algo = build(source)
    algo.train()
    switched = true_steps == 400
    assert source.use_surrogate == switched
    other = restored(algo, tmp_path, Algorithm1Source(Counted(), mean_fit, true_steps))
    assert other.source is not source
    assert other.source.use_surrogate == switched
    for one, again in zip(source.seen(), other.source.seen(), strict=True):
        np.testing.assert_array_equal(one, again)
    envs_source = other.env_runner.env.unwrapped.source
    assert envs_source is other.source
    before = len(source.seen()[0])
    other.train()
    assert len(other.source.seen()[0]) == (before if switched else before + 400)
    algo.stop()
    other.stop()


def test_an_interrupted_run_goes_on_with_the_surrogate(tmp_path):
    def interrupt(progress):
        if progress.point.step >= 1_200:
            raise KeyboardInterrupt

    asked = config(checkpoint_every_steps=400)
    first = Algorithm1Source(Counted(), mean_fit, true_steps=400)
    with pytest.raises(KeyboardInterrupt):
        train(example_params(), first, asked, 0, tmp_path, interrupt)
    true = Counted()
    again = Algorithm1Source(true, mean_fit, true_steps=400)
    train(example_params(), again, asked, 0, tmp_path)
    assert true.asked == 0
    assert again.use_surrogate


def test_split_points_never_seen_are_answered_for(tmp_path):
    """Case L begins in the lower half: before the hand-over nobody has been further up."""
    problem = example_params()
    params = dataclasses.replace(problem, start_split_points=(1, 3), episode_steps=2)
    seen = []

    def fit(split_points_N, link_states_NK, ppl_N):
        seen.append(int(split_points_N.max()))
        small = SurrogateConfig(steps=300, folds=2)
        return fit_surrogate(params, small, 0)(split_points_N, link_states_NK, ppl_N)

    source = Algorithm1Source(example_source, fit, true_steps=200)
    train(params, source, config(total_steps=400), 0, tmp_path)
    assert seen[0] < params.max_split_point
    assert np.isfinite(source(params.split_points_P, np.full((10, 1), 0.1))).all()


def test_a_source_used_for_another_agent_begins_anew(tmp_path):
    true = Counted()
    source = Algorithm1Source(true, mean_fit, true_steps=400)
    asked = []
    for seed in (0, 1):
        before = true.asked
        train(example_params(), source, config(), seed, tmp_path / str(seed))
        asked.append(true.asked - before)
    assert asked[0] == asked[1] > 0


def test_a_hand_over_that_never_comes_is_refused(tmp_path):
    source = Algorithm1Source(example_source, mean_fit, true_steps=1_200)
    with pytest.raises(UserError, match="ever take over"):
        train(example_params(), source, config(), 0, tmp_path)
    with pytest.raises(ValueError, match="ever take over"):
        TrainConfig(rewards="algorithm_1", total_steps=4_000)


def test_the_projects_surrogate_is_fitted_on_each_setting_once():
    rng = np.random.default_rng(0)
    split_points = np.repeat(rng.integers(1, 11, 200), 2)
    links = np.repeat(rng.uniform(0, 0.3, (200, 1)), 2, axis=0)
    fit = fit_surrogate(example_params(), SurrogateConfig(steps=300, folds=2), seed=0)
    ppl = example_source(split_points, links)
    surrogate = fit(split_points, links, ppl)
    np.testing.assert_allclose(surrogate(split_points, links), ppl, rtol=0.1)
    again = fit(split_points, links, ppl)
    np.testing.assert_array_equal(again(split_points, links), surrogate(split_points, links))


def test_a_source_of_gains_is_refused():
    gains = as_source(lambda p, link: 0.0 * p, quantity="relative_gain")
    with pytest.raises(UserError, match="Algorithm 1 needs a source of PPL"):
        Algorithm1Source(gains, mean_fit, 400)


@pytest.mark.ray
def test_remote_runners_report_and_are_told(ray_session):
    source = Algorithm1Source(Counted(), mean_fit, true_steps=600)
    algo = build(source, num_env_runners=1)
    algo.train()
    assert not source.use_surrogate
    assert len(source.seen()[0]) == 400
    algo.train()
    assert source.use_surrogate
    assert len(source.seen()[0]) == 600

    def remote_switch(runner):
        return runner.env.unwrapped.source.use_surrogate

    told = algo.env_runner_group.foreach_env_runner(remote_switch, local_env_runner=False)
    assert told == [True]
    split_points, links, ppl = source.seen()
    algo.train()
    assert len(source.seen()[0]) == 600
    np.testing.assert_allclose(ppl, example_ppl(split_points, links))
    algo.stop()
