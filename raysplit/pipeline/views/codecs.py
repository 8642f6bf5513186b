"""The best split point and codec over the link: from each codec's measured table and its budget.

Shape suffixes: X values of the link coordinate, P split points, L values of the table's coordinate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from raysplit.base.arrays import FloatArray
from raysplit.figures import CodecCurve, CodecMap
from raysplit.link.codec import Codec
from raysplit.measure.table import Measurements
from raysplit.model.sizes import Sizes
from raysplit.pipeline.budget import budget_terms
from raysplit.pipeline.experiment import Experiment

_Z95 = 1.96


def codec_map(
    experiment: Experiment, sizes: Sizes, table_by_codec: Mapping[str, Measurements]
) -> CodecMap | None:
    """Return the map, None where bits cost nothing, or where there is no choice of codec.

    In digital mode the link is the radio's SNR in steps of at most a quarter of a dB, elsewhere the
    values that were measured; of several link coordinates there is no map.

    Args:
        experiment: The problem, its radio and its budget.
        sizes: The model's.
        table_by_codec: Measured perplexities over every split point and link state.
    """
    problem = experiment.problem
    if problem.reward != "budget" or len(table_by_codec) < 2 or len(problem.link) > 1:
        return None
    values_X = _values(experiment, table_by_codec)
    found = {
        codec: _objective(_with_codec(experiment, codec), sizes, table, values_X)
        for codec, table in table_by_codec.items()
    }
    best_X = np.min([one.percent_PX.min(axis=0) for one in found.values()], axis=0)
    columns_X = np.arange(len(values_X))
    curves: list[CodecCurve] = []
    for codec, one in found.items():
        row_X = one.percent_PX.argmin(axis=0)
        curves.append(
            CodecCurve(
                codec=codec,
                split_points_X=problem.min_split_point + row_X,
                percent_X=one.percent_PX[row_X, columns_X] - best_X,
                half_X=_Z95 * one.stderr_PX[row_X, columns_X],
            )
        )
    return CodecMap(
        coordinate=problem.link_names[0],
        values_X=values_X,
        curves=curves,
        split_points=(problem.min_split_point, problem.max_split_point),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Objective:
    """The objective with one codec, in percent of the clean PPL, and its standard error, (P, X)."""

    percent_PX: FloatArray
    stderr_PX: FloatArray


def _objective(
    experiment: Experiment, sizes: Sizes, table: Measurements, values_X: FloatArray
) -> _Objective:
    loss = experiment.token_loss()
    log_ppl_PX, stderr_PX = _measured(table, values_X if loss is None else loss.at(values_X))
    share_PX = np.exp(log_ppl_PX - table.clean_log_ppl)
    if loss is None:
        cost_PX = budget_terms(experiment, sizes).total_P[:, None]
    else:
        terms = [budget_terms(experiment, sizes, snr_db) for snr_db in values_X.tolist()]
        cost_PX = np.stack([one.total_P for one in terms], axis=1)
    return _Objective(100 * (share_PX + cost_PX), 100 * share_PX * stderr_PX)


def _measured(table: Measurements, at_X: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return log PPL and its standard error, (P, X), linear between what was measured."""
    axis_L = np.unique(table.link_states_NK[:, 0])
    order_N = np.lexsort((table.link_states_NK[:, 0], table.split_points_N))
    log_ppl_PX, stderr_PX = (
        np.stack(
            [np.interp(at_X, axis_L, of_p_L) for of_p_L in of_N[order_N].reshape(-1, len(axis_L))]
        )
        for of_N in (table.log_ppl_N, table.stderr_N)
    )
    return log_ppl_PX, stderr_PX


def _values(experiment: Experiment, table_by_codec: Mapping[str, Measurements]) -> FloatArray:
    loss = experiment.token_loss()
    if loss is not None:
        return loss.snr_db_X
    return np.unique(next(iter(table_by_codec.values())).link_states_NK[:, 0])


def _with_codec(experiment: Experiment, codec: str) -> Experiment:
    """Return the experiment whose hidden states are all sent with one codec."""
    problem = experiment.problem.model_copy(update={"codecs": (Codec(codec).name,)})
    return experiment.model_copy(update={"problem": problem})
