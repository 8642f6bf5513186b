"""lm-eval's model arguments: what they mean, and what is refused (lm-eval is not needed)."""

import pytest

from raysplit.base.errors import UserError
from raysplit.harness.arguments import read_arguments
from raysplit.link.state import LinkState

RAYLEIGH = ["link={fading: rayleigh, gain_threshold: 0.3}", "problem.link={fading_scale: [0.5, 2]}"]


def test_split_point_codec_state_and_seed_are_read():
    got = read_arguments({"split_point": 3, "codec": "int8", "noise_std": 0.5, "seed": 7}).setting
    assert (got.split_point, got.codec.name, got.seed) == (3, "int8", 7)
    assert got.link == LinkState(noise_std=0.5)


def test_over_a_perfect_link_no_split_point_has_to_be_named():
    arguments = read_arguments({"experiment": "demo"})
    assert arguments.setting.split_point == arguments.experiment.problem.min_split_point
    assert arguments.setting.link == LinkState()


def test_an_outage_becomes_the_fading_that_has_it():
    got = read_arguments({"overrides": RAYLEIGH, "split_point": 2, "outage_probability": 0.1})
    # 1 - exp(-h^2 / (2 s^2)) = 0.1
    assert got.setting.link.fading_scale == pytest.approx(0.3 / (2 * 0.105360515657826) ** 0.5)


def test_in_digital_mode_the_snr_becomes_the_radios_loss():
    good, bad = (
        read_arguments({"experiment": "5g-cell-edge", "split_point": 3, "snr_db": snr}).setting.link
        for snr in (8, -3)
    )
    assert good.snr_db is bad.snr_db is None
    assert 0 <= good.loss_probability < bad.loss_probability <= 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"splitpoint": 3}, "did you mean 'split_point'?"),
        ({"split_point": 17}, "split_point=17 is not possible: the experiment's problem has 1"),
        ({"split_point": 2.5}, "split_point=2.5 is not possible: it must be a whole number"),
        ({"noise_std": 1}, "split_point is missing"),
        ({"codec": "int8"}, "split_point is missing"),
        ({"split_point": 3, "noise_std": -1}, "noise_std=-1 is not possible"),
        ({"split_point": 3, "noise_std": "loud"}, "noise_std='loud' is not possible"),
        ({"split_point": 3, "noise_std": 1, "snr_db": 3}, "both set the noise"),
        ({"split_point": 3, "fading_scale": 2}, "fading_scale has no effect with fading=none"),
        ({"split_point": 3, "codec": "int9"}, "unknown codec 'int9'"),
        ({"split_point": 3, "seed": -1}, "seed=-1 is not possible"),
        ({"add_bos_token": "maybe"}, "add_bos_token='maybe'"),
        ({"experiment": "dmo"}, "did you mean 'demo'?"),
        ({"experiment": "5g-cell-edge", "split_point": 3, "snr_db": 99}, "snr_db=99"),
        ({"experiment": "5g-cell-edge", "split_point": 3, "noise_std": 1}, "takes snr_db alone"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(given, message):
    with pytest.raises(UserError) as error:
        read_arguments(given)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
