"""Figures: what they show, in which colours, and that nothing hides anything else."""

# Greek letters are meant:
# ruff: noqa: RUF001

import dataclasses
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text

from raysplit import figures
from raysplit.base.statistics import Interval
from raysplit.figures import (
    AnswerLine,
    AnswerPlane,
    Band,
    CostWeightSweep,
    Decisions,
    EpisodeReturns,
    EvaluationCurves,
    LearningPanel,
    PPLCurve,
    PPLPanel,
    SweepPanel,
)
from raysplit.figures.style import colour_of, line_styles, ordered_colours
from raysplit.radio import Steps
from raysplit.surrogate import ErrorStatistics, FitReport

X = np.linspace(0, 1.2, 7)
OPTIMUM = np.array([1, 1, 2, 5, 7, 10, 10])


def band(x, centre, width=0.1):
    x, centre = np.asarray(x, dtype=float), np.asarray(centre, dtype=float)
    return Band(x=x, centre=centre, low=centre - width, high=centre + width)


def line():
    return AnswerLine(
        coordinate="noise_std",
        values_X=X,
        split_points=(1, 10),
        optimum_X=OPTIMUM,
        optimal_objective_X=1 + X,
        choices={"PPO": band(X, OPTIMUM + 0.5), "A2C": band(X, OPTIMUM - 0.5)},
        objectives={"PPO": 1.1 + X, "best fixed p = 7": 1.3 + X},
    )


def plane():
    grid = np.arange(12).reshape(3, 4) % 10 + 1
    return AnswerPlane(
        coordinates=("noise_std", "fading_scale"),
        values_X=np.linspace(0, 1, 4),
        values_Y=np.linspace(0.5, 1.5, 3),
        split_points=(1, 10),
        optimum_YX=grid,
        choices={"PPO": grid[::-1].astype(float)},
    )


def ppl_panel(title="model", scale=1.0, labels=("σ = 0.2", "σ = 1.0"), ordered=True):
    p = np.arange(1, 11)
    curves = [
        PPLCurve(label=label, band=band(p, 16 + scale * (k + 1) * 10 / p))
        for k, label in enumerate(labels)
    ]
    return PPLPanel(title=title, curves=curves, ordered=ordered, clean_ppl=16.0)


def learning_panel(title="Case A"):
    steps = np.arange(400, 24_001, 400)
    curve = band(steps, 2.99 - 0.3 * np.exp(-steps / 4000), 0.02)
    names = ("PPO", "PPO (true rewards)", "A2C", "DQN")
    curves = dict.fromkeys(names, curve)
    return LearningPanel(title=title, curves=curves, random_return=2.69, optimal_return=2.99)


def fit_report(rows=600):
    rng = np.random.default_rng(0)
    measured = rng.normal(3, 0.3, rows)
    predicted = measured + rng.normal(0, 0.02, rows)
    statistics = ErrorStatistics.of(measured, predicted)
    return FitReport(
        rows=rows,
        folds=5,
        seconds=1.0,
        log_ppl=statistics,
        noise_mse=1e-4,
        gain=statistics,
        measured_log_ppl_N=measured,
        predicted_log_ppl_N=predicted,
        measured_gain_G=measured / 10,
        predicted_gain_G=predicted / 10,
    )


def sweep():
    return CostWeightSweep(
        axis="λ, weight of the UE's cost",
        weights_W=np.array([0.05, 0.1, 0.2]),
        chosen=1,
        states=["noise σ = 0.0, fading scale σₕ = 0.4", "noise σ = 0.6", "noise σ = 1.2"],
        optimum_SW=np.array([[1, 1, 1], [10, 7, 1], [10, 10, 7]]),
        split_points=(1, 10),
        best_fixed_share_W=np.array([0.9, 0.72, 0.4]),
    )


def scores():
    measured = {
        name: Interval(value=mean, low=mean - 0.01, high=mean + 0.01)
        for name, mean in [("optimum", 2.99), ("PPO", 2.98), ("greedy", 2.9), ("random", 2.69)]
    }
    return {"PPO": Interval(value=2.985, low=2.98, high=2.99)}, measured


def decisions():
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1.2, 200)
    return Decisions(
        coordinate="noise_std",
        agent="PPO",
        seeds=2,
        x_N=x,
        split_points_N=np.clip(np.round(1 + 8 * x), 1, 10).astype(int),
        split_points=(1, 10),
    )


def played():
    rng = np.random.default_rng(0)
    optimum = rng.normal(2.9, 0.1, 100)
    lost = {"PPO": 0.0, "PPO true rewards": 0.01, "untrained PPO": 0.2, "random": 0.3}
    returns = {name: optimum - by * rng.random(100) for name, by in lost.items()}
    returns["PPO"] = np.tile(optimum, 2)
    return EpisodeReturns(returns=returns, optimal_return=2.99, optimum_N=optimum)


FIGURES = {
    "line": lambda: figures.answer_line(line()),
    "plane": lambda: figures.answer_plane(plane()),
    "four maps": lambda: figures.answer_plane(
        dataclasses.replace(
            plane(),
            choices=dict.fromkeys(
                ("ppo_measured", "ppo_surrogate", "ppo_algorithm_1"), plane().choices["PPO"]
            ),
        )
    ),
    "perplexity": lambda: figures.ppl_against_split_point([ppl_panel()]),
    "long labels": lambda: figures.ppl_against_split_point(
        [ppl_panel(labels=[f"noise σ = {s}, fading scale σₕ = 1.25" for s in (0.25, 0.5, 0.75)])]
    ),
    "four models": lambda: figures.ppl_against_split_point(
        [
            ppl_panel(t, s, ("LLaMA2-7B", "Prem-1B"), False)
            for t, s in zip("abcd", (1, 9, 1, 9), strict=True)
        ]
    ),
    "parity": lambda: figures.surrogate_parity(fit_report()),
    "one case": lambda: figures.learning_curves([learning_panel()]),
    "three cases": lambda: figures.learning_curves([learning_panel(f"Case {c}") for c in "LHA"]),
    "weight": lambda: figures.cost_weight_sweep(sweep()),
    "violins": lambda: figures.violins(played()),
    "violins without an optimum's episodes": lambda: figures.violins(
        dataclasses.replace(played(), optimum_N=None)
    ),
    "trend": lambda: figures.split_point_trend(
        dataclasses.replace(decisions(), optimum=(X, OPTIMUM.astype(float)))
    ),
    "hyperparameters": lambda: figures.hyperparameter_panels(
        [SweepPanel(title=t, curves=learning_panel().curves) for t in "abcd"]
    ),
    "evaluations": lambda: figures.share_by_evaluations(
        EvaluationCurves(curves={"active": band(X, X), "Sobol": band(X, X / 2)}, target=0.95)
    ),
    "returns": lambda: figures.returns_and_intervals(*scores()),
}


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.slow
def test_no_panel_or_legend_hides_another(name):
    figure = FIGURES[name]()
    figure.draw_without_rendering()
    boxes = [axes.get_tightbbox() for axes in figure.axes] + [
        legend.get_tightbbox() for legend in figure.legends
    ]
    canvas = figure.bbox.padded(1)
    for index, box in enumerate(boxes):
        assert canvas.x0 <= box.x0 <= box.x1 <= canvas.x1
        assert canvas.y0 <= box.y0 <= box.y1 <= canvas.y1
        for other in boxes[:index]:
            overlap = min(box.x1, other.x1) - max(box.x0, other.x0)
            assert overlap <= 1 or min(box.y1, other.y1) - max(box.y0, other.y0) <= 1


@pytest.mark.slow
def test_saving_writes_three_formats_and_the_same_bytes_again(tmp_path):
    first = figures.save(FIGURES["line"](), tmp_path / "a", "answer")
    second = figures.save(FIGURES["line"](), tmp_path / "b", "answer")
    assert set(first) == {"png", "pdf", "svg"}
    for kind in first:
        assert first[kind].read_bytes() == second[kind].read_bytes()
    assert first["png"].read_bytes().startswith(b"\x89PNG")
    assert first["pdf"].read_bytes().startswith(b"%PDF")
    assert ElementTree.parse(first["svg"]).getroot().tag.endswith("svg")


@pytest.mark.parametrize("name", ["$x_{$", "a$b$c", r"\frac{1}", "{x}", "100 %", "a^b_c"])
@pytest.mark.slow
def test_names_are_drawn_as_they_were_written(tmp_path, name):
    panel = figures.LearningPanel(
        title=name, curves={name: band(X, X)}, random_return=0.0, optimal_return=1.0
    )
    curve = figures.PPLCurve(label=name, band=band(X, X))
    drawings = [
        figures.learning_curves([panel]),
        figures.ppl_against_split_point([figures.PPLPanel(title=name, curves=[curve])]),
    ]
    for drawn in drawings:
        figures.save(drawn, tmp_path, "drawn")  # a formula with a mistake would stop here
        assert not drawn.axes[0].title.get_parse_math()
        assert not any(text.get_parse_math() for text in drawn.findobj(Text))


@pytest.mark.slow
def test_drawing_never_touches_pyplot():
    code = (
        "import sys, numpy as np\n"
        "from raysplit import figures\n"
        "figures.learning_curves([figures.LearningPanel(title='', curves={}, random_return=0,"
        " optimal_return=1)])\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class TestStyle:
    def test_an_algorithm_has_one_colour_everywhere(self):
        assert colour_of("PPO") == colour_of("ppo (tuned)") == colour_of("PPO (true rewards)")
        assert colour_of("best fixed p = 7") == colour_of("fixed")
        assert colour_of("exact optimum") == colour_of("optimum")
        assert colour_of("untrained PPO") != colour_of("PPO")
        assert len({colour_of(n) for n in ("ppo", "a2c", "dqn", "random", "optimum")}) == 5

    def test_an_agent_whose_name_holds_a_baselines_word_has_its_algorithms_colour(self):
        assert colour_of("ppo-fixed-lr") == colour_of("random_ppo") == colour_of("ppo")
        assert colour_of("fixed-lr-dqn, measured rewards") == colour_of("dqn")

    def test_unknown_names_keep_their_colour(self):
        assert colour_of("sac") == colour_of("SAC")

    def test_series_of_one_algorithm_differ_in_line_style(self):
        assert line_styles(["PPO", "A2C", "PPO (true rewards)"]) == {
            "PPO": "-",
            "A2C": "-",
            "PPO (true rewards)": "--",
        }

    def test_ordered_colours_get_darker(self):
        def lightness(colour):
            return sum(int(colour[i : i + 2], 16) for i in (1, 3, 5))

        values = [lightness(colour) for colour in ordered_colours(6)]
        assert values == sorted(values, reverse=True)


class TestContent:
    def test_the_staircase_shows_the_optimum_and_each_agent(self):
        above, below = figures.answer_line(line()).axes
        drawn = {artist.get_label(): artist for artist in above.get_lines()}
        np.testing.assert_array_equal(drawn["exact optimum"].get_ydata(), OPTIMUM)
        np.testing.assert_array_equal(drawn["PPO"].get_ydata(), OPTIMUM + 0.5)
        # Agents stand side by side, so that those who agree do not hide each other.
        assert (drawn["PPO"].get_xdata() < drawn["A2C"].get_xdata()).all()
        assert drawn["PPO"].get_marker() != drawn["A2C"].get_marker()
        assert to_hex(drawn["PPO"].get_color()) == colour_of("PPO")
        assert below.get_xlabel() == "noise σ"
        objectives = {artist.get_label(): artist for artist in below.get_lines()}
        np.testing.assert_allclose(objectives["best fixed p = 7"].get_ydata(), 0.3)
        np.testing.assert_array_equal(objectives["exact optimum"].get_ydata(), 0)

    def test_the_plane_shows_both_maps_on_one_scale(self):
        optimum, agent, bar = figures.answer_plane(plane()).axes
        np.testing.assert_array_equal(
            np.asarray(optimum.collections[0].get_array()), plane().optimum_YX
        )
        np.testing.assert_array_equal(
            np.asarray(agent.collections[0].get_array()), plane().optimum_YX[::-1]
        )
        assert optimum.collections[0].norm is agent.collections[0].norm
        assert bar.get_ylabel() == "split point p (layers on UE)"

    def test_ppl_turns_logarithmic_only_where_it_must(self):
        assert FIGURES["perplexity"]().axes[0].get_yscale() == "linear"
        assert [axes.get_yscale() for axes in FIGURES["four models"]().axes] == [
            "linear",
            "log",
            "linear",
            "log",
        ]

    def test_learning_curves_have_random_and_optimum_as_lines(self):
        (axes,) = figures.learning_curves([learning_panel()]).axes
        drawn = {artist.get_label(): artist for artist in axes.get_lines()}
        assert set(drawn["optimum"].get_ydata()) == {2.99}
        assert set(drawn["random policy"].get_ydata()) == {2.69}
        assert drawn["PPO"].get_linestyle() == "-"
        assert drawn["PPO (true rewards)"].get_linestyle() == "--"

    def test_one_bad_beginning_squeezes_no_curve(self):
        panel = learning_panel()
        low = panel.curves["PPO"].low.copy()
        low[0] = -40.0
        ppo = dataclasses.replace(panel.curves["PPO"], low=low)
        worst = dataclasses.replace(panel, curves={"PPO": ppo})
        (axes,) = figures.learning_curves([worst]).axes
        bottom, top = axes.get_ylim()
        assert bottom == pytest.approx(2.69 - 0.3 / 4)
        assert top > 2.99

    def test_one_bad_beginning_squeezes_no_panel_of_a_sweep(self):
        steps = np.arange(400, 24_001, 400)
        curve = band(steps, np.where(steps < 2_000, -40.0, -17.0), 1.0)
        panels = [SweepPanel(title="clip range", curves={"0.1": curve})]
        axes = figures.hyperparameter_panels(panels).axes[0]
        assert -19.5 < axes.get_ylim()[0] < -18.0

    def test_the_share_scale_is_0_at_random_and_100_at_the_optimum(self):
        figure = figures.learning_curves([learning_panel()])
        figure.draw_without_rendering()
        (axes,) = figure.axes
        (share,) = axes.child_axes
        low, high = axes.get_ylim()
        expected = [(y - 2.69) / 0.3 * 100 for y in (low, high)]
        assert share.get_ylim() == pytest.approx(expected)

    def test_the_weight_table_shows_every_split_point(self):
        above, below = figures.cost_weight_sweep(sweep()).axes
        texts = [text.get_text() for text in below.texts]
        assert texts == ["1", "1", "1", "10", "7", "1", "10", "10", "7"]
        assert [text.get_text() for text in above.texts] == ["90%", "72%", "40%"]
        assert below.patches[0].get_x() == 0.5  # the chosen column is outlined

    def test_hollow_dots_are_the_surrogate(self):
        (axes,) = figures.returns_and_intervals(*scores()).axes
        dots = [artist for artist in axes.get_lines() if artist.get_marker() == "o"]
        hollow = [
            dot for dot in dots if dot.get_markerfacecolor() == "white" and len(dot.get_xdata())
        ]
        assert [float(dot.get_xdata()[0]) for dot in hollow] == [2.985]
        assert [tick.get_text() for tick in axes.get_yticklabels()] == [
            "optimum",
            "PPO",
            "greedy",
            "random",
        ]

    def test_many_parity_points_are_pixels_in_vector_formats(self):
        many = figures.surrogate_parity(fit_report(600)).axes[0].collections[0]
        few = figures.surrogate_parity(fit_report(100)).axes[0].collections[0]
        assert (many.get_rasterized(), few.get_rasterized()) == (True, False)


class TestEpisodes:
    def test_violins_show_returns_and_what_the_optimum_has_more(self):
        left, right = figures.violins(played()).axes
        names = ["PPO", "PPO true rewards", "untrained PPO", "random"]
        assert [tick.get_text() for tick in left.get_yticklabels()] == names
        assert left.get_lines()[-1].get_xdata() == [2.99, 2.99]
        assert right.dataLim.x0 == pytest.approx(0, abs=1e-9)
        assert right.dataLim.x1 == pytest.approx(0.3, abs=0.01)

    def test_dots_are_all_decisions_near_their_split_points(self):
        (axes,) = figures.split_point_trend(decisions()).axes
        (dots,) = axes.collections
        x, y = np.asarray(dots.get_offsets()).T
        np.testing.assert_array_equal(x, decisions().x_N)
        np.testing.assert_array_equal(y.round(), decisions().split_points_N)
        assert axes.get_ylim() == (0.4, 10.6)


class TestTrend:
    def test_a_straight_line_is_found(self):
        x = np.linspace(0, 2, 50)
        found = figures.trend(x[::-1], (1 + 3 * x)[::-1])
        assert found.slope == pytest.approx(3)
        assert found.r2 == pytest.approx(1)
        np.testing.assert_allclose(found.y, 1 + 3 * found.x, atol=1e-6)

    def test_a_step_is_followed_although_most_choices_are_equal(self):
        x = np.linspace(0, 1, 200)
        found = figures.trend(x, np.where(x > 0.8, 10, 1))
        assert found.y[-1] > 8
        assert found.r2 > 0.7

    def test_noise_is_not_explained(self):
        rng = np.random.default_rng(0)
        found = figures.trend(rng.uniform(0, 1, 400), rng.normal(size=400))
        assert abs(found.r2) < 0.1

    def test_a_constant_choice_has_no_slope(self):
        found = figures.trend(np.linspace(0, 1, 30), np.full(30, 4.0))
        assert found.slope == pytest.approx(0, abs=1e-9)
        assert found.r2 == 0.0


def test_link_trace_shows_every_step_and_the_quantiles_over_time():
    """Three steps of 2 s and a last one of 1 s, which counts for half of the others."""
    steps = Steps("capacity_mbit_s", np.array([4.0, 8.0, 0.0, 6.0]), 2.0, np.array([2, 2, 2, 1.0]))
    figure = figures.link_trace(steps)
    over_time, distribution = figure.axes
    (stairs,) = over_time.patches
    assert stairs.get_data().values.tolist() == [4, 8, 0, 6]
    assert stairs.get_data().edges.tolist() == [0, 2, 4, 6, 7]
    assert over_time.get_ylabel() == "capacity (Mbit/s)"
    (line,) = distribution.lines
    assert line.get_xdata().tolist() == [0, 0, 4, 6, 8]
    assert line.get_ydata() == pytest.approx([0, 2 / 7, 4 / 7, 5 / 7, 1])
    # Half of the time is reached within the value 4.
    assert (
        distribution.get_title(loc="left") == "Distribution: 5% below 0, 50% below 4, 95% below 8"
    )
