"""Fit the surrogate to a table of measurements by cross-validation.

Shape suffixes: N rows, F folds, R cuts into folds, M = R F members.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from raysplit.base.arrays import BoolArray, Float32Array, FloatArray, IntArray
from raysplit.base.errors import UserError
from raysplit.link.codec import IDENTITY
from raysplit.measure.table import Measurements
from raysplit.surrogate.config import SurrogateConfig
from raysplit.surrogate.model import Scaling, Surrogate, Weights
from raysplit.surrogate.quality import FitReport, report

if TYPE_CHECKING:
    from raysplit.surrogate.training import TrainingRows

FIT_FORM = 2
"""A number raised by hand when the same rows give another surrogate than before."""
_SMALLEST_MODEL_ERROR = 0.005  # log PPL; keeps rows with tiny error bars from ruling the fit


def fit(
    table: Measurements,
    config: SurrogateConfig,
    seed: int,
    *,
    split_points: tuple[int, int] | None = None,
    perfect_link: tuple[float, ...] | None = None,
    repeats: int = 1,
) -> tuple[Surrogate, FitReport]:
    """Fit one member a fold and judge each on the rows it did not see.

    Rows weigh by the inverse of their variance, capped so that none counts more than twice what a
    typical row does.

    Args:
        table: Measured rows.
        config: Size and training of the members.
        seed: Of folds and networks.
        split_points: First and last one to answer for; by default the table's own. One without a
            row is read off the trend over its neighbours.
        perfect_link: Link coordinates at which the link changes nothing. What every split point's
            log PPL is there, without a codec, needs no measuring: all members learn it, and rows
            that were measured there are neither learned nor judged.
        repeats: How often the rows are cut into folds, each time otherwise: so many times
            `config.folds` members.

    Raises:
        UserError: If the table has fewer than two rows a fold.
    """
    from raysplit.surrogate.training import train_members

    start = time.perf_counter()
    learned = table
    if perfect_link is not None and IDENTITY.name in table.codecs:
        table = _elsewhere(table, perfect_link)
        learned = _with_perfect_link(table, perfect_link, split_points)
    if len(table) < 2 * config.folds:
        raise UserError(
            f"{len(table)} measured rows cannot be cut into {config.folds} folds of at least 2; "
            "measure more settings or lower surrogate.folds"
        )
    scaling = _scaling(learned, split_points)
    rng = np.random.default_rng(seed)
    folds_RN = np.stack([rng.permutation(len(table)) % config.folds for _ in range(repeats)])
    held_out_RFN = folds_RN[:, None] == np.arange(config.folds)[:, None]
    held_out_MN = held_out_RFN.reshape(-1, len(table))
    rows = _training_rows(learned, scaling, held_out_MN)
    surrogate = Surrogate(
        link_names=table.link_names,
        clean_log_ppl=table.clean_log_ppl,
        scaling=scaling,
        weights=Weights(**train_members(rows, config, seed)),
        codecs=table.codecs,
    )
    members_MN = surrogate.predict_members(*_of(table))
    # Each row is held out by one member a cut.
    held_out_N = (members_MN * held_out_MN).sum(axis=0) / repeats
    seconds = time.perf_counter() - start
    return surrogate, report(table, held_out_N, folds=config.folds, seconds=seconds)


def _elsewhere(table: Measurements, perfect_link: tuple[float, ...]) -> Measurements:
    """Return the rows that were not measured over a perfect link without a codec."""
    perfect_N = (table.link_states_NK == perfect_link).all(axis=1)
    return table.select(~perfect_N | (table.codec_indices_N != table.codecs.index(IDENTITY.name)))


def _with_perfect_link(
    table: Measurements, perfect_link: tuple[float, ...], split_points: tuple[int, int] | None
) -> Measurements:
    """Return the table and, behind its rows, one of each split point over a perfect link."""
    first, last = split_points or _seen(table)
    count = last - first + 1
    codecs_N = np.full(count, table.codecs.index(IDENTITY.name))
    return replace(
        table,
        split_points_N=np.append(table.split_points_N, np.arange(first, last + 1)),
        link_states_NK=np.vstack([table.link_states_NK, np.tile(perfect_link, (count, 1))]),
        log_ppl_N=np.append(table.log_ppl_N, np.full(count, table.clean_log_ppl)),
        stderr_N=np.append(table.stderr_N, np.zeros(count)),
        anchor_sequences_N=None,
        codecs_N=np.append(table.codec_indices_N, codecs_N),
    )


def _training_rows(learned: Measurements, scaling: Scaling, held_out_MN: BoolArray) -> TrainingRows:
    """Return what the members learn; rows beyond those of `held_out_MN` are learned by all."""
    from raysplit.surrogate.training import TrainingRows

    measured = held_out_MN.shape[1]
    first, last = scaling.split_points
    targets_N = (learned.log_ppl_N - scaling.output_mean) / scaling.output_std
    return TrainingRows(
        inputs_NI=scaling.inputs(*_of(learned)),
        split_indices_N=learned.split_points_N - first,
        split_points=last - first + 1,
        targets_N=targets_N.astype(np.float32),
        weights_N=_row_weights(learned.stderr_N, learned.stderr_N[:measured]),
        held_out_MN=np.pad(held_out_MN, ((0, 0), (0, len(learned) - measured))),
    )


def _of(table: Measurements) -> tuple[IntArray, FloatArray, IntArray]:
    return table.split_points_N, table.link_states_NK, table.codec_indices_N


def _scaling(table: Measurements, split_points: tuple[int, int] | None) -> Scaling:
    return Scaling(
        split_points=split_points or _seen(table),
        low_K=table.link_states_NK.min(axis=0),
        high_K=table.link_states_NK.max(axis=0),
        output_mean=float(table.log_ppl_N.mean()),
        output_std=float(table.log_ppl_N.std()) or 1.0,
        codecs=len(table.codecs),
    )


def _seen(table: Measurements) -> tuple[int, int]:
    return int(table.split_points_N.min()), int(table.split_points_N.max())


def _row_weights(stderr_N: FloatArray, measured_stderr_N: FloatArray) -> Float32Array:
    floor = max(float(np.median(measured_stderr_N)), _SMALLEST_MODEL_ERROR)
    weights_N = 1 / (stderr_N**2 + floor**2)
    return (weights_N / weights_N.mean()).astype(np.float32)
