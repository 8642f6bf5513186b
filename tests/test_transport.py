"""What SNR means to a packet and a prompt, against simulated transfers and by hand."""

import numpy as np
import pytest

from raysplit.radio import block_error_rate, digital_link, ideal_mcs, load_cell, simulate_transfers
from raysplit.radio.mcs import EFFICIENCY
from raysplit.radio.transport import (
    RadioConfig,
    block_failures,
    late_probability,
    sustained_rate_mbit_s,
    token_loss,
)

LTE = load_cell("lte")
STILL = RadioConfig(nakagami_m=None)


def bits_at(snr_db):
    return int(LTE.grid.transport_block_bits()[int(ideal_mcs(np.array(snr_db), LTE.grid))])


def test_without_errors_a_transfer_takes_a_slot_a_block():
    bits = bits_at(40.0)
    assert sustained_rate_mbit_s(STILL, 40.0) == pytest.approx(bits / 1e3)  # slots of 1 ms
    left_s = np.array([-0.001, 0.0, 0.0099, 0.010, 0.011, 9])
    late_P = late_probability(STILL, 40.0, 10 * bits, left_s)
    np.testing.assert_allclose(late_P, [1, 1, 1, 0, 0, 0], atol=1e-12)


def test_a_few_blocks_are_late_as_often_as_counting_says():
    """Two blocks, at most two attempts each: 2, 3 or 4 slots."""
    radio = RadioConfig(overrides={"harq": {"max_attempts": 2}}, nakagami_m=2)
    (bits,), ((_, p, _),) = block_failures(radio, np.array([5.0]))
    assert 0.05 < p < 0.5
    late_P = late_probability(radio, 5.0, 2 * bits, np.array([0.001, 0.002, 0.003, 0.004]))
    np.testing.assert_allclose(late_P, [1, 1 - (1 - p) ** 2, p**2, 0], atol=1e-12)
    assert sustained_rate_mbit_s(radio, 5.0) == pytest.approx(bits / (1 + p) / 1e3)


def test_fading_fails_as_often_as_drawn_gains_do():
    """Chase combining adds up the SNRs of attempts whose gains are drawn one by one."""
    radio, rng, snr_db = RadioConfig(nakagami_m=1.5), np.random.default_rng(0), 6.0
    (bits,), (found_K,) = block_failures(radio, np.array([snr_db]))
    mcs = int(np.flatnonzero(LTE.grid.transport_block_bits() == bits)[0])
    gains_NK = rng.gamma(1.5, 1 / 1.5, (40_000, 4)).cumsum(axis=1)
    drawn_K = block_error_rate(snr_db + 10 * np.log10(gains_NK), mcs, bits).mean(axis=0)
    np.testing.assert_allclose(found_K[1:], drawn_K, atol=0.008)
    goodput = [
        EFFICIENCY[i] * (1 - block_error_rate(snr_db + 10 * np.log10(gains_NK[:, 0]), i, b).mean())
        for i, b in enumerate(LTE.grid.transport_block_bits())
    ]
    assert goodput[mcs] == pytest.approx(max(goodput), rel=0.01)


def test_strong_diversity_is_no_fading():
    snr_db_X = np.array([-4.0, 3.3, 14.0])
    for one, other in zip(
        block_failures(RadioConfig(nakagami_m=1000), snr_db_X)[1].T[2:],
        block_failures(STILL, snr_db_X)[1].T[2:],
        strict=True,
    ):
        np.testing.assert_allclose(one, other, atol=1e-3)


def test_long_transfers_are_late_as_often_as_simulated_ones():
    """The simulation also has the last round trip, of up to 8 slots a repetition."""
    radio, snr_db, rng = RadioConfig(nakagami_m=2), 3.0, np.random.default_rng(0)
    (bits,), _ = block_failures(radio, np.array([snr_db]))
    mcs = int(np.flatnonzero(LTE.grid.transport_block_bits() == bits)[0])
    slots = 1 << 16  # the gain of a slot is the gain of the attempt in it
    path_db = snr_db + 10 * np.log10(rng.gamma(2, 0.5, slots))
    starts_N = rng.integers(0, slots, 1500)
    sent = simulate_transfers(path_db, np.full(slots, mcs), starts_N, 300.0 * bits, LTE, rng)
    took_s = sent.delay_ms_N * 1e-3
    mean_s = 300 * bits / (sustained_rate_mbit_s(radio, snr_db) * 1e6)
    assert took_s.mean() == pytest.approx(mean_s, abs=0.016)
    for deadline_s in mean_s + np.array([-0.02, 0.0, 0.02]):
        closed = late_probability(radio, snr_db, 300.0 * bits, np.array([deadline_s]))[0]
        early, late = (np.mean(took_s > deadline_s + extra) for extra in (0.024, 0.0))
        assert early - 0.05 < closed < late + 0.05


def test_losses_are_the_link_s_and_what_is_measured_covers_them():
    once = {"harq": {"max_attempts": 1}}
    loss = token_loss(RadioConfig(overrides=once, nakagami_m=None), 6000, -9.0, 12.0)
    at = np.array([-9.0, 2.0, 12.0])
    expected = digital_link(at, 6000, load_cell("lte", **once)).loss_probability
    np.testing.assert_allclose(loss.at(at), expected)
    faded = token_loss(RadioConfig(overrides=once), 6000, -3.0, 12.0)
    assert faded.loss_X.max() <= faded.measured_up_to <= faded.loss_X.max() + 0.01
    good = token_loss(RadioConfig(nakagami_m=None), 6000, 20.0, 30.0)
    assert good.measured_up_to == 0.01  # nothing is lost, and a range is needed
    free, hurried = (
        token_loss(RadioConfig(packet_deadline_ms=ms), 6000, -3.0, 12.0) for ms in (None, 11)
    )
    assert (hurried.loss_X >= free.loss_X).all()
    # Repetitions take 8 ms: with 11 there is time for one where two blocks take 2.
    two = np.ceil(6000 / block_failures(RadioConfig(), hurried.snr_db_X)[0]) == 2
    residual = block_failures(RadioConfig(), hurried.snr_db_X)[1][two, 2]
    np.testing.assert_allclose(hurried.loss_X[two], 1 - (1 - residual) ** 2)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"cell": "lt"}, "unknown cell preset 'lt'.*did you mean 'lte'"),
        ({"overrides": {"harq": {"max_attempts": 0}}}, "max_attempts"),
        ({"packet_deadline_ms": 0}, "greater than 0"),
        ({"nakagami_m": 0.1}, "greater than or equal to 0.5"),
    ],
)
def test_a_wrong_radio_is_refused(section, message):
    with pytest.raises(ValueError, match=message):
        RadioConfig(**section)
