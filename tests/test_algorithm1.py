"""Algorithm 1: true rewards first, then the surrogate, also in a run that was interrupted."""

import dataclasses

import numpy as np
import pytest

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
    split_points, links, ppl = source.true_answers()
    assert len(ppl) == 400
    np.testing.assert_allclose(ppl, example_ppl(split_points, links))


@pytest.mark.parametrize(("kind", "true_steps", "asked"), [("a2c", 500, 600), ("dqn", 410, 440)])
def test_the_hand_over_comes_with_the_first_update_after_the_true_steps(
    kind, true_steps, asked, tmp_path
):
    """Not with the end of RLlib's iteration, which takes several updates."""
    true = Counted()
    source = Algorithm1Source(true, mean_fit, true_steps)
    train(example_params(), source, config(kind), 0, tmp_path)
    assert true.asked == asked


def test_the_surrogate_answers_after_the_hand_over():
    source = Algorithm1Source(Counted(), mean_fit, true_steps=400)
    algo = build(source)
    algo.train()
    algo.stop()
    split_points, links, ppl = source.true_answers()
    answers = source(split_points, links)
    np.testing.assert_allclose(answers, ppl.mean())
    assert len(source.true_answers()[0]) == len(ppl)


def test_answers_are_kept_as_they_were_given():
    true = as_source(example_ppl, quantity="ppl")
    source = Algorithm1Source(true, mean_fit, true_steps=400)
    split_points, links = np.array([1, 2]), np.array([[0.1], [0.2]])
    ppl = source(split_points, links)
    for array in (split_points, links, ppl):
        array[:] = 0
    kept = source.true_answers()
    np.testing.assert_array_equal(kept[0], [1, 2])
    np.testing.assert_array_equal(kept[1], [[0.1], [0.2]])
    np.testing.assert_array_equal(kept[2], example_ppl(*kept[:2]))


class Interrupted:
    """Ends a training as Ctrl-C does, once so many steps are done and saved."""

    def __init__(self, steps):
        self.steps = steps

    def __call__(self, point):
        if point.step > self.steps:
            raise KeyboardInterrupt


def recorded_fit(rows):
    """`mean_fit` that remembers what it was given."""

    def fit(*answers):
        rows.append(answers)
        return mean_fit(*answers)

    return fit


@pytest.mark.parametrize("kind", ["ppo", "a2c", "dqn"])
@pytest.mark.parametrize(("interrupted_at", "asked_again"), [(400, 400), (800, 0)])
@pytest.mark.slow
def test_an_interrupted_run_goes_on_and_ends_as_the_unbroken_one(
    kind, interrupted_at, asked_again, tmp_path
):
    """Interrupted before the hand-over, and after it."""
    asked = config(kind, checkpoint_every_steps=400)
    fitted = []

    def start(folder, on_progress=lambda _: None):
        source = Algorithm1Source(Counted(), recorded_fit(fitted), true_steps=800)
        return source, lambda: train(
            example_params(), source, asked, 0, tmp_path / folder, on_progress
        )

    _, train_unbroken = start("unbroken")
    unbroken = train_unbroken()
    first, interrupt = start("interrupted", Interrupted(interrupted_at))
    with pytest.raises(KeyboardInterrupt):
        interrupt()
    resumed, go_on = start("interrupted")
    assert resumed is not first
    agent = go_on()
    assert resumed._true_source.asked == asked_again
    assert resumed.use_surrogate
    for one, again in zip(fitted[0], fitted[-1], strict=True):
        np.testing.assert_array_equal(one, again)
        assert one.dtype == again.dtype
    for one, other in zip(unbroken.policy().layers, agent.policy().layers, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


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
    with pytest.raises(UserError, match="Algorithm 1 needs a source of PPL, not of relative_gain"):
        Algorithm1Source(gains, mean_fit, 400)
    with pytest.raises(UserError, match="as_source"):
        Algorithm1Source(example_ppl, mean_fit, 400)
