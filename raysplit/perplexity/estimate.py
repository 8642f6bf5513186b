"""log PPL of a whole corpus from a random part of it, with its standard error.

Every sequence's clean NLL x_i and number of scored tokens t_i are known for the whole corpus; the
NLL y_i under the link is measured on a simple random sample s of n of the N sequences. The clean
NLL serves as a control variate, and the difference d_i = y_i - x_i is averaged per token by a
ratio estimator:

    r       = sum_s d_i / sum_s t_i
    log PPL = sum_N x_i / sum_N t_i + r

The error bar starts from the delete-one jackknife with the finite-population correction,

    e_i  = (d_i - r t_i) / (sum_s t - t_i)
    SE^2 = (1 - n/N) (n - 1)/n sum_s e_i^2

(e.g. Särndal, Swensson and Wretman, Model Assisted Survey Sampling, 1992, chapters 5 and 11). It is
0 once the whole corpus is measured: the estimate is for this corpus, not for a language. Where a
few sequences carry most of the damage (deep fades, rare losses) SE itself is uncertain. Two things
keep the interval honest then: SE is widened by Student's t with Satterthwaite's degrees of freedom
2n / (kurtosis of e - 1), and a sample counts as large only by its effective number of sequences,
(sum_s |e_i|)^2 / sum_s e_i^2, which is 0.64 n for a normal law and less the fewer matter. Damage
with far heavier tails than links on text were seen to do (lognormal with sigma 1.3) still leaves
a nominal 95 % interval at about 90 %.

Shape suffixes: N sequences of the corpus, n sequences measured.
"""

# scipy ships no type information:
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import special

from raysplit.base.arrays import FloatArray, IntArray

MIN_EFFECTIVE_SEQUENCES = 100

_NORMAL_QUANTILE = 1.959964  # of a two-sided 95 % interval


class InvalidNLLError(ValueError):
    """A sequence's NLL is NaN or infinite: there is no perplexity, and no average hides that."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """An estimate of a corpus' log PPL.

    Attributes:
        log_ppl: Natural logarithm of the perplexity of the whole corpus.
        stderr: Its standard error against the value that the whole corpus would give, widened so
            that log_ppl +- 1.96 stderr is a 95 % interval also for small and skewed samples.
        sequences: Sequences measured.
        tokens: Their scored tokens.
        effective_sequences: Sequences that the error bar rests on; at most `sequences`.
    """

    log_ppl: float
    stderr: float
    sequences: int
    tokens: int
    effective_sequences: float


@dataclass(frozen=True, slots=True, eq=False)
class CleanCorpus:
    """What is known of every sequence of the corpus, in drawing order.

    Attributes:
        nll_N: NLL over a perfect link, in nats, float64.
        tokens_N: Scored tokens, at least 1, int64.

    Raises:
        InvalidNLLError: If the model itself gives NaN or infinity on the corpus.
    """

    nll_N: FloatArray
    tokens_N: IntArray

    def __post_init__(self) -> None:
        assert self.nll_N.shape == self.tokens_N.shape
        assert self.tokens_N.min() >= 1
        refuse_invalid(self.nll_N, np.arange(len(self.nll_N)), "without any link effect")

    @property
    def log_ppl(self) -> float:
        """Natural logarithm of the clean perplexity (Eq. 6)."""
        return float(self.nll_N.sum() / self.tokens_N.sum())


def estimate(noisy_nll_n: FloatArray, sequence_indices_n: IntArray, clean: CleanCorpus) -> Estimate:
    """Estimate the corpus' log PPL from the sequences measured so far.

    Args:
        noisy_nll_n: NLL under the link, in nats.
        sequence_indices_n: Which sequences of the corpus they are, each at most once; a simple
            random sample of it (the beginning of a shuffled corpus is one).
        clean: The whole corpus over a perfect link.

    Raises:
        InvalidNLLError: If any NLL is NaN or infinite.
    """
    assert len(noisy_nll_n) == len(sequence_indices_n) == len(np.unique(sequence_indices_n)) > 0
    refuse_invalid(noisy_nll_n, sequence_indices_n, "under the link")
    difference_n = noisy_nll_n - clean.nll_N[sequence_indices_n]
    tokens_n = clean.tokens_N[sequence_indices_n]
    tokens = int(tokens_n.sum())
    ratio = float(difference_n.sum()) / tokens
    deviation_n = (difference_n - ratio * tokens_n) / np.maximum(tokens - tokens_n, 1)
    return Estimate(
        log_ppl=clean.log_ppl + ratio,
        stderr=_stderr(deviation_n, len(clean.nll_N)),
        sequences=len(noisy_nll_n),
        tokens=tokens,
        effective_sequences=effective_sequences(deviation_n),
    )


def should_stop(
    result: Estimate,
    target_stderr: float,
    min_effective_sequences: float = MIN_EFFECTIVE_SEQUENCES,
) -> bool:
    """Tell whether the estimate is precise enough, and known to be.

    Stopping as soon as an uncertain standard error happens to be small would make the intervals
    too narrow and the estimate biased. So it only counts once it rests on enough sequences: soon
    where the link does a little to every sequence, late where it does much to a few (and those
    that it leaves untouched cost nothing). A target of 0 never stops before the corpus ends.
    """
    known = result.effective_sequences >= min_effective_sequences
    return known and result.stderr <= target_stderr


def _stderr(deviation_n: FloatArray, population: int) -> float:
    """Return the widened standard error; infinite for one sequence of many."""
    sample = len(deviation_n)
    if sample == population:
        return 0.0
    if sample == 1:
        return math.inf
    square_sum = float(np.square(deviation_n).sum())
    if square_sum == 0:
        return 0.0
    variance = (1 - sample / population) * (sample - 1) / sample * square_sum
    return widening(degrees_of_freedom(deviation_n)) * math.sqrt(variance)


def degrees_of_freedom(deviation_n: FloatArray) -> float:
    """Return Satterthwaite's degrees of freedom of a sum of squares, not all of them 0."""
    square_n = np.square(deviation_n)
    kurtosis = len(square_n) * float(np.square(square_n / float(square_n.sum())).sum())
    return 2 * len(square_n) / max(kurtosis - 1, 1e-6)


def widening(freedom: float) -> float:
    """Return Student's quantile of a two-sided 95 % interval over the normal law's."""
    return float(special.stdtrit(freedom, 0.975)) / _NORMAL_QUANTILE


def effective_sequences(deviation_n: FloatArray) -> float:
    """Return how many sequences carry a sum of squares; 0 where there is none."""
    square_sum = float(np.square(deviation_n).sum())
    return float(np.abs(deviation_n).sum()) ** 2 / square_sum if square_sum > 0 else 0.0


def refuse_invalid(nll: FloatArray, sequence_indices: IntArray, where: str) -> None:
    """Refuse NaN and infinity.

    Raises:
        InvalidNLLError: With how many sequences there are and the first one.
    """
    invalid = ~np.isfinite(nll)
    if invalid.any():
        kind = "NaN" if np.isnan(nll[invalid]).any() else "infinite"
        raise InvalidNLLError(
            f"{kind} NLL {where} in {int(invalid.sum())} of {len(nll)} sequences, "
            f"first in sequence {int(sequence_indices[invalid][0])}"
        )
