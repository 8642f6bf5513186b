"""Anchored estimates: exact cases, an independent derivation, error bars by simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from raysplit.perplexity.anchored import (
    FIRST_SEQUENCES,
    MIN_EFFECTIVE_ANCHORED,
    best_anchor_sequences,
    estimate_anchored,
    next_sample_sequences,
)
from raysplit.perplexity.estimate import CleanCorpus, InvalidNLLError, estimate, should_stop

SEQUENCES = 700
REPETITIONS = 500  # the standard deviation of a coverage of 95 % is then 1 %


def corpus(rng):
    """Sentences of 3 to 150 tokens with their own difficulty."""
    tokens_N = np.clip(rng.lognormal(3.3, 0.6, SEQUENCES), 3, 150).astype(np.int64)
    return CleanCorpus(tokens_N * rng.gamma(20.0, 0.15, SEQUENCES), tokens_N)


def noise(clean, rng, shared):
    """Four anchors' damages and a setting's: `shared` of its standard deviation is theirs."""
    common_N = np.sqrt(clean.tokens_N) * rng.gamma(4.0, 0.25, SEQUENCES)
    anchors_KN = common_N * np.array([[2.0], [0.5], [1.0], [1.5]])
    anchors_KN += 0.3 * np.sqrt(clean.tokens_N) * rng.normal(size=(4, SEQUENCES))
    own_N = np.sqrt(clean.tokens_N) * rng.normal(size=SEQUENCES)
    return anchors_KN, shared * common_N + math.sqrt(1 - shared**2) * 0.5 * own_N


def erasures(clean, rng, shared):
    """Nested losses: who is hit in the setting is hit in some anchors, the others not at all."""
    fate_N, size_N = rng.random(SEQUENCES), rng.gamma(3.0, 0.1, SEQUENCES) * clean.tokens_N
    other_N = rng.gamma(3.0, 0.1, SEQUENCES) * clean.tokens_N
    limits = (0.9, 0.45, 0.8, 0.7)
    anchors_KN = np.array([(fate_N < limit) * size_N * (1 + limit) for limit in limits])
    return anchors_KN, (fate_N < 0.6) * (shared * size_N + (1 - shared) * other_N)


def shuffled(clean, anchors_KN, damage_N, rng):
    """One way to draw the corpus."""
    order = rng.permutation(SEQUENCES)
    drawn = CleanCorpus(clean.nll_N[order], clean.tokens_N[order])
    return drawn, anchors_KN[:, order], (clean.nll_N + damage_N)[order]


def true_log_ppl(clean, damage_N):
    return float((clean.nll_N + damage_N).sum() / clean.tokens_N.sum())


# --- exact cases ----------------------------------------------------------------------


def test_a_setting_made_of_the_anchors_is_known_as_well_as_they_are():
    rng = np.random.default_rng(0)
    clean = corpus(rng)
    anchors_KN, _ = noise(clean, rng, 1.0)
    damage_N = 0.3 * anchors_KN[0] + 0.1 * anchors_KN[3] + 0.02 * clean.nll_N + 0.1
    result = estimate_anchored((clean.nll_N + damage_N)[:32], clean, anchors_KN)
    assert result.log_ppl == pytest.approx(true_log_ppl(clean, damage_N), rel=1e-12)
    assert result.stderr == pytest.approx(0.0, abs=1e-12)
    assert (result.sequences, result.tokens) == (32, clean.tokens_N[:32].sum())
    # None has been seen that the anchors do not foretell, so how rare that is remains unknown.
    assert not should_stop(result, 1.0, MIN_EFFECTIVE_ANCHORED)
    # Known from half of the corpus, they say what that half of this setting says, and no more.
    half = estimate_anchored((clean.nll_N + damage_N)[:32], clean, anchors_KN[:, :350])
    same = estimate_anchored((clean.nll_N + damage_N)[:350], clean, anchors_KN[:, :350])
    assert half.log_ppl == pytest.approx(same.log_ppl, rel=1e-10)
    assert half.stderr == pytest.approx(same.stderr, rel=1e-6)


def test_the_whole_corpus_has_no_error():
    rng = np.random.default_rng(0)
    clean = corpus(rng)
    anchors_KN, damage_N = noise(clean, rng, 0.5)
    for known in (64, SEQUENCES):
        result = estimate_anchored(clean.nll_N + damage_N, clean, anchors_KN[:, :known])
        assert result.log_ppl == pytest.approx(true_log_ppl(clean, damage_N), rel=1e-12)
        assert result.stderr == 0.0


def test_estimate_by_the_textbook():
    """Least squares by NumPy, and each error bar from regressions done anew without a sequence."""
    rng = np.random.default_rng(3)
    clean = corpus(rng)
    anchors_KN, damage_N = noise(clean, rng, 0.8)
    n, m = 40, 300
    known = np.column_stack([np.ones(SEQUENCES), clean.tokens_N, clean.nll_N])

    def regress(z, y, at):
        return at @ np.linalg.lstsq(z, y, rcond=None)[0]

    a_mean = [regress(known[:m], a[:m], known.mean(axis=0)) for a in anchors_KN]
    z, z_mean = np.column_stack([known, anchors_KN.T]), np.append(known.mean(axis=0), a_mean)
    slopes = np.linalg.lstsq(z[:n], damage_N[:n], rcond=None)[0][3:]
    explained = slopes @ anchors_KN[:, :m]

    def variance(z, y, at):
        """The changes of the estimate as one sequence is left out, squared: the jackknife."""
        whole, every = regress(z, y, at), np.arange(len(y))
        changes = [whole - regress(z[every != i], y[every != i], at) for i in every]
        square = np.square(changes)
        kurtosis = len(y) * (square**2).sum() / square.sum() ** 2
        freedom = min(2 * len(y) / (kurtosis - 1), len(y) - z.shape[1])
        return (1 - len(y) / SEQUENCES) * square.sum(), freedom

    of_residuals, of_anchors = (
        variance(z[:n], damage_N[:n], z_mean),
        variance(known[:m], explained, known.mean(axis=0)),
    )
    total = of_residuals[0] + of_anchors[0]
    freedom = total**2 / sum(v**2 / f for v, f in (of_residuals, of_anchors))
    widening = stats.t.ppf(0.975, freedom) / stats.norm.ppf(0.975)
    result = estimate_anchored((clean.nll_N + damage_N)[:n], clean, anchors_KN[:, :m])
    expected = clean.log_ppl + regress(z[:n], damage_N[:n], z_mean) / clean.tokens_N.mean()
    assert result.log_ppl == pytest.approx(expected, rel=1e-10)
    expected = widening * math.sqrt(total) / clean.tokens_N.mean()
    assert result.stderr == pytest.approx(expected, rel=1e-6)


def test_columns_that_say_nothing_new_change_nothing():
    rng = np.random.default_rng(0)
    clean = corpus(rng)
    anchors_KN, damage_N = noise(clean, rng, 0.8)
    nll_n = (clean.nll_N + damage_N)[:48]
    silent = np.zeros((1, SEQUENCES))
    more = np.concatenate([anchors_KN, silent, anchors_KN[:1] + 3 * anchors_KN[1:2]])
    few, many = (estimate_anchored(nll_n, clean, a[:, :500]) for a in (anchors_KN, more))
    assert many.log_ppl == pytest.approx(few.log_ppl, rel=1e-9)
    assert many.stderr == pytest.approx(few.stderr, rel=1e-6)
    # Windows are all equally long: their number of tokens is no column of its own.
    equal = CleanCorpus(clean.nll_N, np.full(SEQUENCES, 30))
    assert math.isfinite(estimate_anchored(nll_n, equal, anchors_KN).stderr)


def test_beyond_the_anchors_sequences_they_are_left_out_without_a_step():
    rng = np.random.default_rng(0)
    clean = corpus(rng)
    anchors_KN, damage_N = noise(clean, rng, 0.8)
    nll_N = clean.nll_N + damage_N
    none = np.empty((0, 0))
    for n in (200, 201, 260):
        assert estimate_anchored(nll_N[:n], clean, anchors_KN[:, :200]) == estimate_anchored(
            nll_N[:n], clean, none
        )
    before = estimate_anchored(nll_N[:199], clean, anchors_KN[:, :200])
    after = estimate_anchored(nll_N[:200], clean, anchors_KN[:, :200])
    assert before.stderr == pytest.approx(after.stderr, rel=0.1)
    assert after.stderr == pytest.approx(
        estimate(nll_N[:200], np.arange(200), clean).stderr, rel=0.2
    )


# --- coverage and bias by simulation ----------------------------------------------------


@pytest.mark.parametrize("damage", [noise, erasures])
@pytest.mark.parametrize("shared", [0.9, 0.0])
@pytest.mark.parametrize(("n", "m"), [(32, 256), (96, SEQUENCES)])
def test_interval_of_a_fixed_sample(damage, shared, n, m):
    rng = np.random.default_rng(5)
    clean = corpus(rng)
    anchors_KN, damage_N = damage(clean, rng, shared)
    results = []
    for _ in range(REPETITIONS):
        drawn, anchors, nll_N = shuffled(clean, anchors_KN, damage_N, rng)
        results.append(estimate_anchored(nll_N[:n], drawn, anchors[:, :m]))
    error = np.array([r.log_ppl for r in results]) - true_log_ppl(clean, damage_N)
    stderr = np.array([r.stderr for r in results])
    # Not overconfident either where the anchors are of no use.
    assert 0.93 <= np.mean(np.abs(error) <= 1.96 * stderr) <= 0.985
    assert abs(error.mean()) <= (0.1 + 3 / math.sqrt(REPETITIONS)) * error.std()


def test_the_anchors_spare_sequences_in_proportion_to_what_they_share():
    rng = np.random.default_rng(6)
    clean = corpus(rng)
    for shared, at_most in ((0.95, 0.5), (0.0, 1.5)):
        anchors_KN, damage_N = noise(clean, rng, shared)
        with_anchors, without = (
            np.mean(
                [
                    estimate_anchored(nll_N[:48], drawn, anchors).stderr
                    for drawn, anchors, nll_N in (
                        shuffled(clean, a, damage_N, np.random.default_rng(i)) for i in range(50)
                    )
                ]
            )
            for a in (anchors_KN, np.empty((0, SEQUENCES)))
        )
        assert with_anchors < at_most * without


@pytest.mark.parametrize(
    ("damage", "target", "least"),
    # Here all but what befell a few sequences is foretold exactly: the worst case that is known.
    [(noise, 0.04, 0.92), (erasures, 0.02, 0.86)],
)
def test_interval_of_a_sample_grown_to_a_target(damage, target, least):
    rng = np.random.default_rng(7)
    clean = corpus(rng)
    anchors_KN, damage_N = damage(clean, rng, 0.9)
    errors, sizes = [], []
    for _ in range(300):
        drawn, anchors, nll_N = shuffled(clean, anchors_KN, damage_N, rng)
        n = 0
        while n < SEQUENCES:
            n = min(next_sample_sequences(n), SEQUENCES)
            result = estimate_anchored(nll_N[:n], drawn, anchors[:, :384])
            if should_stop(result, target, MIN_EFFECTIVE_ANCHORED):
                break
        assert result.stderr <= target
        errors.append((result.log_ppl - true_log_ppl(clean, damage_N)) / result.stderr)
        sizes.append(n)
    assert least <= np.mean(np.abs(errors) <= 1.96) <= 0.985
    assert np.mean(sizes) < 0.5 * SEQUENCES
    assert min(sizes) == FIRST_SEQUENCES or damage is erasures


# --- when to stop, and how much of the anchors -------------------------------------------


def test_a_link_that_was_not_seen_at_work_does_not_stop():
    rng = np.random.default_rng(0)
    clean = corpus(rng)
    anchors_KN, _ = noise(clean, rng, 1.0)
    untouched = estimate_anchored(clean.nll_N[:64], clean, anchors_KN)
    assert untouched.log_ppl == clean.log_ppl
    assert not should_stop(untouched, 0.01, MIN_EFFECTIVE_ANCHORED)


def test_a_sample_smaller_than_the_columns_has_no_error_bar():
    rng = np.random.default_rng(0)
    clean = corpus(rng)
    anchors_KN, damage_N = noise(clean, rng, 0.9)
    assert estimate_anchored((clean.nll_N + damage_N)[:7], clean, anchors_KN).stderr == math.inf


def test_sizes_grow_by_sixteen_and_then_by_a_sixth():
    sizes = [0]
    while sizes[-1] < 300:
        sizes.append(next_sample_sequences(sizes[-1]))
    assert sizes[1:12] == [32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192]
    assert sizes[12] == 224


def best(damages_KM, clean, settings, target):
    return best_anchor_sequences(
        damages_KM, clean, settings=settings, target_stderr=target, step=64
    )


def test_the_more_settings_the_more_the_anchors_are_measured():
    rng = np.random.default_rng(0)
    clean = corpus(rng)
    anchors_KN, _ = noise(clean, rng, 1.0)
    pilot = anchors_KN[:, :128]
    sizes = [best(pilot, clean, settings, 0.005) for settings in (10, 100, 10_000)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1] == SEQUENCES
    # What any sample reaches needs no anchors beyond the pilot's.
    assert best(pilot, clean, 10_000, 1.0) == 128
    # Anchors that do not foretell each other are of no use, however many settings there are.
    strangers = rng.normal(size=(4, 128)) * np.sqrt(clean.tokens_N[:128])
    assert best(strangers, clean, 100, 0.01) < SEQUENCES
    assert best(pilot[:0], clean, 100, 0.01) == 128
    assert best(np.zeros((4, 128)), clean, 100, 0.01) == 128


# --- invalid numbers ---------------------------------------------------------------------


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_invalid_nll_is_never_averaged(poison):
    rng = np.random.default_rng(0)
    clean = corpus(rng)
    anchors_KN, damage_N = noise(clean, rng, 0.9)
    nll_n = (clean.nll_N + damage_N)[:48]
    nll_n[7] = poison
    with pytest.raises(InvalidNLLError, match=r"under the link in 1 of 48 sequences.* 7"):
        estimate_anchored(nll_n, clean, anchors_KN)
