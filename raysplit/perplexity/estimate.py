"""log PPL of a whole corpus from a random part of it, with its standard error.

Every sequence's clean NLL x_i and number of scored tokens t_i are known for the whole corpus; the
NLL y_i under the link is measured on a simple random sample s of n of the N sequences. The clean
NLL serves as a control variate, and the difference d_i = y_i - x_i is averaged per token by a
ratio estimator:

    r       = sum_s d_i / sum_s t_i
    log PPL = sum_N x_i / sum_N t_i + r

Its standard error is the delete-one jackknife's with the finite-population correction,

    SE^2 = (1 - n/N) (n - 1)/n sum_s ( (d_i - r t_i) / (sum_s t - t_i) )^2

(e.g. Särndal, Swensson and Wretman, Model Assisted Survey Sampling, 1992, chapters 5 and 11),
which is 0 once the whole corpus is measured: the estimate is for this corpus, not for a language.

Shape suffixes: N sequences of the corpus, n sequences measured.
"""

# scipy ships no type information:
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

MIN_SEQUENCES = 128
MIN_CHANGED = 64


class InvalidNLLError(ValueError):
    """A sequence's NLL is NaN or infinite: there is no perplexity, and no average hides that."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """An estimate of a corpus' log PPL.

    Attributes:
        log_ppl: Natural logarithm of the perplexity of the whole corpus.
        stderr: Its standard error against the value that the whole corpus would give.
        sequences: Sequences measured.
        tokens: Their scored tokens.
        changed: Sequences whose NLL differs from the clean one.
    """

    log_ppl: float
    stderr: float
    sequences: int
    tokens: int
    changed: int

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Return the confidence interval of log PPL, by Student's t."""
        freedom = max(1, min(self.sequences, self.changed) - 1)
        half = float(special.stdtrit(freedom, 0.5 + confidence / 2)) * self.stderr
        return self.log_ppl - half, self.log_ppl + half


@dataclass(frozen=True, slots=True, eq=False)
class CleanCorpus:
    """What is known of every sequence of the corpus, in drawing order.

    Attributes:
        nll_N: NLL over a perfect link, in nats, float64.
        tokens_N: Scored tokens, at least 1, int64.

    Raises:
        InvalidNLLError: If the model itself gives NaN or infinity on the corpus.
    """

    nll_N: NDArray[np.float64]
    tokens_N: NDArray[np.int64]

    def __post_init__(self) -> None:
        assert self.nll_N.shape == self.tokens_N.shape
        assert self.tokens_N.min() >= 1
        _refuse_invalid(self.nll_N, np.arange(len(self.nll_N)), "without any link effect")

    @property
    def log_ppl(self) -> float:
        """Natural logarithm of the clean perplexity (Eq. 6)."""
        return float(self.nll_N.sum() / self.tokens_N.sum())


def estimate(
    noisy_nll_n: NDArray[np.float64], sequence_indices_n: NDArray[np.int64], clean: CleanCorpus
) -> Estimate:
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
    _refuse_invalid(noisy_nll_n, sequence_indices_n, "under the link")
    difference_n = noisy_nll_n - clean.nll_N[sequence_indices_n]
    tokens_n = clean.tokens_N[sequence_indices_n]
    tokens = int(tokens_n.sum())
    ratio = float(difference_n.sum()) / tokens
    return Estimate(
        log_ppl=clean.log_ppl + ratio,
        stderr=_stderr(difference_n - ratio * tokens_n, tokens_n, len(clean.nll_N)),
        sequences=len(noisy_nll_n),
        tokens=tokens,
        changed=int(np.count_nonzero(difference_n)),
    )


def should_stop(result: Estimate, target_stderr: float) -> bool:
    """Tell whether the estimate is precise enough.

    A standard error from few sequences is itself uncertain, and stopping as soon as it happens to
    be small would make the intervals too narrow. So it counts only from `MIN_SEQUENCES` on, of
    which `MIN_CHANGED` must differ from clean: when the link rarely touches a sequence, a sample
    without a touched one says nothing (and the untouched ones cost nothing). A target of 0 never
    stops early.
    """
    return (
        result.sequences >= MIN_SEQUENCES
        and result.changed >= MIN_CHANGED
        and result.stderr <= target_stderr
    )


def _stderr(residual_n: NDArray[np.float64], tokens_n: NDArray[np.int64], population: int) -> float:
    """Return the jackknife's standard error of the ratio; infinite for one sequence of many."""
    sample = len(residual_n)
    if sample == population:
        return 0.0
    if sample == 1:
        return float("inf")
    deviation_n = residual_n / (tokens_n.sum() - tokens_n)
    variance = (1 - sample / population) * (sample - 1) / sample * np.square(deviation_n).sum()
    return float(np.sqrt(variance))


def _refuse_invalid(
    nll: NDArray[np.float64], sequence_indices: NDArray[np.int64], where: str
) -> None:
    invalid = ~np.isfinite(nll)
    if invalid.any():
        kind = "NaN" if np.isnan(nll[invalid]).any() else "infinite"
        raise InvalidNLLError(
            f"{kind} NLL {where} in {int(invalid.sum())} of {len(nll)} sequences, "
            f"first in sequence {int(sequence_indices[invalid][0])}"
        )
