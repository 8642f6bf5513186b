"""A family of problems: what differs from one member to the next, and is observed.

A training over a family draws a member for each episode and shows it: its values stand behind the
link coordinates in the observation, and stay through the episode. A member itself is an ordinary
problem, and an agent of the family plays it by seeing its values (`InContext`).

| name | what it is | goes with |
|---|---|---|
| `correlation` | rho of the Gauss-Markov link | `dynamics.kind: gauss_markov` |
| `mean_snr_db` | mean SNR of a path of fading | `dynamics.kind: fading` |
| `lambda` | weight of the UE's cost | `reward: objective` |

Shape suffixes: N episodes (or states), K link coordinates, F names of the family.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from envs.params import LayerSplitParams
from envs.policies import Policy
from raysplit.base.arrays import FloatArray, IntArray


def training_problem(params: LayerSplitParams) -> LayerSplitParams:
    """Return the problem as agents learn it: of a trace its first part, of a family all of it.

    Raises:
        UserError: A part of the trace is shorter than an episode.
    """
    params = params.for_training()
    family = params.family
    if not family:
        return params
    low_F, high_F = np.array([(one.low, one.high) for one in family]).T
    return replace(
        params,
        link_names=params.link_names + tuple(one.name for one in family),
        link_low_K=np.concatenate([params.link_low_K, low_F]),
        link_high_K=np.concatenate([params.link_high_K, high_F]),
        contexts=len(family),
    )


def own_values(params: LayerSplitParams) -> dict[str, float]:
    """Return a member's values by name."""
    known = {
        "correlation": params.correlation,
        "mean_snr_db": params.mean_snr_db,
        "lambda": params.cost_weight,
    }
    return {one.name: known[one.name] for one in params.family}


def member(params: LayerSplitParams, values: dict[str, float]) -> LayerSplitParams:
    """Return a member of a problem's family; what is not named stays the problem's own."""
    mean_snr_db = values.get("mean_snr_db", params.mean_snr_db)
    return replace(
        params,
        correlation=values.get("correlation", params.correlation),
        cost_weight=values.get("lambda", params.cost_weight),
        mean_snr_db=mean_snr_db,
        trace_RK=params.trace_RK + (mean_snr_db - params.mean_snr_db),
    )


def unseen_members(params: LayerSplitParams) -> list[dict[str, float]]:
    """Return values that no training draws: the middle of each `held_out`, and all together.

    Each of the first differs from the problem's own in one name.
    """
    middles = {one.name: sum(one.held_out) / 2 for one in params.family if one.held_out is not None}
    own = own_values(params)
    single = [own | {name: value} for name, value in middles.items()]
    return single + ([own | middles] if len(middles) > 1 else [])


@dataclass(frozen=True, slots=True, eq=False)
class InContext:
    """An agent of a family as a policy of one member.

    Attributes:
        policy: Sees the link coordinates and, behind them, the family's values.
        values_F: The member's.
    """

    policy: Policy
    values_F: FloatArray

    def __call__(
        self,
        split_points_N: IntArray,
        link_states_NK: FloatArray,
        steps_N: IntArray,
        /,
        *codecs_N: IntArray,
    ) -> IntArray:
        """Show the agent the member's values, and return its actions."""
        shown = np.broadcast_to(self.values_F, (len(link_states_NK), len(self.values_F)))
        seen_NK = np.concatenate([link_states_NK, shown], axis=1)
        return self.policy(split_points_N, seen_NK, steps_N, *codecs_N)
