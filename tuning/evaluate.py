"""How good are trained policies? Exact returns, over seeds, on any source of perplexity.

Nothing is sampled: an `Oracle` holds the reward of every setting of the evaluation grid, so a
policy's return is an expectation over the case's starts. Agents learn on the surrogate and are
judged on measured perplexities too, and `fidelity` says whether the surrogate could mislead them.

Shape suffixes: P split points, M nodes of the link.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from envs.oracle import Oracle
from envs.score import Score
from raysplit.base.statistics import Interval, bootstrap_interval, rank_correlation
from tuning.policy import ExportedPolicy

# The surrogate misleads if it orders the split points of a link state otherwise than measuring does
# or if planning on it gives up more than this of the gap between random and the optimum.
LOWEST_RANK_CORRELATION = 0.9
LARGEST_SHARE_LOST = 0.03


@dataclass(frozen=True, slots=True)
class Summary:
    """Several seeds of one agent: interquartile means with 95 % bootstrap intervals."""

    episode_return: Interval
    regret: Interval
    share_of_gap: Interval


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How well a surrogate stands in for measuring.

    Attributes:
        rank_correlation: Spearman's, of the rewards of a link state's split points, averaged over
            the link states.
        regret: What the optimal plan of the surrogate gives up on measured perplexities.
        share_lost: The same as a share of the gap between random and the optimum.
        warning: What the report says where the surrogate misleads, else None.
    """

    rank_correlation: float
    regret: float
    share_lost: float
    warning: str | None


def judge_of(oracle: Oracle) -> Callable[[ExportedPolicy], float]:
    """Return what scores each point of a learning curve: the policy's exact return."""
    return lambda policy: oracle.policy_return(policy.for_problem(oracle.params))


def summarise(scores: Sequence[Score], seed: int = 0) -> Summary:
    """Sum up the scores of an agent's seeds; of a single seed the interval is the value itself."""
    return Summary(
        episode_return=_interval([one.episode_return for one in scores], seed),
        regret=_interval([one.regret for one in scores], seed),
        share_of_gap=_interval([one.share_of_gap for one in scores], seed),
    )


def fidelity(surrogate: Oracle, measured: Oracle) -> Fidelity:
    """Compare oracles of one problem and grid, on the surrogate and on measured perplexities."""
    correlation = _mean_rank_correlation(surrogate.rewards_PM, measured.rewards_PM)
    # The plan itself and not a policy of it: over a trace the plan knows the rows to come.
    planned = measured.plan_return(surrogate.actions_TPM)
    share_lost = 1 - measured.share_of_gap(planned)
    misleads = correlation < LOWEST_RANK_CORRELATION or share_lost > LARGEST_SHARE_LOST
    warning = (
        f"the surrogate misleads: planning on it loses {share_lost:.1%} of the gap on measured "
        f"perplexities, and its rank correlation over split points is {correlation:.2f}; "
        "measure more settings"
    )
    return Fidelity(
        correlation, measured.regret(planned), share_lost, warning if misleads else None
    )


def _interval(values: Sequence[float], seed: int) -> Interval:
    if len(values) == 1:
        return Interval(values[0], values[0], values[0])
    # One generator seed for all three statistics: they resample the same seeds.
    return bootstrap_interval(np.array(values), seed)


def _mean_rank_correlation(a_PM: np.ndarray, b_PM: np.ndarray) -> float:
    """Return Spearman's correlation over split points, averaged over the nodes of the link."""
    correlations = [rank_correlation(a_P, b_P) for a_P, b_P in zip(a_PM.T, b_PM.T, strict=True)]
    ordered = [value for value in correlations if not math.isnan(value)]
    return float(np.mean(ordered)) if ordered else 1.0
