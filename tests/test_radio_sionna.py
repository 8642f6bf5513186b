"""The same statistics as Sionna's, where the extra `sionna` is installed.

    pip install raysplit[sionna]

Tolerances are those of the number of draws (five standard errors), and of what is read from a table
with steps of 1.8 dB.
"""

import importlib.resources
import json

import numpy as np
import pytest

from raysplit.radio import (
    PROFILES,
    FadingConfig,
    block_error_rate,
    effective_snr_db,
    frequency_response,
    jakes_correlation,
    load_place,
    snr_db_at,
    tdl_gains,
)
from raysplit.radio.mcs import CODE_RATES, MODULATION_BITS
from raysplit.radio.place import SPEED_OF_LIGHT_M_S

pytest.importorskip("sionna", reason="needs the extra 'sionna' (pip install raysplit[sionna])")
# Sionna annotates with what newer libraries call deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

PATHS, STEPS, STEP_S = 1500, 30, 2e-3
CARRIER_GHZ, SPEED_M_S, SPREAD_NS = 3.5, 5.0, 300.0
FREQUENCIES_F = np.linspace(-5e6, 5e6, 11)
ERRORS = 5 / np.sqrt(PATHS)


def sionna_response(name):
    import torch
    from sionna.phy import config
    from sionna.phy.channel import cir_to_ofdm_channel
    from sionna.phy.channel.tr38901 import TDL

    config.seed = 1
    tdl = TDL(
        model=name.removeprefix("TDL-"),
        delay_spread=SPREAD_NS * 1e-9,
        carrier_frequency=CARRIER_GHZ * 1e9,
        min_speed=SPEED_M_S,
        device="cpu",
    )
    a, tau = tdl(PATHS, STEPS, 1 / STEP_S)
    frequencies = torch.tensor(FREQUENCIES_F, dtype=torch.float32)
    response = cir_to_ofdm_channel(frequencies, a, tau, normalize=False)
    return a.numpy()[:, 0, 0, 0, 0], tau.numpy()[0, 0, 0], response.numpy()[:, 0, 0, 0, 0]


def own_response(name):
    rng = np.random.default_rng(0)
    fading = FadingConfig(speed_m_s=SPEED_M_S)
    taps_NLT = tdl_gains(name, fading, CARRIER_GHZ, STEP_S, STEPS, rng, PATHS)
    return taps_NLT, frequency_response(taps_NLT, name, SPREAD_NS, FREQUENCIES_F)


@pytest.mark.slow
@pytest.mark.parametrize("name", PROFILES)
def test_tapped_delay_lines(name):
    theirs_NLT, delays_L, their_response_NTF = sionna_response(name)
    ours_NLT, our_response_NTF = own_response(name)
    # Power and delay of each tap, in either order.
    ours, theirs = (np.mean(np.abs(taps) ** 2, axis=(0, 2)) for taps in (ours_NLT, theirs_NLT))
    order, their_order = np.argsort(PROFILES[name].delays_L), np.argsort(delays_L)
    assert PROFILES[name].delays_L[order] * SPREAD_NS * 1e-9 == pytest.approx(
        delays_L[their_order], abs=1e-12
    )
    assert ours[order] == pytest.approx(theirs[their_order], rel=2 * ERRORS)
    # Correlation in time and over subcarriers, and the law of the power.
    for axis in (1, 2):
        found = [
            np.mean(response.take([0], axis=axis).conj() * response, axis=0)
            for response in (our_response_NTF, their_response_NTF)
        ]
        assert np.abs(found[0] - found[1]).max() < 2 * ERRORS
    shares = np.linspace(0.05, 0.95, 19)
    below = [
        np.mean(np.abs(response[:, 0, :1]) ** 2 < -np.log1p(-shares), axis=0)
        for response in (our_response_NTF, their_response_NTF)
    ]
    assert np.abs(below[0] - below[1]).max() < 2 * ERRORS
    time = np.mean(their_response_NTF[:, :1].conj() * their_response_NTF, axis=(0, 2))
    doppler = SPEED_M_S * CARRIER_GHZ * 1e9 / SPEED_OF_LIGHT_M_S
    assert np.abs(time - jakes_correlation(np.arange(STEPS) * STEP_S, doppler)).max() < ERRORS


def test_effective_snr():
    import torch
    from sionna.sys import EESM

    snr_SF = np.random.default_rng(0).exponential(15, (29, 40))
    eesm = EESM(device="cpu")
    theirs = eesm(
        torch.tensor(snr_SF[:, None, :, None, None], dtype=torch.float32),
        torch.arange(29, dtype=torch.int32)[:, None],
        mcs_table_index=1,
    ).numpy()[:, 0]
    ours = [effective_snr_db(snr_SF[mcs], mcs) for mcs in range(29)]
    assert ours == pytest.approx(10 * np.log10(theirs), abs=0.01)


def test_modulation_and_code_rates():
    import torch
    from sionna.phy.nr.utils import decode_mcs_index

    order, rate = decode_mcs_index(torch.arange(29), table_index=1, is_pusch=True)
    assert np.array(order).tolist() == MODULATION_BITS.tolist()
    assert np.array(rate) == pytest.approx(CODE_RATES, rel=1e-6)


def test_block_errors_within_half_a_db_of_the_simulated_ones():
    """Where a point of the table is neither almost 0 nor almost 1, it tells the SNR distance."""
    folder = importlib.resources.files("sionna") / "sys" / "bler_tables" / "PUSCH_table1.json"
    table = json.loads(folder.read_text())["category"]["0"]["index"]["1"]["MCS"]
    distances_db = []
    for mcs, content in table.items():
        for bits in ("100", "500", "1000", "2000"):
            error = np.array(content["CBS"][bits]["BLER"])
            told = (error > 0.05) & (error < 0.95)
            snr_db = np.array(content["SNR_db"])[told]
            distances_db += (snr_db_at(error[told], int(mcs), int(bits)) - snr_db).tolist()
            beyond = np.array(content["SNR_db"])[error == 0]
            assert (block_error_rate(beyond, int(mcs), int(bits)) < 0.06).all()
    assert len(distances_db) > 50
    assert np.abs(distances_db).max() < 0.8
    assert np.sqrt(np.mean(np.square(distances_db))) < 0.25
    assert abs(np.mean(distances_db)) < 0.1


@pytest.mark.parametrize("name", ["uma-los", "uma-nlos", "umi-los", "umi-nlos"])
def test_shadowing_constants(name):
    formula, sight = name.split("-")
    file = {"uma": "UMa", "umi": "UMi"}[formula] + {"los": "_LoS", "nlos": "_NLoS"}[sight] + ".json"
    models = importlib.resources.files("sionna") / "phy" / "channel" / "tr38901" / "models"
    (path,) = (p for p in (models / "v19_2").iterdir() if p.name == file)
    constants, place = json.loads(path.read_text()), load_place(name)
    assert place.shadowing_std_db == constants["sigmaSF"]
    assert place.decorrelation_m == constants["corrDistSF"]
