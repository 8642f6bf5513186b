"""How uncertain the scores on measured perplexity are.

A draw redraws each measured log PPL within its standard error, and each agent's seeds. All agents
meet the same redrawn tables. The optimum of a share remains the plan made on the table as measured:
a plan made anew on each draw would fit its errors, and every share would come out too low.

Shape suffixes: S seeds, D draws.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from envs.oracle import share_of_gap
from raysplit.base.arrays import FloatArray
from raysplit.base.statistics import interquartile_mean
from raysplit.measure.table import Measurements
from raysplit.pipeline.oracles import Oracles, measured_oracle
from raysplit.pipeline.over_radio import over_what_is_measured

_DRAWS = 200


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredUncertainty:
    """One agent's scores on measured perplexity.

    Attributes:
        by_seed_S: Return of each seed's policy on the table as measured.
        returns_D: Interquartile mean of the returns, in each draw.
        shares_D: The share that this is of the gap between random and the optimal plan.
    """

    by_seed_S: FloatArray
    returns_D: FloatArray
    shares_D: FloatArray


def measured_uncertainty(oracles: Oracles) -> dict[str, MeasuredUncertainty]:
    """Return every agent's scores, as measured and redrawn."""
    tables, seeds = np.random.default_rng(0), np.random.default_rng(1)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in oracles.agents}
    for _ in range(_DRAWS):
        oracle = measured_oracle(oracles.params, oracles.table_by_codec, oracles.losses, tables)
        optimal_return = oracle.plan_return(oracles.measured.actions_TPM)
        for name, policies in oracles.agents.items():
            by_seed = [oracle.policy_return(policy) for policy in policies.values()]
            drawn = interquartile_mean(seeds.choice(by_seed, len(by_seed)))
            share = share_of_gap(drawn, oracle.random_return, optimal_return)
            found[name].append((drawn, share))
    return {
        name: MeasuredUncertainty(
            np.array([oracles.measured.policy_return(policy) for policy in policies.values()]),
            *np.array(found[name]).T,
        )
        for name, policies in oracles.agents.items()
    }


def share_lost_by_error(oracles: Oracles) -> float:
    """Return what planning on a perfect surrogate would seem to lose, by errors of measuring alone.

    Were the surrogate right, the measured table would be its perplexities with the measurements'
    errors, and the optimum on such a table is too good to be true. Of what then seems lost, as a
    share of the gap, this is what 95 % of draws stay below.
    """
    params, errors = oracles.params, np.random.default_rng(2)
    as_if: dict[str, Measurements] = {}
    for index, codec in enumerate(params.codecs):
        table = oracles.table_by_codec[codec]
        source = over_what_is_measured(oracles.surrogate.source, index)
        log_ppl_N = np.log(source(table.split_points_N, table.link_states_NK))
        as_if[codec] = replace(table, log_ppl_N=log_ppl_N)
    lost_D = np.empty(_DRAWS)
    for draw in range(_DRAWS):
        oracle = measured_oracle(params, as_if, oracles.losses, errors)
        lost_D[draw] = 1 - oracle.share_of_gap(oracle.plan_return(oracles.surrogate.actions_TPM))
    return float(np.quantile(lost_D, 0.95))


def interval_95(draws_D: FloatArray) -> list[float]:
    """Return the 95 % interval of the draws, [low, high]."""
    return np.quantile(draws_D, [0.025, 0.975]).tolist()
