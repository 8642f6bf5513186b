"""Which settings to measure next, so that the best split point is known: the knowledge gradient.

The members of an ensemble stand for what is believed of log PPL, l(s), at every setting s = (p, x),
and so of the reward r(p, x). A measurement of s with error variance tau^2 will move the believed
mean of all rewards at once, by sigma_s(p, x) Z with a standard normal Z and

    sigma_s(p, x) = cov(r(p, x), l(s)) / sqrt(var(l(s)) + tau^2).

What it is worth is by how much the rewards of the then best split points are expected to exceed
those of the now best ones, in the mean over the link states x:

    KG(s) = mean_x { E_Z[ max_p (r(p, x) + sigma_s(p, x) Z) ] - max_p r(p, x) }

(Frazier, Powell and Dayanik, "The knowledge-gradient policy for correlated normal beliefs", INFORMS
Journal on Computing 21(4), 2009; the expectation by a sum over 31 values of Z). It is 0 where the
members disagree but no decision hangs on it. Once a setting of a batch is chosen, the members'
deviations are conditioned on it before the next one is, for which its value need not be known: the
square-root filter of Whitaker and Hamill, "Ensemble data assimilation without perturbed
observations", Monthly Weather Review 130(7), 2002.

Shape suffixes: M members, P split points, G link states, S = P G settings (split points slowest),
B settings at once, Q quadrature nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from envs.oracle import Oracle
from envs.params import LayerSplitParams
from envs.sources import PPLSource
from raysplit.base.arrays import BoolArray, FloatArray, IntArray

# Evenly spaced: a Gauss-Hermite rule errs by several per cent on the kinks of a maximum.
_NODES_Q = np.linspace(-5.0, 5.0, 31)
_WEIGHTS_Q = np.exp(-(_NODES_Q**2) / 2) / np.exp(-(_NODES_Q**2) / 2).sum()
_NUMBERS_AT_ONCE = 4_000_000  # of (B, P, G)
_SMALLEST_VARIANCE = 1e-12  # of log PPL: keeps what is known for certain from dividing by 0


@dataclass(frozen=True, slots=True, eq=False)
class Beliefs:
    """What the members of an ensemble say of every setting of a grid.

    Attributes:
        log_ppl_MS: Log PPL.
        rewards_MPG: The reward of arriving there.
    """

    log_ppl_MS: FloatArray
    rewards_MPG: FloatArray


def choose_settings(
    beliefs: Beliefs, open_S: BoolArray, count: int, error_variance: float
) -> IntArray:
    """Return the settings to measure together, the one that is worth most first.

    Args:
        beliefs: What is believed.
        open_S: Which settings may be chosen.
        count: How many to choose; fewer where fewer are open.
        error_variance: tau^2, of a measured log PPL.
    """
    mean_PG = beliefs.rewards_MPG.mean(axis=0)
    rewards_MPG = beliefs.rewards_MPG - mean_PG
    log_ppl_MS = beliefs.log_ppl_MS - beliefs.log_ppl_MS.mean(axis=0)
    open_S = open_S.copy()
    chosen: list[int] = []
    for _ in range(min(count, int(open_S.sum()))):
        worth_S = _knowledge_gradient(mean_PG, rewards_MPG, log_ppl_MS, error_variance)
        best = int(np.where(open_S, worth_S, -np.inf).argmax())
        chosen.append(best)
        open_S[best] = False
        known_M = log_ppl_MS[:, best].copy()
        rewards_MPG = _conditioned(rewards_MPG, known_M, error_variance)
        log_ppl_MS = _conditioned(log_ppl_MS, known_M, error_variance)
    return np.array(chosen, dtype=np.int64)


def expected_regret(
    params: LayerSplitParams, believed: PPLSource, members: Sequence[PPLSource]
) -> float:
    """Return what planning on the believed mean is expected to lose, as a share of the gap.

    In the mean over the members: the return of the optimum, were the member true, less that of the
    plan that is optimal on the mean; over the gap random - optimum on the mean.
    """
    mean = Oracle(params, believed)
    truths = [Oracle(params, member) for member in members]
    lost = [true.optimal_return - true.plan_return(mean.actions_TPM) for true in truths]
    return float(np.mean(lost)) / max(mean.optimal_return - mean.random_return, 1e-300)


def _knowledge_gradient(
    mean_PG: FloatArray, rewards_MPG: FloatArray, log_ppl_MS: FloatArray, error_variance: float
) -> FloatArray:
    """Return KG(s) of all settings, from deviations of rewards and log PPL from their means."""
    freedom = len(log_ppl_MS) - 1
    variance_S = (log_ppl_MS**2).sum(axis=0) / freedom + error_variance + _SMALLEST_VARIANCE
    scaled_MS = log_ppl_MS / (freedom * np.sqrt(variance_S))
    at_once = max(1, _NUMBERS_AT_ONCE // mean_PG.size)
    best_G = mean_PG.max(axis=0)
    worth_S = np.empty(len(variance_S))
    for start in range(0, len(worth_S), at_once):
        part = slice(start, start + at_once)
        sigma_BPG = np.tensordot(scaled_MS[:, part], rewards_MPG, axes=(0, 0))
        expected_BG = sum(
            weight * (mean_PG + node * sigma_BPG).max(axis=1)
            for node, weight in zip(_NODES_Q, _WEIGHTS_Q, strict=True)
        )
        worth_S[part] = (expected_BG - best_G).mean(axis=1)
    return worth_S


def _conditioned(
    deviations_MX: FloatArray, known_M: FloatArray, error_variance: float
) -> FloatArray:
    """Return deviations once the setting where they are `known_M` is measured.

    Their covariance is exactly that of the Kalman update, C - c c^T / (var + tau^2).
    """
    variance = known_M @ known_M / (len(known_M) - 1) + _SMALLEST_VARIANCE
    total = variance + error_variance
    gain_X = np.tensordot(known_M, deviations_MX, axes=(0, 0)) / ((len(known_M) - 1) * total)
    reduced = 1 / (1 + np.sqrt(error_variance / total))
    return deviations_MX - reduced * np.multiply.outer(known_M, gain_X)
