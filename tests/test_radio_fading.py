"""Fading, delay profiles, effective SNR, path loss: against closed forms and hand calculations."""

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import stats
from scipy.special import j0

from raysplit.base.errors import UserError
from raysplit.radio import (
    PROFILES,
    ChannelConfig,
    FadingConfig,
    doppler_hz,
    effective_snr_db,
    fading_gains,
    frequency_response,
    ideal_mcs,
    ideal_on_subcarriers,
    jakes_correlation,
    load_cell,
    load_place,
    mean_snr_db,
    rsrp_to_snr_db,
    snr_path_db,
    tdl_gains,
)

CARRIER_GHZ, STEP_S = 3.5, 1e-3
CELL = load_cell("lte")
PATHS, STEPS = 4000, 60
LAGS = np.arange(STEPS)


def gains(paths=PATHS, steps=STEPS, step_s=STEP_S, seed=0, **config):
    rng = np.random.default_rng(seed)
    return fading_gains(FadingConfig(**config), CARRIER_GHZ, step_s, steps, rng, paths)


def correlation(gains_NT):
    """E[h(t) h*(t + tau)] over paths, from the first slot."""
    return np.mean(gains_NT[:, :1].conj() * gains_NT, axis=0)


def test_doppler_of_a_walk():
    assert doppler_hz(1.0, 3.5) == pytest.approx(11.7, abs=0.03)


def test_jakes_correlation_is_a_bessel_function():
    speed = 10.0
    expected = j0(2 * np.pi * doppler_hz(speed, CARRIER_GHZ) * LAGS * STEP_S)
    assert expected.min() < -0.3, "the lags reach beyond the first zeros"
    found = correlation(gains(speed_m_s=speed))
    assert np.abs(found - expected).max() < 4 / np.sqrt(PATHS)
    known = jakes_correlation(LAGS * STEP_S, doppler_hz(speed, CARRIER_GHZ))
    assert known == pytest.approx(expected)


def test_one_long_path_has_the_correlation_in_time():
    h_T = gains(paths=1, steps=200_000, speed_m_s=10.0)[0]
    found = [np.mean(h_T[:-60].conj() * h_T[lag : len(h_T) - 60 + lag]) for lag in LAGS]
    expected = jakes_correlation(LAGS * STEP_S, doppler_hz(10.0, CARRIER_GHZ))
    assert np.abs(np.array(found) - expected).max() < 0.03


def test_gauss_markov_correlation_falls_geometrically():
    speed = 3.0
    once = float(j0(2 * np.pi * doppler_hz(speed, CARRIER_GHZ) * STEP_S))
    found = correlation(gains(speed_m_s=speed, correlation="gauss_markov"))
    assert np.abs(found - once**LAGS).max() < 4 / np.sqrt(PATHS)


@pytest.mark.parametrize("correlation", ["jakes", "gauss_markov"])
def test_power_of_a_scattered_gain_is_exponential(correlation):
    h_NT = gains(correlation=correlation, paths=20_000, steps=2)
    for power_N in (np.abs(h_NT[:, 0]) ** 2, np.abs(h_NT[:, 1]) ** 2):
        assert stats.kstest(power_N, "expon").statistic < 1.9 / np.sqrt(20_000)
    assert np.mean(np.abs(h_NT) ** 4) == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("correlation", ["jakes", "gauss_markov"])
def test_rician_power_is_noncentral(correlation):
    k = 4.0
    power_N = np.abs(gains(correlation=correlation, rician_k=k, steps=5)[:, 3]) ** 2
    law = stats.ncx2(2, 2 * k, scale=1 / (2 * (k + 1)))
    assert stats.kstest(power_N, law.cdf).statistic < 1.9 / np.sqrt(PATHS)


def test_the_direct_path_turns_by_its_doppler():
    speed, k = 5.0, 1e9
    shift_hz = 0.7 * doppler_hz(speed, CARRIER_GHZ)
    h_NT = gains(paths=3, rician_k=k, speed_m_s=speed)
    turned = h_NT * np.exp(-2j * np.pi * shift_hz * LAGS * STEP_S)
    assert turned == pytest.approx(turned[:, :1] * np.ones(STEPS), abs=1e-3)


@pytest.mark.parametrize("correlation", ["jakes", "gauss_markov"])
def test_who_stands_still_keeps_the_gain(correlation):
    h_NT = gains(paths=5, correlation=correlation, speed_m_s=0.0)
    assert h_NT == pytest.approx(h_NT[:, :1] * np.ones(STEPS))
    assert len(np.unique(h_NT[:, 0])) == 5


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 101])
def test_the_number_of_steps_changes_no_gain(steps):
    assert gains(paths=2, steps=steps) == pytest.approx(gains(paths=2, steps=101)[:, :steps])


@pytest.mark.parametrize("name", PROFILES)
def test_delay_profiles_have_unit_power_and_unit_spread(name):
    profile = PROFILES[name]
    assert len(profile.delays_L) == {"TDL-A": 23, "TDL-B": 23, "TDL-C": 24}[name]
    assert profile.powers_L.sum() == pytest.approx(1)
    # TR 38.901, 7.7.2: delays are normalised, so that their root mean square spread is 1.
    assert profile.delay_spread() == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.slow
def test_taps_have_the_power_of_the_profile(name):
    taps_NLT = tdl_gains(name, FadingConfig(), CARRIER_GHZ, 0.5, 1, np.random.default_rng(0), PATHS)
    power_L = np.mean(np.abs(taps_NLT[:, :, 0]) ** 2, axis=0)
    assert power_L == pytest.approx(PROFILES[name].powers_L, rel=5 / np.sqrt(PATHS))
    strongest = np.argsort(power_L)[-2:]
    one, other = taps_NLT[:, strongest[0], 0], taps_NLT[:, strongest[1], 0]
    assert abs(np.mean(one * other.conj())) < 4 * np.sqrt(np.prod(power_L[strongest]) / PATHS)


def test_subcarriers_are_correlated_as_the_profile_says():
    """E[H(0) H*(f)] is the Fourier transform of the power-delay profile."""
    name, spread_ns, frequencies_F = "TDL-B", 300.0, np.linspace(0, 2e6, 21)
    taps = tdl_gains(name, FadingConfig(), CARRIER_GHZ, STEP_S, 1, np.random.default_rng(0), PATHS)
    response_NF = frequency_response(taps, name, spread_ns, frequencies_F)[:, 0]
    delays_L = PROFILES[name].delays_L * spread_ns * 1e-9
    expected = np.exp(2j * np.pi * np.outer(frequencies_F, delays_L)) @ PROFILES[name].powers_L
    found = np.mean(response_NF[:, :1] * response_NF.conj(), axis=0)
    assert np.abs(found - expected).max() < 5 / np.sqrt(PATHS)
    assert np.abs(expected[-1]) < 0.65, "the subcarriers differ"


def test_effective_snr_of_a_flat_channel_is_its_snr():
    for snr_db in (-20.0, 3.0, 45.0):
        flat = np.full((2, 50), 10 ** (snr_db / 10))
        for mcs in (0, 14, 28):
            assert effective_snr_db(flat, mcs) == pytest.approx(snr_db)


def test_effective_snr_of_two_halves():
    snr, beta = np.array([1.0, 9.0]), 5.16  # MCS 13
    expected = -beta * np.log((np.exp(-1 / beta) + np.exp(-9 / beta)) / 2)
    assert effective_snr_db(snr, 13) == pytest.approx(10 * np.log10(expected))
    # A subcarrier without signal costs more than the mean says, and a strong one cannot repair it.
    assert effective_snr_db(np.array([0.0, 1e9]), 0) == pytest.approx(
        10 * np.log10(1.6 * np.log(2))
    )
    assert effective_snr_db(np.array([0.0, 0.0]), 0) == -np.inf


def test_effective_snr_lies_between_least_and_mean():
    snr_SF = np.random.default_rng(0).exponential(20, (200, 30))
    for mcs in (3, 14, 27):
        found = 10 ** (effective_snr_db(snr_SF, mcs) / 10)
        assert (found > snr_SF.min(axis=1)).all()
        assert (found < snr_SF.mean(axis=1)).all()


def test_adaptation_on_subcarriers_is_the_flat_one_on_a_flat_channel():
    snr_db = np.linspace(-10, 30, 81)
    flat_SF = np.repeat(10 ** (snr_db / 10), 7).reshape(-1, 7)
    mcs, effective_db = ideal_on_subcarriers(flat_SF, CELL.grid)
    assert effective_db == pytest.approx(snr_db)
    assert np.array_equal(mcs, ideal_mcs(snr_db, CELL.grid))


def test_snr_path_has_the_mean_and_the_spread_of_its_fading():
    path_db = snr_path_db(
        ChannelConfig(speed_m_s=30.0), CELL, 7.0, 50_000, np.random.default_rng(0)
    )
    assert 10 * np.log10(np.mean(10 ** (path_db / 10))) == pytest.approx(7.0, abs=0.1)
    # The dB of an exponential power: mean -2.51 dB, standard deviation 5.57 dB.
    assert path_db.mean() == pytest.approx(7 - 2.507, abs=0.15)
    assert path_db.std() == pytest.approx(5.57, abs=0.15)


def test_diversity_over_frequency_narrows_the_spread():
    rng = np.random.default_rng(0)
    cell = load_cell("lte", grid={"resource_blocks": 25})
    channels = [
        ChannelConfig(profile="TDL-C", delay_spread_ns=ns, speed_m_s=60.0) for ns in (1e-3, 300.0)
    ]
    spreads = [snr_path_db(channel, cell, 12.0, 1500, rng).std() for channel in channels]
    assert spreads[0] == pytest.approx(5.57, abs=0.5), "no delay, flat"
    assert spreads[1] < 0.6 * spreads[0]


def test_mean_snr_may_differ_by_slot():
    mean_db = np.repeat([0.0, 20.0], 500)
    channel = ChannelConfig(rician_k=1e9, speed_m_s=0.0)
    path_db = snr_path_db(channel, CELL, mean_db, 1000, np.random.default_rng(0))
    assert path_db == pytest.approx(mean_db, abs=0.01)


@pytest.mark.parametrize(
    ("place", "distance_m", "loss_db"),
    [
        # By hand at 2 GHz, a phone at 1.5 m: break points at 320.2 m (UMa) and 120.1 m (UMi).
        ("uma-los", 100, 28 + 22 * np.log10(np.hypot(100, 23.5)) + 6.0206),
        ("umi-los", 100, 32.4 + 21 * np.log10(np.hypot(100, 8.5)) + 6.0206),
        ("uma-nlos", 100, 13.54 + 39.08 * np.log10(np.hypot(100, 23.5)) + 6.0206),
        ("umi-nlos", 100, 22.4 + 35.3 * np.log10(np.hypot(100, 8.5)) + 21.3 * 0.30103),
        (
            "uma-los",
            1000,
            28 + 40 * np.log10(np.hypot(1000, 23.5)) + 6.0206 - 9 * np.log10(320.2**2 + 23.5**2),
        ),
        (
            "umi-los",
            1000,
            32.4 + 40 * np.log10(np.hypot(1000, 8.5)) + 6.0206 - 9.5 * np.log10(120.1**2 + 8.5**2),
        ),
    ],
)
def test_path_loss_by_hand(place, distance_m, loss_db):
    assert load_place(place).path_loss_db(distance_m, 2.0) == pytest.approx(loss_db, abs=0.01)


@pytest.mark.parametrize(("place", "break_m"), [("uma-los", 320.2), ("umi-los", 120.1)])
def test_from_the_break_point_on_the_loss_rises_with_the_fourth_power(place, break_m):
    """40 dB a decade of the way in space right behind it, 22 or 21 before it, and no jump."""
    place = load_place(place)
    distance_m = break_m * np.array([0.98, 0.99, 1.01, 1.02])
    loss_db = place.path_loss_db(distance_m, 2.0)
    decades = np.log10(np.hypot(distance_m, place.base_height_m - 1.5))
    slopes = np.diff(loss_db) / np.diff(decades)
    assert slopes[[0, 2]] == pytest.approx([22 if place.formula == "uma" else 21, 40])
    assert 20 < slopes[1] < 41


@pytest.mark.parametrize("formula", ["uma", "umi"])
def test_path_loss_rises_with_distance_and_without_sight(formula):
    distance_m = np.linspace(10, 5000, 2000)
    sight, hidden = (
        load_place(f"{formula}-{kind}").path_loss_db(distance_m, 3.5) for kind in ("los", "nlos")
    )
    assert (np.diff(sight) > 0).all(), "also over the break point"
    assert (np.diff(hidden) > 0).all()
    assert (hidden >= sight).all()


def test_shadowing_has_its_spread_and_decorrelates_over_the_way():
    place = load_place("uma-nlos")
    shadow_NT = place.shadowing_db(40, 5.0, np.random.default_rng(0), PATHS)
    assert shadow_NT.std(axis=0) == pytest.approx(6, rel=4 / np.sqrt(2 * PATHS))
    found = np.mean(shadow_NT[:, :1] * shadow_NT, axis=0) / 36
    assert found == pytest.approx(np.exp(-np.arange(40) * 5 / 50), abs=4 / np.sqrt(PATHS))


def test_mean_snr_is_a_link_budget():
    place = load_place("uma-los")
    noise_dbm = -174 + 10 * np.log10(100 * 12 * 15e3) + 5
    loss_db = place.path_loss_db(300, 1.8)
    assert mean_snr_db(CELL, place, 300) == pytest.approx(23 + 8 - loss_db - noise_dbm)


def test_rsrp_gives_the_same_snr_as_the_path_loss_behind_it():
    place, distance_m = load_place("uma-los"), 300
    power_dbm = CELL.base_power_dbm - 10 * np.log10(1200)  # of one subcarrier
    rsrp_dbm = power_dbm + CELL.antenna_gain_db - place.path_loss_db(distance_m, CELL.carrier_ghz)
    assert rsrp_to_snr_db(rsrp_dbm, CELL) == pytest.approx(mean_snr_db(CELL, place, distance_m))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gains(steps=0), "steps = 0"),
        (lambda: gains(step_s=0.0), "step_s = 0"),
        (lambda: doppler_hz(-1, 3.5), "speed_m_s = -1"),
        (
            lambda: tdl_gains("TDL-E", FadingConfig(), 3.5, 1, 1, None),
            "unknown delay profile 'TDL-E'; known: TDL-A",
        ),
        (
            lambda: tdl_gains("TDL-A", FadingConfig(rician_k=2), 3.5, 1, 1, None),
            "rician_k = 2 does not go with TDL-A",
        ),
        (lambda: effective_snr_db(np.array([-1.0]), 3), "snr = -1"),
        (lambda: load_place("uma-los").path_loss_db(5, 2.0), "distance_m = 5 .* at least 10"),
        (lambda: load_place("uma-los").path_loss_db(50, 200.0), "carrier_ghz = 200"),
        (lambda: load_place("uma-los").shadowing_db(3, -1, None), "step_m = -1"),
        (lambda: rsrp_to_snr_db(3.0, CELL), "rsrp_dbm = 3 .* at most 0"),
        (lambda: snr_path_db(ChannelConfig(), CELL, np.nan, 3, None), "mean_snr_db = nan"),
    ],
)
def test_what_no_channel_has_is_refused(call, message):
    with pytest.raises(UserError, match=message):
        call()


def test_a_profile_without_sight_has_no_direct_path():
    with pytest.raises(ValidationError, match="rician_k=3 needs a direct path"):
        ChannelConfig(profile="TDL-A", rician_k=3)
