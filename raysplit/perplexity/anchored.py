"""log PPL of a whole corpus from few sequences, by what other settings did to the same ones.

Under common random numbers the damage d_i = NLL over the link - clean NLL that sequence i takes in
one setting foretells that in another. A few anchor settings are therefore measured on the first M
sequences in drawing order, and any other setting with their seed on the first n < M of these
(double sampling: Särndal, Swensson and Wretman, Model Assisted Survey Sampling, 1992, chapter 9;
multi-fidelity Monte Carlo: Peherstorfer, Willcox and Gunzburger, SIAM J. Sci. Comput. 38, 2016).
The corpus comes shuffled, so both are simple random samples of its N sequences.

Least squares over the n sequences give d_i = z_i b + e_i with z_i = (1, t_i, x_i, a_i1 .. a_iK):
scored tokens, clean NLL and the anchors' damages. With the mean of z over the corpus known,

    log PPL = sum_N x_i / sum_N t_i + z_mean b / t_mean.

The means of 1, t and x are exact; those of the anchors are themselves estimated from the M
sequences by their regression on (1, t, x). So the error has two parts, the residuals' over n and
that of what the anchors explain, u_i = sum_k b_k (a_ik - its regression), over M:

    t_mean^2 SE^2 = (1 - n/N) sum_n (w_i e_(i))^2 + (1 - M/N) sum_M (v_i u_(i))^2

with the weights of the two regressions, z_mean b = sum_n w_i d_i and a_mean = sum_M v_i a_i. The
residuals e_(i) are those of regressions without sequence i (`raysplit.perplexity.regression`), so
anchors that foretell nothing only cost precision. SE is widened for its own uncertainty as in
`raysplit.perplexity.estimate`. Where the anchors foretell all but what befell a few sequences, a
sample that stops at its target leaves a nominal 95 % interval at about 88 % (simulated; for noise
and erasures on the embedded model see bench/anchors.py). From n = M on the anchors say nothing more
and are left out.

Shape suffixes: N sequences of the corpus, M of the anchors, n of the setting, K anchors, C columns
of a regression.
"""

from __future__ import annotations

import math

import numpy as np

from raysplit.base.arrays import FloatArray
from raysplit.perplexity.estimate import CleanCorpus, Estimate, refuse_invalid
from raysplit.perplexity.regression import Error, Regression

FIRST_SEQUENCES = 32
"""The fewest of an anchored estimate."""
MIN_EFFECTIVE_ANCHORED = 16
"""The fewest effective ones."""
_SEQUENCES_STEP = 16
_VARIANCE_OF_SETTINGS = 0.4  # of the anchors'; only what is cheapest depends on it


def estimate_anchored(
    noisy_nll_n: FloatArray, clean: CleanCorpus, anchor_damages_KM: FloatArray
) -> Estimate:
    """Estimate the corpus' log PPL from its first n sequences.

    Args:
        noisy_nll_n: NLL under the link in drawing order, in nats.
        clean: The whole corpus over a perfect link.
        anchor_damages_KM: NLL under the link less the clean NLL (nats) of the first M sequences in
            each of K settings with the same seed; K may be 0.

    Raises:
        InvalidNLLError: If any NLL is NaN or infinite.
    """
    n, population = len(noisy_nll_n), len(clean.nll_N)
    refuse_invalid(noisy_nll_n, np.arange(n), "under the link")
    damage_n = noisy_nll_n - clean.nll_N[:n]
    if n == population:
        mean, error = float(damage_n.mean()), Error(0.0, math.inf, n)
    else:
        mean, error = _regressed(damage_n, clean, anchor_damages_KM)
    tokens_mean = float(clean.tokens_N.mean())
    return Estimate(
        log_ppl=clean.log_ppl + mean / tokens_mean,
        stderr=error.widened_stderr() / tokens_mean,
        sequences=n,
        tokens=int(clean.tokens_N[:n].sum()),
        effective_sequences=error.effective_sequences,
    )


def _regressed(
    damage_n: FloatArray, clean: CleanCorpus, anchor_damages_KM: FloatArray
) -> tuple[float, Error]:
    """Return the corpus' mean damage by the regression on what is known, and its error."""
    population, n, m = len(clean.nll_N), len(damage_n), anchor_damages_KM.shape[1]
    known_NC = known_columns(clean)
    known_mean_C = known_NC.mean(axis=0)
    if n >= m or not len(anchor_damages_KM):
        fit = Regression(known_NC[:n], known_mean_C)
        return fit.mean(damage_n), fit.error(damage_n, population)
    anchor_fit = Regression(known_NC[:m], known_mean_C)
    anchor_mean_K = [anchor_fit.mean(damage_M) for damage_M in anchor_damages_KM]
    fit = Regression(
        np.concatenate([known_NC[:n], anchor_damages_KM[:, :n].T], axis=1),
        np.append(known_mean_C, anchor_mean_K),
    )
    slopes_K = fit.coefficients(damage_n)[known_NC.shape[1] :]
    explained_M = (slopes_K[:, None] * anchor_damages_KM).sum(axis=0)
    return fit.mean(damage_n), (
        fit.error(damage_n, population) + anchor_fit.error(explained_M, population)
    )


def seed_stderr(one_damage_M: FloatArray, other_damage_M: FloatArray, clean: CleanCorpus) -> float:
    """Return the standard deviation of the corpus' log PPL over seeds of the link.

    Settings that share a seed share what it does, so their differences are far better known. The
    link's draws are independent between sequences; half of the mean squared difference between
    two seeds is therefore what a sequence's NLL varies by, and the corpus' mean by 1/N of it.

    Args:
        one_damage_M: NLL over the link less the clean NLL of the first M sequences (nats).
        other_damage_M: The same setting under another seed, of the first M' sequences.
        clean: The whole corpus over a perfect link.
    """
    m = min(len(one_damage_M), len(other_damage_M))
    variance = float(np.square(one_damage_M[:m] - other_damage_M[:m]).mean()) / 2
    return math.sqrt(variance / len(clean.nll_N)) / float(clean.tokens_N.mean())


def next_sample_sequences(sequences_done: int) -> int:
    """Return how many sequences the next larger sample has: at first 32, then a sixth more."""
    if sequences_done < FIRST_SEQUENCES:
        return FIRST_SEQUENCES
    return sequences_done + _SEQUENCES_STEP * max(1, sequences_done // (6 * _SEQUENCES_STEP))


def best_anchor_sequences(
    damages_KM: FloatArray,
    clean: CleanCorpus,
    *,
    settings: int,
    target_stderr: float,
    step: int,
) -> int:
    """Return how many sequences to measure the anchors on: the least work for all settings.

    The settings are taken to have 0.4 of the anchors' variance, as those stand at the bad end (over
    plans on the embedded model it is 0.28 for noise and 0.67 for erasures), and to be foretold as
    well as that anchor is which the others foretell best: of a variance a part e^2 is then not
    explained and a part u^2 is. With the anchors on m sequences a setting needs n, where

        t_mean^2 SE^2 = e^2 (1/n - 1/N) + u^2 (1/m - 1/N),

    or more than m where the anchors are of no use; the m with the smallest
    K m + settings x (mean of n) is taken.

    Args:
        damages_KM: The anchors' damages on their first M sequences, a pilot sample.
        clean: The whole corpus over a perfect link.
        settings: How many other settings are to be estimated.
        target_stderr: The standard error that is wanted of each.
        step: The answer is a multiple of this, at least M, or the whole corpus.
    """
    anchors, pilot = damages_KM.shape
    population = len(clean.nll_N)
    if not anchors:
        return pilot
    known_MC = known_columns(clean)[:pilot]
    plain_K = np.array([_unexplained(known_MC, damage_M) for damage_M in damages_KM])
    foretold_K = [
        _unexplained(np.column_stack([known_MC, np.delete(damages_KM, k, axis=0).T]), damages_KM[k])
        for k in range(anchors)
    ]
    unexplained_share = min(
        (left / all_ for left, all_ in zip(foretold_K, plain_K, strict=True) if all_), default=0.0
    )
    target = (target_stderr * float(clean.tokens_N.mean())) ** 2

    def sequences(variance: float, m: int) -> float:
        unexplained = min(unexplained_share, 1.0) * variance
        left = target - (variance - unexplained) * (1 / m - 1 / population)
        n = unexplained / (left + unexplained / population) if left > 0 else math.inf
        alone = variance / (target + variance / population)
        return max(n if n < m else max(alone, m), FIRST_SEQUENCES)

    def work(m: int) -> float:
        variances = _VARIANCE_OF_SETTINGS * plain_K
        mean_n = float(np.mean([sequences(variance, m) for variance in variances.tolist()]))
        return anchors * m + settings * mean_n

    return min({*range(pilot, population, step), population}, key=lambda m: (work(m), m))


def known_columns(clean: CleanCorpus) -> FloatArray:
    """Return what is known of every sequence: (N, 3) ones, scored tokens and clean NLL."""
    return np.stack(
        [np.ones(len(clean.nll_N)), clean.tokens_N.astype(np.float64), clean.nll_N], axis=1
    )


def _unexplained(z_nC: FloatArray, y_n: FloatArray) -> float:
    """Return the variance of what a regression leaves of y."""
    return Regression(z_nC, z_nC.mean(axis=0)).residual_variance(y_n)
