"""What the report shows of a budget: words, rows, fronts, and figures that draw their numbers."""

# Greek letters are meant:
# ruff: noqa: RUF001

import numpy as np
import pytest

from envs.grid_sources import TableSource
from envs.oracle import Oracle
from envs.params import params_from
from raysplit import figures
from raysplit.budget.costs import split_costs
from raysplit.figures import Band, OptimumTerms, TimeStack, TradePanel, TradeSeries
from raysplit.measure.table import Measurements
from raysplit.model.sizes import sizes_of
from raysplit.pipeline.budget import budget_terms
from raysplit.pipeline.experiment import load_experiment
from raysplit.pipeline.oracles import Oracles
from raysplit.pipeline.over_radio import per_codec
from raysplit.pipeline.views.budget import budget_part, pareto_front
from raysplit.report import BudgetPart, BudgetRow
from raysplit.report.answer import budget_sentence

SIZES = sizes_of("embedded")
BUDGET = [
    "problem.reward=budget",
    "problem.percent_per_second=300",
    "problem.percent_per_joule=1",
    "budget={network: lte, prompt_tokens: 64, output_tokens: 16, deadline_s: 0.5}",
    "budget.overrides.phone={compute_tflops: 0.01, bandwidth_gb_s: 0.5}",
    "problem.codecs=[int8, int4]",
]
CLEAN = np.log(16.0)


def table(experiment, codec, penalty):
    """A measured table: perplexity falls with p, rises with the noise and with a coarser codec."""
    noise = np.linspace(0, 6, experiment.problem.link["noise_std"].grid_points)
    p_N = np.repeat(np.arange(1, 11), len(noise))
    noise_N = np.tile(noise, 10)
    log_ppl_N = CLEAN + penalty + 0.02 * noise_N * (1 + 10 / p_N)
    return Measurements(
        split_points_N=p_N,
        link_names=("noise_std",),
        link_states_NK=noise_N[:, None],
        log_ppl_N=log_ppl_N,
        stderr_N=np.full(len(p_N), 0.01),
        clean_log_ppl=float(CLEAN),
        codecs=(codec,),
    )


def source_of(table):
    return TableSource.from_rows(
        table.split_points_N, table.link_states_NK, table.log_ppl_N, table.link_names
    )


def solved(*overrides):
    experiment = load_experiment("demo", [*BUDGET, *overrides])
    tables = {
        codec: table(experiment, codec, penalty)
        for codec, penalty in zip(experiment.problem.codecs, (0.001, 0.03), strict=True)
    }
    first = tables["int8"]
    names = experiment.problem.decision_codecs
    totals = [budget_terms(experiment, SIZES, codec=name).total_P for name in names]
    params = params_from(experiment.problem, float(np.exp(CLEAN)), np.stack(totals, 1).ravel())
    oracle = Oracle(params, per_codec(names, {}, lambda name: source_of(tables[name])))
    oracles = Oracles(
        params=params,
        trained_params=params,
        table=first,
        table_by_codec=tables,
        surrogate=oracle,
        measured=oracle,
        agents={},
    )
    return experiment, oracles


def test_terms_at_the_optimum_add_up_to_its_objective():
    experiment, oracles = solved()
    part = budget_part(experiment, SIZES, oracles)
    best_G = -oracles.measured.static_rewards_PG.max(axis=0)
    assert part.terms is not None
    total_G = sum(part.terms.percent.values())
    np.testing.assert_allclose(total_G, 100 * (best_G - 1), rtol=1e-9)
    assert list(part.terms.split_points_S) == list(oracles.measured.optimal_static_split_points())
    assert part.terms.states[0] == "0"
    assert len(set(part.terms.split_points_S)) > 1


def test_rows_go_from_mild_to_harsh_with_the_costs_of_their_split_point():
    experiment, oracles = solved()
    part = budget_part(experiment, SIZES, oracles)
    first, last = part.rows[0], part.rows[-1]
    assert (first.state, last.state) == ("noise σ = 0", "noise σ = 6")
    costs = split_costs(SIZES, experiment.budget.setup(), "int8")
    for row in part.rows:
        i = row.split_point - 1
        assert row.first_token_s == costs.ttft_s_P[i]
        assert row.next_token_s == costs.tpot_s_P[i]
        assert row.energy_j == costs.ue_energy_j_P[i]
        assert row.late == (costs.ttft_s_P[i] > 0.5)
    p = last.split_point
    assert last.perplexity_excess == pytest.approx(np.exp(0.001 + 0.12 * (1 + 10 / p)) - 1)


def test_a_stack_adds_up_to_the_time_to_the_first_token():
    experiment, oracles = solved()
    (stack,) = budget_part(experiment, SIZES, oracles).stacks
    costs = split_costs(SIZES, experiment.budget.setup(), "int8", range(1, 11))
    np.testing.assert_allclose(sum(stack.seconds.values()), costs.ttft_s_P, rtol=1e-12)
    figure = figures.time_stacks([stack])
    tops = {}
    for bar in figure.axes[0].patches:
        if hasattr(bar, "get_height") and 0.7 < bar.get_width() < 0.8:
            p = round(bar.get_x() + bar.get_width() / 2)
            tops[p] = max(tops.get(p, 0), bar.get_y() + bar.get_height())
    assert tops == pytest.approx(dict(zip(range(1, 11), costs.ttft_s_P, strict=True)))


def test_a_front_holds_what_nothing_beats():
    rng = np.random.default_rng(0)
    x_N, y_N = rng.integers(0, 6, (2, 60)).astype(float)
    found_N = pareto_front(x_N, y_N)
    points = list(zip(x_N, y_N, strict=True))
    for point, on_front in zip(points, found_N, strict=True):
        beaten = any(a <= point[0] and b <= point[1] and (a, b) != point for a, b in points)
        assert on_front != beaten
    assert 0 < found_N.sum() < 60


def test_fronts_span_codecs_and_every_measured_point_has_its_interval():
    experiment, oracles = solved()
    part = budget_part(experiment, SIZES, oracles)
    time, energy = part.trades
    assert [(one.state, one.codec) for one in time.series] == [
        (f"noise σ = {noise}", codec) for noise in (0, 3, 6) for codec in ("int8", "int4")
    ]
    costs = split_costs(SIZES, experiment.budget.setup(), "int4")
    np.testing.assert_array_equal(time.series[1].x_N, costs.ttft_s_P[:10])
    np.testing.assert_array_equal(energy.series[1].x_N, costs.ue_energy_j_P[:10])
    band = time.series[0].ppl
    np.testing.assert_allclose(np.log(band.high) - np.log(band.centre), 1.96 * 0.01)
    # Without noise fewer layers are never worse, so each codec has one point on the front.
    assert [one.front_N.sum() for one in time.series[:2]] == [1, 1]
    drawn = figures.trade_offs(part.trades)
    assert len(drawn.axes) == 3 * 2  # a row a state, a column a quantity
    for axes in drawn.axes:
        assert sum(len(c.lines[0].get_xdata()) for c in axes.containers) == 2 * 10


def row(state, p, **changes):
    values = {
        "first_token_s": 0.912, "next_token_s": 0.1, "energy_j": 51.0, "memory_gb": 0.5,
        "late": None, "perplexity_excess": 0.0204,
    }  # fmt: skip
    return BudgetRow(state=state, split_point=p, **(values | changes))


def part(*rows, codec="int4-rotated/64"):
    return BudgetPart(
        network="lte", codec=codec, where="", output_tokens=128, rows=rows, stacks=(), trades=(),
        terms=None,
    )  # fmt: skip


def test_the_answer_is_said_in_its_units():
    mild = row("σ = 0", 1, late=0.0, perplexity_excess=-0.0004)
    said = budget_sentence(part(mild, row("σ = 1", 3), row("σ = 2", 6, late=0.321)))
    assert said == (
        "On lte with int4-rotated/64 states: at σ = 0, 1 layer, first token after 0.91 s, "
        "0.4 J a token, perplexity +0.0 %; at σ = 2, 6 layers, first token after 0.91 s, "
        "too late in 32% of requests, 0.4 J a token, perplexity +2.0 %."
    )
    assert budget_sentence(part(row("σ = 0", 1), codec="identity")).startswith("On lte: at σ = 0,")


def test_bars_below_the_clean_perplexity_hang_from_zero():
    terms = OptimumTerms(
        axis="noise σ",
        states=["0", "1"],
        split_points_S=np.array([1, 9]),
        percent={"perplexity": np.array([-1.0, 4.0]), "seconds": np.array([2.0, 3.0])},
    )
    axes = figures.optimum_terms(terms).axes[0]
    spans = [(bar.get_y(), bar.get_y() + bar.get_height()) for bar in axes.patches]
    assert spans == [(0.0, -1.0), (0.0, 4.0), (0.0, 2.0), (4.0, 7.0)]
    assert [text.get_text() for text in axes.texts] == ["p = 1", "p = 9"]


def test_a_deadline_and_states_are_drawn_where_they_are():
    p = np.arange(1, 4)
    stack = TimeStack(
        title="SNR = 3 dB",
        split_points_P=p,
        seconds={"phone": p / 10},
        best=(2, 2),
        deadline_s=0.2,
    )
    axes = figures.time_stacks([stack, stack]).axes
    assert len(axes) == 2
    assert any(list(line.get_ydata()) == [0.2, 0.2] for line in axes[0].lines)
    assert axes[0].get_title(loc="left") == "SNR = 3 dB"
    series = TradeSeries(
        state="a", codec="int4", x_N=p / 10, front_N=np.array([True, False, True]),
        ppl=Band(x=p, centre=20 - p, low=19 - p, high=21 - p),
    )  # fmt: skip
    (axes,) = figures.trade_offs([TradePanel(axis="s", series=[series])]).axes
    assert [text.get_text() for text in axes.texts] == ["1", "3"]


def test_where_the_codec_is_chosen_the_costs_are_those_of_the_best_one():
    experiment, oracles = solved("problem.actions=split_and_codec")
    part = budget_part(experiment, SIZES, oracles)
    best_G = -oracles.measured.static_rewards_PG.max(axis=0)
    total_G = sum(part.terms.percent.values())
    np.testing.assert_allclose(total_G, 100 * (best_G - 1), rtol=1e-9)
    places_G = oracles.measured.optimal_static_places()
    best = [experiment.problem.codecs[i] for i in oracles.params.codecs_P[places_G]]
    assert {row.codec for row in part.rows} <= set(best)
    assert part.rows[0].codec == best[0]
    assert f"and {best[0]} states" in budget_sentence(part)
