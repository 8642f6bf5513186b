"""How good a surrogate is on rows that the judging member never learned from.

Shape suffixes: N rows of the table, G rows with a partner at the smallest split point.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from raysplit.base.arrays import FloatArray, IntArray
from raysplit.base.errors import UserError
from raysplit.base.sealed_json import read_sealed, write_sealed
from raysplit.measure.table import Measurements

REPORT_FILE = "fit.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorStatistics:
    """Errors of predictions against measured values.

    Attributes:
        count: Rows compared.
        mse: Mean squared error.
        mae: Mean absolute error.
        r2: Coefficient of determination.
        rank_correlation: Spearman's rho.
    """

    count: int
    mse: float
    mae: float
    r2: float
    rank_correlation: float

    @staticmethod
    def of(measured_N: FloatArray, predicted_N: FloatArray) -> ErrorStatistics:
        """Compare; R² and the rank correlation are 0 where the measured values do not vary."""
        from raysplit.base.statistics import rank_correlation  # loads slowly; predicting needs none

        error_N = predicted_N - measured_N
        correlation = rank_correlation(measured_N, predicted_N)
        mse, variance = float(np.mean(error_N**2)), float(np.var(measured_N))
        return ErrorStatistics(
            count=len(measured_N),
            mse=mse,
            mae=float(np.mean(np.abs(error_N))),
            r2=1 - mse / variance if variance > 0 else 0.0,
            rank_correlation=0.0 if math.isnan(correlation) else correlation,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FitReport:
    """What fitting found, with the data of the parity plots.

    Each row is predicted by the one member that did not learn from it, so the ensemble itself is
    a little better than this; that member was stopped on the same fold, so it is a little worse.

    Attributes:
        rows: Rows of the table.
        folds: Members of the ensemble.
        seconds: Wall-clock time of the fit.
        log_ppl: Held-out errors of log PPL.
        noise_mse: Mean squared standard error of the rows: what a perfect surrogate would leave.
        gain: Held-out errors of the relative gain g = 1 - PPL(p, state) / PPL(p_min, state), or
            None where no link state was measured at p_min and at another split point.
        measured_log_ppl_N: Measured values.
        predicted_log_ppl_N: Held-out predictions.
        measured_gain_G: The same for the gain; empty where `gain` is None.
        predicted_gain_G: Held-out predictions of the gain.
    """

    rows: int
    folds: int
    seconds: float
    log_ppl: ErrorStatistics
    noise_mse: float
    gain: ErrorStatistics | None
    measured_log_ppl_N: FloatArray
    predicted_log_ppl_N: FloatArray
    measured_gain_G: FloatArray
    predicted_gain_G: FloatArray

    def save(self, folder: Path) -> None:
        """Write the report as JSON."""
        folder.mkdir(parents=True, exist_ok=True)
        content = dataclasses.asdict(self)
        plain = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in content.items()}
        write_sealed(folder / REPORT_FILE, plain)

    @staticmethod
    def load(folder: Path) -> FitReport:
        """Read a report that `save` wrote.

        Raises:
            UserError: If the file is missing or damaged.
        """
        try:
            plain = read_sealed(folder / REPORT_FILE, "fit the surrogate again")
            plain["log_ppl"] = ErrorStatistics(**plain["log_ppl"])
            plain["gain"] = None if plain["gain"] is None else ErrorStatistics(**plain["gain"])
            for name in ("log_ppl_N", "gain_G"):
                for kind in ("measured", "predicted"):
                    plain[f"{kind}_{name}"] = np.array(plain[f"{kind}_{name}"], dtype=np.float64)
            return FitReport(**plain)
        except (TypeError, KeyError) as error:  # of another version
            raise UserError(
                f"{folder / REPORT_FILE}: no complete report of a fit ({error!r}); fit again"
            ) from error


def report(
    table: Measurements, predicted_log_ppl_N: FloatArray, *, folds: int, seconds: float
) -> FitReport:
    """Judge held-out predictions of a table's log PPL."""
    later_G, first_G = gain_pairs(table)

    def gain(log_ppl_N: FloatArray) -> FloatArray:
        return -np.expm1(log_ppl_N[later_G] - log_ppl_N[first_G])

    measured_gain_G, predicted_gain_G = gain(table.log_ppl_N), gain(predicted_log_ppl_N)
    return FitReport(
        rows=len(table),
        folds=folds,
        seconds=seconds,
        log_ppl=ErrorStatistics.of(table.log_ppl_N, predicted_log_ppl_N),
        noise_mse=float(np.mean(table.stderr_N**2)),
        gain=ErrorStatistics.of(measured_gain_G, predicted_gain_G) if len(later_G) else None,
        measured_log_ppl_N=table.log_ppl_N,
        predicted_log_ppl_N=predicted_log_ppl_N,
        measured_gain_G=measured_gain_G,
        predicted_gain_G=predicted_gain_G,
    )


def gain_pairs(table: Measurements) -> tuple[IntArray, IntArray]:
    """Return rows (G,) beyond the smallest split point and their partners (G,) at it.

    Partners have the same codec, and the same link state to the last bit; rows without one are
    left out.
    """
    smallest = table.split_points_N.min()
    both = zip(table.codec_indices_N.tolist(), table.link_states_NK.tolist(), strict=True)
    states = [(codec, *state) for codec, state in both]
    partner = {states[n]: n for n in np.flatnonzero(table.split_points_N == smallest).tolist()}
    later = [
        n for n in np.flatnonzero(table.split_points_N > smallest).tolist() if states[n] in partner
    ]
    partners = [partner[states[n]] for n in later]
    return np.array(later, dtype=np.int64), np.array(partners, dtype=np.int64)
