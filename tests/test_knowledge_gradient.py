"""The knowledge gradient against closed forms; what an ensemble expects to lose."""

import itertools

import numpy as np
import pytest
from scipy.stats import norm

from envs.example import example_params, example_source
from envs.knowledge_gradient import (
    Beliefs,
    _conditioned,
    _knowledge_gradient,
    choose_settings,
    expected_regret,
)
from envs.oracle import Oracle
from envs.sources import as_source


def independent(*scales, members=8):
    """Deviations (M, S) that are uncorrelated over the members, with these standard deviations."""
    signs = np.array(list(itertools.product((-1, 1), repeat=3)), dtype=float)
    columns = [signs[:, 0], signs[:, 1], signs[:, 2], signs[:, 0] * signs[:, 1]]
    unit = np.sqrt((members - 1) / members)  # the sample variance divides by M - 1
    return np.stack([scale * unit * c for scale, c in zip(scales, columns, strict=False)], axis=1)


def beliefs(mean_PG, log_ppl_MS):
    """A reward that is the negative of log PPL, but for a mean of its own."""
    mean_PG = np.asarray(mean_PG, dtype=float)
    rewards = mean_PG - log_ppl_MS.reshape(-1, *mean_PG.shape)
    return Beliefs(log_ppl_MS=log_ppl_MS, rewards_MPG=rewards)


def gradient(mean_PG, log_ppl_MS, error_variance=0.0):
    mean_PG = np.asarray(mean_PG, dtype=float)
    return _knowledge_gradient(
        mean_PG, -log_ppl_MS.reshape(-1, *mean_PG.shape), log_ppl_MS, error_variance
    )


@pytest.mark.parametrize("lead", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("error", [0.0, 0.5])
def test_of_two_independent_alternatives_it_is_the_normal_loss(lead, error):
    """Frazier, Powell and Dayanik (2008): sigma f(-lead / sigma) with f(z) = z Phi(z) + phi(z)."""
    scales = np.array([1.0, 0.6])
    found = gradient([[lead], [0.0]], independent(*scales), error**2)
    sigma = scales**2 / np.sqrt(scales**2 + error**2)
    z = -lead / sigma
    np.testing.assert_allclose(found, sigma * (z * norm.cdf(z) + norm.pdf(z)), atol=0.005)


def test_it_is_zero_where_no_decision_hangs_on_the_disagreement():
    """At the first link state all split points move together; at the second they do not."""
    common = independent(3.0)[:, 0]
    deviations = np.zeros((8, 2, 2))
    deviations[:, :, 0] = common[:, None]
    deviations[:, :, 1] = independent(0.0, 0.1, 0.1)[:, 1:]
    worth = gradient([[0.5, 0.0], [0.0, 0.0]], deviations.reshape(8, 4)).reshape(2, 2)
    np.testing.assert_allclose(worth[:, 0], 0.0, atol=1e-12)
    assert (worth[:, 1] > 0.01).all()


def test_a_clear_lead_is_worth_nothing_more():
    worth = gradient([[0.0, 50.0], [0.0, 0.0]], independent(1.0, 1.0, 1.0, 1.0))
    assert worth.reshape(2, 2)[:, 1] == pytest.approx(0.0, abs=1e-9)
    assert (worth.reshape(2, 2)[:, 0] > 0.1).all()


@pytest.mark.parametrize("error_variance", [0.0, 0.3])
def test_conditioning_leaves_the_covariance_of_the_kalman_update(error_variance):
    rng = np.random.default_rng(0)
    deviations = rng.standard_normal((9, 5))
    deviations -= deviations.mean(axis=0)
    before = np.cov(deviations.T)
    after = np.cov(_conditioned(deviations, deviations[:, 2], error_variance).T)
    gain = before[:, 2] / (before[2, 2] + error_variance)
    np.testing.assert_allclose(after, before - np.outer(gain, before[2]), atol=1e-9)


def test_a_batch_does_not_ask_twice_for_the_same_knowledge():
    """Settings 0 and 1 tell the same; 2 tells less than either, but something else."""
    column = independent(1.0)[:, 0]
    other = independent(0.0, 0.7)[:, 1]
    log_ppl = np.stack([column, column, other, np.zeros(8)], axis=1)
    rewards = np.zeros((8, 2, 2))
    rewards[:, 0, 0], rewards[:, 0, 1] = -column, -other
    held = Beliefs(log_ppl_MS=log_ppl, rewards_MPG=rewards)
    everything = np.ones(4, dtype=bool)
    assert choose_settings(held, everything, 2, 0.01).tolist() == [0, 2]
    assert choose_settings(held, everything & [False, True, True, True], 2, 0.01).tolist() == [1, 2]
    assert len(choose_settings(held, everything & [True, False, False, True], 9, 0.01)) == 2


def test_many_settings_are_weighed_as_few_at_a_time(monkeypatch):
    rng = np.random.default_rng(1)
    mean, log_ppl = rng.standard_normal((5, 7)), rng.standard_normal((6, 35))
    whole = gradient(mean, log_ppl - log_ppl.mean(axis=0), 0.1)
    monkeypatch.setattr("envs.knowledge_gradient._NUMBERS_AT_ONCE", 100)
    np.testing.assert_allclose(gradient(mean, log_ppl - log_ppl.mean(axis=0), 0.1), whole)


def test_expected_regret_is_the_mean_loss_over_the_members():
    """One member is the believed mean itself; the other wants the opposite end."""
    params = example_params()
    contrary = as_source(lambda p, x: 16.0 * (1.0 + 0.2 * p), quantity="ppl")
    believed = Oracle(params, example_source)
    true = Oracle(params, contrary)
    lost = true.optimal_return - true.policy_return(believed.optimal_policy())
    gap = believed.optimal_return - believed.random_return
    found = expected_regret(params, example_source, [example_source, contrary])
    assert lost > 0
    assert found == pytest.approx(lost / 2 / gap)
    assert expected_regret(params, example_source, [example_source]) == pytest.approx(0.0)
