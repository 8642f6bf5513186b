"""The mean of a population by least squares on columns whose means are known; its honest error.

A residual y_i - z_i b is scaled by 1 / (1 - h_i) (h: leverage): it is then that of a regression
without sequence i, so what was fitted to the chances of a small sample does not pass for knowledge
(the jackknife; MacKinnon and White's HC3, J. Econometrics 29, 1985).

Shape suffixes: n sequences, C columns, R of them that are no sum of others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from raysplit.base.arrays import BoolArray, FloatArray
from raysplit.perplexity.estimate import degrees_of_freedom, effective_sequences, widening

_MOST_LEVERAGE = 0.99  # what a regression would be without such a sequence is not known
_SMALLEST_DEVIATION = 0.01
_SMALLEST_COLUMN = 1e-10  # of its sum of squares, once the columns before it are taken out


@dataclass(frozen=True, slots=True)
class Error:
    """A variance, how well it is known, and how many sequences carry it."""

    variance: float
    freedom: float
    effective_sequences: float

    def __add__(self, other: Error) -> Error:
        """Add an independent one: Satterthwaite's rule."""
        variance = self.variance + other.variance
        if not 0 < variance < math.inf:
            return Error(variance, math.inf, 0.0)
        seen = self.effective_sequences > 0 and other.effective_sequences > 0
        shares = [(part, (part.variance / variance) ** 2) for part in (self, other)]
        shares = [(part, share) for part, share in shares if share > 0]
        return Error(
            variance,
            1 / sum(share / part.freedom for part, share in shares),
            1 / sum(share / part.effective_sequences for part, share in shares) if seen else 0.0,
        )

    def widened_stderr(self) -> float:
        """Return the standard error whose 1.96-fold is half of a 95 % interval."""
        if not 0 < self.variance < math.inf:
            return self.variance
        return widening(self.freedom) * math.sqrt(self.variance)


class Regression:
    """Least squares on columns whose means over the corpus are known.

    Columns that others before them make up are left out. Sums are NumPy's own and not BLAS', whose
    order depends on the number of threads.
    """

    def __init__(self, z_nC: FloatArray, z_mean_C: FloatArray) -> None:
        self._q_Rn, self._r_RC, self._kept_R = _orthogonal(z_nC)
        mean_R = np.linalg.solve(self._r_RC[:, self._kept_R].T, z_mean_C[self._kept_R])
        self._weights_n = (mean_R[:, None] * self._q_Rn).sum(axis=0)
        self._leverage_n = np.square(self._q_Rn).sum(axis=0)

    def mean(self, y_n: FloatArray) -> float:
        """Return the estimate of y's mean over the corpus."""
        return float((self._weights_n * y_n).sum())

    def coefficients(self, y_n: FloatArray) -> FloatArray:
        """Return one for each column, 0 for those that are left out."""
        coefficients_C = np.zeros(self._r_RC.shape[1])
        coefficients_C[self._kept_R] = np.linalg.solve(
            self._r_RC[:, self._kept_R], (self._q_Rn * y_n).sum(axis=1)
        )
        return coefficients_C

    def error(self, y_n: FloatArray, population: int) -> Error:
        """Return the error of `mean`."""
        n, freedom = len(y_n), len(y_n) - len(self._kept_R)
        if freedom < 1 or self._leverage_n.max() > _MOST_LEVERAGE:
            return Error(math.inf, math.inf, 0.0)
        residual_n = self._residual(y_n)
        contribution_n = self._weights_n * residual_n / (1 - self._leverage_n)
        variance = float(np.square(contribution_n).sum())
        if variance == 0:
            return Error(0.0, math.inf, 0.0)
        return Error(
            (1 - n / population) * variance,
            min(freedom, degrees_of_freedom(contribution_n)),
            effective_sequences(contribution_n[_deviates(residual_n, y_n)]),
        )

    def residual_variance(self, y_n: FloatArray) -> float:
        """Return the variance of y that the columns leave unexplained."""
        return float(np.square(self._residual(y_n)).sum()) / max(len(y_n) - len(self._kept_R), 1)

    def _residual(self, y_n: FloatArray) -> FloatArray:
        return y_n - ((self._q_Rn * y_n).sum(axis=1)[:, None] * self._q_Rn).sum(axis=0)


def _deviates(residual_n: FloatArray, y_n: FloatArray) -> BoolArray:
    """Tell what has seen the columns fail: less than a hundredth of y may be rounding alone.

    Losses that are nested in those of a column are foretold exactly until one differs. Such a
    sample says nothing about how often that is.
    """
    return np.abs(residual_n) > _SMALLEST_DEVIATION * math.sqrt(float(np.square(y_n).mean()))


def _orthogonal(z_nC: FloatArray) -> tuple[FloatArray, FloatArray, list[int]]:
    """Return orthonormal rows q, r with z.T = r.T q, and which columns gave a row.

    Modified Gram-Schmidt, twice over, which leaves rounding errors only.
    """
    n, columns = z_nC.shape
    rows: list[FloatArray] = []
    r_CC, kept = np.zeros((columns, columns)), list[int]()
    for c in range(columns):
        rest_n = z_nC[:, c].astype(np.float64)
        before = float(np.square(rest_n).sum())
        for _ in range(2):
            for k, q_n in enumerate(rows):
                shared = float((q_n * rest_n).sum())
                r_CC[k, c] += shared
                rest_n = rest_n - shared * q_n
        square = float(np.square(rest_n).sum())
        if square > _SMALLEST_COLUMN * before:
            r_CC[len(rows), c] = math.sqrt(square)
            rows.append(rest_n / math.sqrt(square))
            kept.append(c)
    return np.array(rows).reshape(len(rows), n), r_CC[: len(rows)], kept
