"""The map of the best split point and codec: its numbers, its words, and where there is none."""

import numpy as np
import pytest

from raysplit import figures
from raysplit.figures import CodecCurve, CodecMap
from raysplit.link.codec import Codec
from raysplit.measure.table import Measurements
from raysplit.model.sizes import sizes_of
from raysplit.pipeline.budget import budget_terms
from raysplit.pipeline.experiment import load_experiment
from raysplit.pipeline.views.codecs import codec_map
from raysplit.report.answer import codec_sentence

SIZES = sizes_of("embedded")
CODECS = {"int8": 0.001, "int4": 0.08}  # what each adds to log PPL
BUDGET = [
    "problem.reward=budget",
    "problem.percent_per_second=100",
    "budget={network: lte, prompt_tokens: 512, output_tokens: 16}",
    "budget.overrides.phone.compute_tflops=0.05",
    f"problem.codecs={list(CODECS)}",
]
DIGITAL = [
    "link.mode=digital",
    "radio={cell: lte, packet_deadline_ms: 12}",
    "problem.link={snr_db: {low: -8, high: 16, grid_points: 5}}",
]
CLEAN = np.log(16.0)


def log_ppl(codec, p, link):
    """Linear in the link, so that what lies between measured states is exact."""
    return CLEAN + CODECS[codec] + link * (1 + 4 / p)


def tables(coordinate, axis):
    p_N, link_N = np.repeat(np.arange(1, 11), len(axis)), np.tile(axis, 10)
    return {
        codec: Measurements(
            split_points_N=p_N,
            link_names=(coordinate,),
            link_states_NK=link_N[:, None],
            log_ppl_N=log_ppl(codec, p_N, link_N),
            stderr_N=np.full(len(p_N), 0.01),
            clean_log_ppl=float(CLEAN),
            codecs=(codec,),
        )
        for codec in CODECS
    }


def objectives(overrides, codec, at_X, links_X):
    """Percent of the clean perplexity with one codec alone, (P, X), from its own experiment."""
    alone = load_experiment("demo", [*overrides, f"problem.codecs=[{codec}]"])
    digital = alone.radio is not None
    p_P1 = np.arange(1, 11)[:, None]
    cost_PX = np.stack(
        [budget_terms(alone, SIZES, x if digital else None).total_P for x in at_X.tolist()], axis=1
    )
    return 100 * (np.exp(log_ppl(codec, p_P1, links_X) - CLEAN) + cost_PX)


@pytest.mark.parametrize("mode", ["digital", "analogue"])
@pytest.mark.slow
def test_the_map_is_the_best_of_what_each_codec_achieves_alone(mode):
    digital = mode == "digital"
    overrides = [*BUDGET, *(DIGITAL if digital else [])]
    experiment = load_experiment("demo", overrides)
    axis = np.linspace(0, 0.6, 4) if digital else np.linspace(0, 1, 5)
    drawn = codec_map(
        experiment, SIZES, tables("loss_probability" if digital else "noise_std", axis)
    )
    assert drawn is not None
    expected = {}
    for codec in CODECS:
        loss = experiment.token_loss(Codec(codec))
        links_X = drawn.values_X if loss is None else loss.at(drawn.values_X)
        expected[codec] = objectives(overrides, codec, drawn.values_X, links_X)
    best_X = np.min([one.min(axis=0) for one in expected.values()], axis=0)
    for curve in drawn.curves:
        own_PX = expected[curve.codec]
        np.testing.assert_array_equal(curve.split_points_X, 1 + own_PX.argmin(axis=0))
        np.testing.assert_allclose(curve.percent_X, own_PX.min(axis=0) - best_X, atol=1e-9)
        chosen_X = np.exp(log_ppl(curve.codec, curve.split_points_X, links_X) - CLEAN)
        if not digital:
            np.testing.assert_allclose(curve.half_X, 100 * 1.96 * 0.01 * chosen_X)
    if digital:
        assert (drawn.values_X[0], drawn.values_X[-1]) == (-8.0, 16.0)
        # Few bits where the air is slow, the finer codec where it is fast.
        assert [drawn.curves[i].codec for i in drawn.best_X[[0, -1]]] == ["int4", "int8"]


@pytest.mark.parametrize(
    "overrides",
    [
        BUDGET[2:],  # a budget that is only shown: bits cost nothing
        [*BUDGET[:-1], "problem.codecs=[int8]"],
        [*BUDGET, "problem.link.fading_scale=[0.5, 1]", "link.fading=rayleigh"],
    ],
)
def test_there_is_no_map_without_a_choice_that_costs_something(overrides):
    experiment = load_experiment("demo", overrides)
    of_codec = {codec: tables("noise_std", np.linspace(0, 1, 5))[codec] for codec in CODECS}
    chosen = {codec: of_codec[codec] for codec in experiment.problem.codecs}
    assert codec_map(experiment, SIZES, chosen) is None


def hand_made(**percent):
    x = np.array([-8.0, -4.0, 0.0, 4.0])
    p = {"int8": [4, 3, 2, 2], "int4": [6, 6, 5, 5], "int3": [9, 9, 9, 9]}
    return CodecMap(
        coordinate="snr_db",
        values_X=x,
        split_points=(1, 10),
        curves=[
            CodecCurve(
                codec=codec, split_points_X=np.array(p[codec]), percent_X=np.array(percent_X),
                half_X=np.full(4, 0.5),
            )
            for codec, percent_X in percent.items()
        ],
    )  # fmt: skip


def test_the_codec_s_answer_is_said_with_its_range_and_layers():
    changing = hand_made(int8=[3.0, 1.0, 0.0, 0.0], int4=[0.0, 0.0, 1.0, 2.0])
    assert codec_sentence(changing) == (
        "With the codec free: int4 with 6 layers up to SNR = -4 dB, then int8 with 2 layers."
    )
    staying = hand_made(int8=[0.0] * 4, int3=[3.0, 2.5, 4.0, 4.0])
    assert codec_sentence(staying) == (
        "With the codec free: int8 with 4 down to 2 layers, whatever SNR (dB); "
        "int3 costs at least 2.5 % more."
    )


def test_the_figure_draws_the_best_of_all_behind_the_codecs():
    drawn = hand_made(int8=[3.0, 1.0, 0.0, 0.0], int4=[0.0, 0.0, 1.0, 2.0])
    above, below = figures.codec_map(drawn).axes
    optimum, *of_codecs = above.lines
    assert list(optimum.get_ydata()) == [6, 6, 2, 2]
    assert [list(line.get_ydata()) for line in of_codecs] == [[4, 3, 2, 2], [6, 6, 5, 5]]
    assert list(below.lines[0].get_ydata()) == [3.0, 1.0, 0.0, 0.0]
    tints = [(span.get_x(), span.get_x() + span.get_width()) for span in below.patches]
    assert tints == [(-8.0, -2.0), (-2.0, 4.0)]
