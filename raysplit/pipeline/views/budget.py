"""What a run's split points cost in seconds and joules, beside what it measured.

Shape suffixes: G link states (S: those shown), K link coordinates, P split points, N points,
L losses.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from envs.sources import ask
from raysplit.base.arrays import BoolArray, FloatArray, IntArray
from raysplit.budget.costs import Costs, split_costs
from raysplit.figures import (
    Band,
    OptimumTerms,
    TimeStack,
    TradePanel,
    TradeSeries,
    coordinate_label,
)
from raysplit.link.codec import Codec
from raysplit.link.state import LOWER_IS_WORSE
from raysplit.measure.table import Measurements
from raysplit.model.sizes import Sizes
from raysplit.pipeline.budget import BudgetTerms, budget_terms, setup_at
from raysplit.pipeline.experiment import Experiment
from raysplit.pipeline.oracles import Oracles
from raysplit.pipeline.views.codecs import codec_map
from raysplit.pipeline.views.panels import perplexity_band, shown_states, state_labels
from raysplit.report import BudgetPart, BudgetRow

_BEST_CODEC = "what is best in each link state"
_MOST_STATES = 12  # on the axis of one coordinate


def budget_part(experiment: Experiment, sizes: Sizes, oracles: Oracles) -> BudgetPart | None:
    """Return what the report says of an experiment's budget, None where it has none."""
    if experiment.budget is None:
        return None
    shown = _Shown(experiment, sizes, oracles)
    return BudgetPart(
        network=experiment.budget.network,
        codec=_BEST_CODEC if oracles.params.chooses_codec else experiment.problem.codec.name,
        where=_where(experiment),
        output_tokens=experiment.budget.output_tokens,
        rows=_rows(shown),
        stacks=_stacks(shown),
        trades=_trades(shown),
        terms=_optimum_terms(shown) if oracles.params.reward == "budget" else None,
        codecs=codec_map(experiment, sizes, oracles.table_by_codec),
    )


class _Shown:
    """A run's grid of link states: the optimum of each and what it costs.

    Attributes:
        order_G: The states' indices from mild to harsh, by the first coordinate.
        optimum_G: The best split point.
        codec_G: The codec that is best with it, or the problem's own.
        excess_G: Its measured perplexity over the clean one, minus 1.
    """

    def __init__(self, experiment: Experiment, sizes: Sizes, oracles: Oracles) -> None:
        self.experiment, self.sizes, self.oracles = experiment, sizes, oracles
        self.states_GK = oracles.measured.link_states_GK
        states_G = np.arange(len(self.states_GK))
        first = oracles.params.link_names[0]
        self.order_G = states_G[::-1] if first in LOWER_IS_WORSE else states_G
        params, places_G = oracles.params, oracles.measured.optimal_static_places()
        self.optimum_G = params.split_points_P[places_G]
        codec_of_P: list[str] = [params.codecs[i] for i in params.codecs_P.tolist()]
        self.codec_G: list[str] = [codec_of_P[int(place)] for place in places_G]
        codecs = (params.codecs_P[places_G],) if params.chooses_codec else ()
        ppl_G = ask(oracles.measured.source, self.optimum_G, self.states_GK, *codecs)
        self.excess_G = ppl_G / np.exp(oracles.table.clean_log_ppl) - 1
        self._terms_G = [
            budget_terms(experiment, sizes, float(state_K[0]) if experiment.radio else None, codec)
            for state_K, codec in zip(self.states_GK, self.codec_G, strict=True)
        ]

    @property
    def ends(self) -> IntArray:
        """The mildest, the middle and the harshest state."""
        return self.order_G[[0, len(self.order_G) // 2, -1]]

    def terms(self, g: int) -> BudgetTerms:
        """What all split points cost in a state."""
        return self._terms_G[g]

    def row(self, g: int) -> int:
        """The optimum's index among the split points."""
        return int(self.optimum_G[g]) - self.oracles.params.min_split_point

    def chosen_codec(self, g: int) -> str:
        """The codec that is best in a state, empty where that is no choice."""
        codec: str = self.codec_G[g]
        return codec if self.oracles.params.chooses_codec else ""

    def label(self, g: int) -> str:
        """The state in words."""
        return state_labels(self.oracles.params.link_names, self.states_GK)[g]

    def costs(self, codec: str, g: int) -> Costs:
        """What all split points cost in a state, with a codec that is only shown beside."""
        snr_db = float(self.states_GK[g, 0]) if self.experiment.radio else None
        setup = setup_at(self.experiment, snr_db)
        return split_costs(self.sizes, setup, codec, list(self.oracles.params.split_points))

    def ppl(self, codec: str, g: int) -> Band:
        """Measured perplexity over the split points; in digital mode at the state's loss."""
        table = self.oracles.table_by_codec[codec]
        loss = self.experiment.token_loss(Codec(codec))
        if loss is None:
            return perplexity_band(table, self.states_GK[g])
        return _band_between(table, float(loss.at(self.states_GK[g])[0]))


def _band_between(table: Measurements, loss: float) -> Band:
    """Return PPL and its 95 % interval at a loss, linear in log PPL between two that were measured.

    Its error is interpolated, too, as that of settings that share their randomness.
    """
    losses_L = np.unique(table.link_states_NK[:, 0])
    right = int(np.clip(np.searchsorted(losses_L, loss), 1, len(losses_L) - 1))
    share = (loss - losses_L[right - 1]) / (losses_L[right] - losses_L[right - 1])
    left, right_band = (perplexity_band(table, losses_L[[n]]) for n in (right - 1, right))

    def between(a_P: FloatArray, b_P: FloatArray) -> FloatArray:
        return np.exp((1 - share) * np.log(a_P) + share * np.log(b_P))

    return Band(
        x=left.x,
        centre=between(left.centre, right_band.centre),
        low=between(left.low, right_band.low),
        high=between(left.high, right_band.high),
    )


def pareto_front(x_N: FloatArray, y_N: FloatArray) -> BoolArray:
    """Return which points no other dominates: is at most as large in both, and smaller in one."""
    no_larger_NN = (x_N[None] <= x_N[:, None]) & (y_N[None] <= y_N[:, None])
    smaller_NN = (x_N[None] < x_N[:, None]) | (y_N[None] < y_N[:, None])
    return np.asarray(~(no_larger_NN & smaller_NN).any(axis=1))


def _where(experiment: Experiment) -> str:
    budget = experiment.budget
    assert budget is not None
    changed = [f"{kind}.{key}" for kind, numbers in budget.overrides.items() for key in numbers]
    overridden = f" (overridden: {', '.join(changed)})" if changed else ""
    network = budget.setup().network
    rate = (
        f"{network.uplink_mbit_s:g} Mbit/s up"
        if experiment.radio is None
        else f"the rate of cell {experiment.radio.cell} at the SNR"
    )
    return (
        f"phone {budget.phone}, edge {budget.edge}, network {budget.network} with {rate} and a "
        f"round trip of {network.rtt_ms:g} ms{overridden}; {budget.prompt_tokens:,} tokens of "
        f"prompt, {budget.output_tokens:,} of answer"
    )


def _rows(shown: _Shown) -> list[BudgetRow]:
    budget = shown.experiment.budget
    rows: list[BudgetRow] = []
    for g in shown.order_G[shown_states(shown.states_GK)].tolist():
        i, terms = shown.row(g), shown.terms(g)
        rows.append(
            BudgetRow(
                state=shown.label(g),
                split_point=int(shown.optimum_G[g]),
                first_token_s=float(terms.costs.ttft_s_P[i]),
                next_token_s=float(terms.costs.tpot_s_P[i]),
                energy_j=float(terms.costs.ue_energy_j_P[i]),
                memory_gb=float(terms.costs.ue_memory_bytes_P[i]) / 1e9,
                late=float(terms.late_P[i]) if budget and budget.deadline_s else None,
                perplexity_excess=float(shown.excess_G[g]),
                codec=shown.chosen_codec(g),
            )
        )
    return rows


def _stacks(shown: _Shown) -> list[TimeStack]:
    """One for all link states, or one for each of three where they change the rate."""
    budget, best = shown.experiment.budget, shown.optimum_G
    digital = shown.experiment.radio is not None
    stacks: list[TimeStack] = []
    for g in (shown.ends if digital else shown.ends[:1]).tolist():
        first = shown.terms(g).costs.prefill
        stacks.append(
            TimeStack(
                title=shown.label(g) if digital else "",
                split_points_P=shown.terms(g).costs.split_points_P,
                seconds={
                    "phone": first.ue_s_P,
                    "air": first.air_s_P,
                    "round trip": first.rtt_s_P,
                    "edge": first.edge_s_P,
                },
                best=(int(best[g]), int(best[g]))
                if digital
                else (int(best.min()), int(best.max())),
                deadline_s=budget.deadline_s if budget else None,
            )
        )
    return stacks


def _optimum_terms(shown: _Shown) -> OptimumTerms:
    names, states_GK = shown.oracles.params.link_names, shown.states_GK
    one = len(names) == 1
    few = one and len(states_GK) <= _MOST_STATES
    shown_S = shown.order_G if few else shown.order_G[shown_states(states_GK)]
    at_S = [(shown.terms(g), shown.row(g)) for g in shown_S.tolist()]
    return OptimumTerms(
        axis=coordinate_label(names[0]) if one else "link state",
        states=[f"{states_GK[g, 0]:g}" if one else shown.label(g) for g in shown_S.tolist()],
        split_points_S=shown.optimum_G[shown_S],
        percent={
            "perplexity beyond clean": 100 * shown.excess_G[shown_S],
            "seconds": np.array([100 * terms.seconds_P[i] for terms, i in at_S]),
            "joules": np.array([100 * terms.joules_P[i] for terms, i in at_S]),
            "missed deadlines": np.array([100 * terms.misses_P[i] for terms, i in at_S]),
        },
    )


def _trades(shown: _Shown) -> list[TradePanel]:
    """Perplexity against time and energy in the mildest, the middle and the harshest state."""
    return [
        TradePanel(
            axis="seconds to the first token",
            series=_series(shown, lambda costs: costs.ttft_s_P),
        ),
        TradePanel(
            axis="joules of the phone a request",
            series=_series(shown, lambda costs: costs.ue_energy_j_P),
        ),
    ]


def _series(shown: _Shown, traded: Callable[[Costs], FloatArray]) -> list[TradeSeries]:
    codecs = list(shown.oracles.table_by_codec)
    series: list[TradeSeries] = []
    for g in shown.ends.tolist():
        xs = [traded(shown.costs(codec, g)) for codec in codecs]
        bands = [shown.ppl(codec, g) for codec in codecs]
        front_N = pareto_front(np.concatenate(xs), np.concatenate([b.centre for b in bands]))
        fronts = np.split(front_N, len(codecs))
        for codec, x_P, band, front_P in zip(codecs, xs, bands, fronts, strict=True):
            series.append(
                TradeSeries(state=shown.label(g), codec=codec, x_N=x_P, ppl=band, front_N=front_P)
            )
    return series
