"""Closed forms of the fading gain against scipy's distributions, and drawn gains against both."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.stats import rv_continuous

from raysplit.base.errors import UserError
from raysplit.link.config import LinkConfig
from raysplit.link.fading import fading_scale_for_outage, outage_probability
from raysplit.link.gains import draw_gains

SCALES = (0.05, 0.8, 1.0, 3.0)
CONFIGS = [
    LinkConfig(fading="rayleigh", gain_threshold=0.5),
    *(LinkConfig(fading="rician", gain_threshold=0.5, rician_k=k) for k in (0.0, 0.3, 4.0, 60.0)),
    *(
        LinkConfig(fading="nakagami", gain_threshold=0.5, nakagami_m=m)
        for m in (0.5, 1.0, 2.7, 12.0)
    ),
]


def config_name(config: LinkConfig) -> str:
    return f"{config.fading}-K{config.rician_k:g}-m{config.nakagami_m:g}"


def law(config: LinkConfig, fading_scale: float) -> rv_continuous:
    """The same distribution in scipy's own parameters."""
    omega = 2 * fading_scale**2
    match config.fading:
        case "rayleigh":
            return stats.rayleigh(scale=fading_scale)
        case "rician":
            scattered = math.sqrt(omega / (2 * (config.rician_k + 1)))
            return stats.rice(b=math.sqrt(2 * config.rician_k), scale=scattered)
        case _:
            return stats.nakagami(config.nakagami_m, scale=math.sqrt(omega))


@pytest.mark.parametrize("config", CONFIGS, ids=config_name)
@pytest.mark.parametrize("fading_scale", SCALES)
def test_closed_forms_equal_scipy(config: LinkConfig, fading_scale: float) -> None:
    reference = law(config, fading_scale)
    assert outage_probability(config, fading_scale) == pytest.approx(
        reference.cdf(config.gain_threshold), rel=1e-9, abs=1e-300
    )


def test_rayleigh_outage_is_equation_4() -> None:
    config = LinkConfig(fading="rayleigh", gain_threshold=0.3)
    assert outage_probability(config, 0.7) == pytest.approx(1 - math.exp(-(0.3**2) / (2 * 0.7**2)))


@pytest.mark.parametrize(
    "config",
    [
        LinkConfig(fading="rician", rician_k=0.0, gain_threshold=0.4),
        LinkConfig(fading="nakagami", nakagami_m=1.0, gain_threshold=0.4),
    ],
    ids=config_name,
)
def test_rayleigh_is_a_special_case(config: LinkConfig) -> None:
    rayleigh = LinkConfig(fading="rayleigh", gain_threshold=0.4)
    outage = outage_probability(rayleigh, 0.9)
    assert outage_probability(config, 0.9) == pytest.approx(outage, rel=1e-12)


@pytest.mark.parametrize("config", CONFIGS, ids=config_name)
@pytest.mark.parametrize("probability", [1e-6, 0.01, 0.1, 0.3, 0.9])
def test_inverse_outage(config: LinkConfig, probability: float) -> None:
    fading_scale = fading_scale_for_outage(config, probability)
    assert outage_probability(config, fading_scale) == pytest.approx(probability, rel=1e-9)


@pytest.mark.parametrize("config", CONFIGS, ids=config_name)
@pytest.mark.parametrize("fading_scale", [0.5, 0.8])
def test_drawn_gains_follow_the_law(config: LinkConfig, fading_scale: float) -> None:
    samples = 100_000
    generator = torch.Generator().manual_seed(11)
    gains = draw_gains(config, fading_scale, (samples,), generator).double().numpy()
    reference = law(config, fading_scale)
    assert stats.kstest(gains, reference.cdf).pvalue > 1e-3

    lost = outage_probability(config, fading_scale)
    spread = math.sqrt(lost * (1 - lost) / samples)
    assert abs((gains < config.gain_threshold).mean() - lost) <= 4 * spread
    assert abs(gains.mean() - reference.mean()) <= 4 * gains.std() / samples**0.5
    square = gains**2
    assert abs(square.mean() - 2 * fading_scale**2) <= 4 * square.std() / samples**0.5


@pytest.mark.parametrize("config", [LinkConfig(), *CONFIGS], ids=config_name)
def test_gains_are_float32_on_the_generators_device_whatever_the_default(
    config: LinkConfig,
) -> None:
    usual = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        with torch.device("meta"):
            gains = draw_gains(config, 0.8, (2, 3), torch.Generator("cpu").manual_seed(3))
    finally:
        torch.set_default_dtype(usual)
    assert (gains.dtype, gains.device.type) == (torch.float32, "cpu")
    assert torch.equal(gains, draw_gains(config, 0.8, (2, 3), torch.Generator().manual_seed(3)))


@pytest.mark.parametrize("config", CONFIGS, ids=config_name)
def test_scale_only_scales(config: LinkConfig) -> None:
    one = draw_gains(config, 1.0, (4, 5), torch.Generator().manual_seed(3))
    two = draw_gains(config, 2.0, (4, 5), torch.Generator().manual_seed(3))
    torch.testing.assert_close(two, 2 * one)


def test_neighbours_are_independent() -> None:
    for config in CONFIGS:
        gains = draw_gains(config, 1.0, (100_000,), torch.Generator().manual_seed(5)).numpy()
        assert abs(np.corrcoef(gains[:-1], gains[1:])[0, 1]) < 4 / 100_000**0.5


def test_without_fading_the_gain_is_one() -> None:
    config = LinkConfig()
    assert outage_probability(config, 1.0) == 0.0
    gains = draw_gains(config, 1.0, (2, 3, 1), torch.Generator())
    assert torch.equal(gains, torch.ones(2, 3, 1))


@pytest.mark.parametrize("probability", [0.0, 1.0, -0.1, float("nan")])
def test_impossible_outage_is_refused(probability: float) -> None:
    with pytest.raises(UserError, match=r"inside \(0, 1\)"):
        fading_scale_for_outage(CONFIGS[0], probability)


@pytest.mark.parametrize("config", [LinkConfig(), LinkConfig(fading="rician")])
def test_a_link_without_outage_has_no_inverse(config: LinkConfig) -> None:
    with pytest.raises(UserError, match="never loses a packet"):
        fading_scale_for_outage(config, 0.1)
