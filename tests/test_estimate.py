"""The estimate of log PPL from a part of the corpus: exact cases; its error bar by simulation."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from raysplit.perplexity.estimate import (
    CleanCorpus,
    Estimate,
    InvalidNLLError,
    estimate,
    should_stop,
)

FloatArray = NDArray[np.float64]
REPETITIONS = 1000  # the standard deviation of a coverage of 95 % is then 0.7 %
BLOCK = 64


def corpus(sequences: int = 1500, seed: int = 0) -> CleanCorpus:
    """Sentences of 3 to 150 tokens with their own difficulty."""
    rng = np.random.default_rng(seed)
    tokens_N = np.clip(rng.lognormal(3.3, 0.6, sequences), 3, 150).astype(np.int64)
    return CleanCorpus(tokens_N * rng.gamma(20.0, 0.15, sequences), tokens_N)


def dense(clean: CleanCorpus, rng: np.random.Generator) -> FloatArray:
    """Noise: every sentence is a little worse, the more so the harder it was."""
    tokens_N = clean.tokens_N
    return 1.1 * clean.nll_N + tokens_N * rng.normal(0.1, 1.0, len(tokens_N)) / np.sqrt(tokens_N)


def skewed(clean: CleanCorpus, rng: np.random.Generator) -> FloatArray:
    """Losses: the damage per token is an exponential variable."""
    return clean.nll_N + clean.tokens_N * rng.exponential(0.3, len(clean.tokens_N))


def sparse(clean: CleanCorpus, rng: np.random.Generator) -> FloatArray:
    """Rare losses: one sentence of ten is hit, the rest arrive as they were."""
    hit_N = rng.random(len(clean.tokens_N)) < 0.1
    return np.where(hit_N, skewed(clean, rng), clean.nll_N)


def truth(noisy_N: FloatArray, clean: CleanCorpus) -> float:
    return float(noisy_N.sum() / clean.tokens_N.sum())


def plain_stderr(noisy_n: FloatArray, tokens_n: NDArray[np.int64], sequences: int) -> float:
    """The textbook's ratio estimator without control variate, linearised."""
    ratio = noisy_n.sum() / tokens_n.sum()
    residual = noisy_n - ratio * tokens_n
    n = len(noisy_n)
    return float(residual.std(ddof=1) / tokens_n.mean() * math.sqrt((1 - n / sequences) / n))


# --- exact cases ----------------------------------------------------------------------


def test_the_whole_corpus_has_no_error() -> None:
    clean = corpus()
    noisy_N = skewed(clean, np.random.default_rng(1))
    order = np.random.default_rng(2).permutation(len(noisy_N))
    result = estimate(noisy_N[order], order, clean)
    assert result.log_ppl == pytest.approx(truth(noisy_N, clean), rel=1e-12)
    assert result.stderr == 0.0
    assert (result.sequences, result.tokens) == (1500, clean.tokens_N.sum())


def test_a_shift_per_token_is_known_from_any_sequence() -> None:
    # The control variate takes out all that differs between sentences.
    clean = corpus()
    some = np.array([4, 7, 1300])
    result = estimate(clean.nll_N[some] + 0.25 * clean.tokens_N[some], some, clean)
    assert result.log_ppl == pytest.approx(clean.log_ppl + 0.25)
    assert result.stderr == pytest.approx(0.0, abs=1e-12)


def test_estimate_by_hand() -> None:
    clean = CleanCorpus(np.array([1.0, 2.0, 3.0, 6.0]), np.array([1, 2, 2, 3]))
    result = estimate(np.array([4.0, 2.5]), np.array([2, 0]), clean)
    # Differences 1 and 1.5 over 2 and 1 tokens: 2.5 / 3 more a token than the clean 12 / 8.
    ratio = 2.5 / 3
    deviations = [(1 - 2 * ratio) / 1, (1.5 - ratio) / 2]
    variance = (1 - 2 / 4) * (1 / 2) * sum(d**2 for d in deviations)
    kurtosis = 2 * sum(d**4 for d in deviations) / sum(d**2 for d in deviations) ** 2
    widening = stats.t.ppf(0.975, 2 * 2 / (kurtosis - 1)) / stats.norm.ppf(0.975)
    assert result.log_ppl == pytest.approx(1.5 + ratio)
    assert result.stderr == pytest.approx(math.sqrt(variance) * widening)
    assert (result.sequences, result.tokens) == (2, 3)


def test_stderr_agrees_with_the_textbook_and_shrinks_by_the_control_variate() -> None:
    clean = corpus()
    noisy_N = dense(clean, np.random.default_rng(1))
    some = np.random.default_rng(2).permutation(1500)[:256]
    difference_n, tokens_n = (noisy_N - clean.nll_N)[some], clean.tokens_N[some]
    result = estimate(noisy_N[some], some, clean)
    assert result.stderr == pytest.approx(plain_stderr(difference_n, tokens_n, 1500), rel=0.02)
    assert result.stderr < 0.5 * plain_stderr(noisy_N[some], tokens_n, 1500)


def test_effective_sequences_count_those_that_matter() -> None:
    clean = CleanCorpus(np.full(1000, 3.0), np.full(1000, 2, dtype=np.int64))
    noisy_n = clean.nll_N[:400].copy()
    noisy_n[:40] += 1.0  # each tenth of the sample is hit equally
    result = estimate(noisy_n, np.arange(400), clean)
    # Deviations 0.9 and -0.1 around the mean: (40 x 0.9 + 360 x 0.1)^2 / (40 x 0.81 + 360 x 0.01)
    assert result.effective_sequences == pytest.approx(72**2 / 36, rel=1e-2)


# --- coverage and bias by simulation ----------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "sample"), [(dense, 64), (dense, 600), (skewed, 448), (sparse, 768)]
)
def test_interval_of_a_fixed_sample(damage: Callable[..., FloatArray], sample: int) -> None:
    clean = corpus()
    noisy_N = damage(clean, np.random.default_rng(1))
    rng = np.random.default_rng(2)
    results = [
        _measure(noisy_N, clean, rng.permutation(len(noisy_N))[:sample]) for _ in range(REPETITIONS)
    ]
    check_coverage_and_bias(results, truth(noisy_N, clean))


@pytest.mark.parametrize(
    ("damage", "aim"), [(dense, 40), (dense, 300), (skewed, 100), (skewed, 400), (sparse, 100)]
)
def test_interval_of_a_sample_grown_to_a_target(
    damage: Callable[..., FloatArray], aim: int
) -> None:
    clean = corpus()
    noisy_N = damage(clean, np.random.default_rng(1))
    difference_N = noisy_N - clean.nll_N
    # The target that `aim` sequences reach on average.
    target = plain_stderr(difference_N, clean.tokens_N, 10**9) * math.sqrt(1500 / aim - 1)
    rng = np.random.default_rng(2)
    results = [_grow(noisy_N, clean, rng.permutation(1500), target) for _ in range(REPETITIONS)]
    assert all(r.stderr <= target for r in results)
    # Stopping by what was seen leaves a trace of bias, small against the error bar.
    check_coverage_and_bias(results, truth(noisy_N, clean), bias=0.15)
    assert np.mean([r.sequences for r in results]) < 0.55 * 1500


def check_coverage_and_bias(results: list[Estimate], expected: float, bias: float = 0.0) -> None:
    """Check the 95 % interval; `bias` is the allowed one as a share of the error bar."""
    error = np.array([result.log_ppl for result in results]) - expected
    half = 1.96 * np.array([result.stderr for result in results])
    assert 0.93 <= np.mean(np.abs(error) <= half) <= 0.97
    assert abs(error.mean()) <= (bias + 3 / math.sqrt(len(error))) * error.std()


def _measure(noisy_N: FloatArray, clean: CleanCorpus, some: NDArray[np.int64]) -> Estimate:
    return estimate(noisy_N[some], some, clean)


def _grow(
    noisy_N: FloatArray, clean: CleanCorpus, order: NDArray[np.int64], target: float
) -> Estimate:
    for end in range(BLOCK, len(order) + BLOCK, BLOCK):
        result = _measure(noisy_N, clean, order[:end])
        if should_stop(result, target):
            break
    return result


# --- when to stop -----------------------------------------------------------------------


def test_a_link_that_was_not_seen_at_work_does_not_stop() -> None:
    clean = corpus()
    some = np.arange(640)
    untouched = estimate(clean.nll_N[some], some, clean)
    assert untouched.log_ppl == clean.log_ppl
    assert not should_stop(untouched, target_stderr=0.01)

    noisy = clean.nll_N[some].copy()
    noisy[5] += 0.5  # one sentence in 640 says nothing about how bad the others can be
    assert not should_stop(estimate(noisy, some, clean), target_stderr=0.01)


def test_a_target_of_zero_and_few_sequences_do_not_stop() -> None:
    clean = corpus()
    noisy_N = dense(clean, np.random.default_rng(1))
    assert not should_stop(_measure(noisy_N, clean, np.arange(1499)), 0.0)
    assert not should_stop(_measure(noisy_N, clean, np.arange(16)), 100.0)
    assert should_stop(_measure(noisy_N, clean, np.arange(256)), 100.0)


def test_one_sequence_of_many_has_no_error_bar() -> None:
    result = _measure(dense(corpus(), np.random.default_rng(1)), corpus(), np.array([3]))
    assert result.stderr == math.inf
    only = CleanCorpus(np.array([2.0]), np.array([2]))
    assert estimate(np.array([4.0]), np.array([0]), only).stderr == 0.0


# --- invalid numbers ---------------------------------------------------------------------


@pytest.mark.parametrize(("poison", "kind"), [(math.nan, "NaN"), (math.inf, "infinite")])
def test_invalid_nll_is_never_averaged(poison: float, kind: str) -> None:
    clean = corpus()
    noisy_N = dense(clean, np.random.default_rng(1))
    noisy_N[[70, 90]] = poison
    some = np.arange(100)[::-1]
    with pytest.raises(InvalidNLLError, match=f"{kind} NLL under the link in 2 of 100.* 90"):
        _measure(noisy_N, clean, some)


def test_a_model_that_fails_without_any_link_is_named_so() -> None:
    with pytest.raises(InvalidNLLError, match="without any link effect in 1 of 2"):
        CleanCorpus(np.array([1.0, math.nan]), np.array([1, 1]))
