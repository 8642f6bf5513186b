"""Interquartile mean and bootstrap intervals against numbers by hand and against known laws."""

import numpy as np
import pytest

from raysplit.base.errors import UserError
from raysplit.base.statistics import (
    bootstrap_band,
    bootstrap_interval,
    interquartile_mean,
    rank_correlation,
)


def test_interquartile_mean_leaves_out_a_quarter_at_each_end() -> None:
    assert interquartile_mean([100.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -50.0]) == 3.5
    assert interquartile_mean([9.0, 1.0, 2.0, 3.0, -7.0]) == 2.0  # a fifth, rounded down to one
    assert interquartile_mean(np.array([[100.0, 1.0], [2.0, -50.0]])) == 1.5  # over all entries


def test_interval_of_a_mean_has_the_width_of_theory() -> None:
    scores = np.random.default_rng(0).normal(5.0, 2.0, size=400)
    interval = bootstrap_interval(scores, seed=1, statistic="mean")
    half = 1.96 * scores.std() / np.sqrt(len(scores))
    assert interval.value == pytest.approx(scores.mean())
    assert interval.low == pytest.approx(scores.mean() - half, abs=0.1 * half)
    assert interval.high == pytest.approx(scores.mean() + half, abs=0.1 * half)


def test_interval_covers_the_mean_of_the_law_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for repetition in range(200):
        interval = bootstrap_interval(rng.normal(size=30), repetition, resamples=400)
        covered += interval.low <= 0.0 <= interval.high
    assert 0.87 <= covered / 200 <= 0.99


def test_tasks_are_strata() -> None:
    # Two tasks on far apart levels and hardly any spread inside: the mean over both is almost
    # certain. Redrawing over all entries together would mix the levels.
    scores_SK = np.array([[0.0, 100.0]] * 5) + np.arange(5)[:, None] * 0.01
    interval = bootstrap_interval(scores_SK, seed=0, statistic="mean")
    assert interval.value == pytest.approx(50.02)
    assert 50.0 <= interval.low <= interval.high <= 50.04


def test_tasks_are_redrawn_independently() -> None:
    # Scores that cancel seed by seed: redrawn together, their mean would never move.
    task = np.arange(10.0)
    together = bootstrap_interval(np.stack([task, -task], axis=1), seed=0, statistic="mean")
    assert together.low < -0.5 < 0.5 < together.high


def test_band_redraws_whole_curves() -> None:
    curves_SX = np.random.default_rng(0).normal(size=(8, 1)) + np.array([[0.0, 10.0, 20.0]])
    band = bootstrap_band(curves_SX, seed=0)
    assert band.value_X.shape == band.low_X.shape == band.high_X.shape == (3,)
    # The curves differ by a constant only, so does the band from point to point.
    np.testing.assert_allclose(band.low_X - band.low_X[0], [0.0, 10.0, 20.0])
    np.testing.assert_allclose(band.high_X - band.high_X[0], [0.0, 10.0, 20.0])
    assert (band.low_X < band.value_X).all()
    assert (band.value_X < band.high_X).all()
    assert band.value_X[0] == pytest.approx(interquartile_mean(curves_SX[:, 0]))


def test_seed_decides() -> None:
    scores = np.random.default_rng(0).normal(size=20)
    assert bootstrap_interval(scores, seed=5) == bootstrap_interval(scores, seed=5)
    assert bootstrap_interval(scores, seed=5) != bootstrap_interval(scores, seed=6)


def test_equal_scores_have_a_point_for_an_interval() -> None:
    interval = bootstrap_interval([2.0, 2.0, 2.0], seed=0)
    assert (interval.value, interval.low, interval.high) == (2.0, 2.0, 2.0)


@pytest.mark.parametrize("scores", [[], [1.0], [[1.0, 2.0]], [1.0, float("nan")]])
def test_unusable_scores_are_refused(scores: list[float]) -> None:
    with pytest.raises(UserError, match=r"seed|NaN"):
        bootstrap_interval(scores, seed=0)


def test_rank_correlation_by_hand() -> None:
    # Ranks 1.5, 1.5, 3, 4 against 1, 2, 3, 4.
    tied = np.array([7.0, 7.0, 8.0, 90.0])
    assert rank_correlation(tied, np.array([1.0, 2.0, 3.0, 9.0])) == pytest.approx(4.5 / 22.5**0.5)
    assert rank_correlation(tied, -tied) == pytest.approx(-1.0)
    assert np.isnan(rank_correlation(tied, np.ones(4)))
