"""HARQ, transfers and the digital link: closed forms at their limits, and against simulation."""

import numpy as np
import pytest

from raysplit.base.errors import UserError
from raysplit.radio import (
    attempts_before,
    block_error_rate,
    digital_link,
    failures,
    ideal_mcs,
    load_cell,
    mean_attempts,
    packet_loss,
    residual_error_rate,
    simulate_transfers,
    snr_db_at,
)

CELL = load_cell("lte")
TDD = load_cell("5g-mid-band")
BLOCK_BITS = CELL.grid.transport_block_bits()


def flat(snr_db, slots=40, mcs=None):
    """A path that stays, and its MCS."""
    path = np.full(slots, float(snr_db))
    return path, ideal_mcs(path, CELL.grid) if mcs is None else np.full(slots, mcs)


def send(snr_db, bits, count=20_000, cell=CELL, mcs=None, seed=0):
    starts = np.zeros(count, int)
    rng = np.random.default_rng(seed)
    return simulate_transfers(*flat(snr_db, mcs=mcs), starts, bits, cell, rng)


def test_residual_errors_at_the_limits_of_attempts():
    snr_db = np.linspace(-5, 15, 41)
    error = block_error_rate(snr_db, 12, 5000)
    assert residual_error_rate(snr_db, 12, 5000, 1).tolist() == error.tolist()
    assert (residual_error_rate(snr_db, 12, 5000, 0) == 1).all()
    assert (residual_error_rate(snr_db, 12, 5000, np.inf) == 0).all()
    assert (residual_error_rate(60.0, np.arange(29), 5000, 1) == 0).all()


def test_two_attempts_are_as_good_as_3_db():
    once, twice = (residual_error_rate(x, 12, 5000, n) for x, n in ((5.0, 1), (5 - 3.0103, 2)))
    assert once == pytest.approx(twice, rel=1e-4)


def test_attempts_of_a_block():
    p = failures(snr_db_at(0.3, 12, 5000), 12, 5000, 4)
    assert p[:2] == pytest.approx([1, 0.3])
    assert (np.diff(p) < 0).all()
    assert mean_attempts(p) == pytest.approx(1 + p[1] + p[2] + p[3])
    assert mean_attempts(failures(60.0, 12, 5000, 4)) == 1
    assert mean_attempts(failures(-60.0, 12, 5000, 4)) == 4


@pytest.mark.parametrize(
    ("deadline_ms", "attempts"),
    [(2.9, 0), (3, 1), (10.9, 1), (11, 2), (27.3, 4), (1e9, 125_000_000)],
)
def test_attempts_before_a_deadline(deadline_ms, attempts):
    assert attempts_before(deadline_ms, transmit_ms=3, round_trip_ms=8) == attempts


def test_a_deadline_met_to_the_last_bit_is_met():
    assert (0.3 - 0.1) / 0.1 < 2, "by rounding alone"
    assert attempts_before(0.3, 0.1, 0.1) == 3


def test_loss_of_a_packet():
    assert packet_loss(0.1, 3) == pytest.approx(1 - 0.9**3)
    assert packet_loss(1e-18, 5) == pytest.approx(5e-18)
    assert packet_loss([0, 1], 7).tolist() == [0, 1]


def test_a_transfer_that_cannot_fail_takes_its_slots():
    sent = send(60.0, 3 * BLOCK_BITS[28] + 1, count=50)
    assert (sent.delay_ms_N == 4).all()
    assert (sent.blocks_N == 4).all()
    assert (sent.attempts_N == 4).all()
    assert sent.delivered_N.all()
    sent = send(60.0, 3 * BLOCK_BITS[28], count=50)
    assert (sent.delay_ms_N == 3).all()


def test_a_transfer_that_cannot_arrive_uses_every_attempt():
    sent = send(-60.0, 100, count=50)
    assert not sent.delivered_N.any()
    assert (sent.attempts_N == 4).all()
    assert (sent.delay_ms_N == 1 + 3 * 8).all()
    assert sent.missed(1e9) == 1
    assert sent.quantiles_ms(0.5) == np.inf


def test_attempts_of_one_block_are_distributed_as_the_closed_form_says():
    mcs = 12
    bits = BLOCK_BITS[mcs]
    snr_db = snr_db_at(0.7, mcs, bits) - 2
    sent = send(snr_db, bits, count=100_000, mcs=mcs)
    p = failures(snr_db, mcs, bits, 4)
    for k in (1, 2, 3):
        assert np.mean(sent.attempts_N > k) == pytest.approx(p[k], abs=0.006)
        late = sent.delay_ms_N > 1 + (k - 1) * 8
        assert np.mean(late) == pytest.approx(p[k], abs=0.006)
    assert np.mean(~sent.delivered_N) == pytest.approx(p[4], abs=0.006)


def test_attempts_add_up_their_snr_along_the_path():
    """Two slots that carry nothing alone carry the block together: 3 dB more than each."""
    mcs = 12
    bits = BLOCK_BITS[mcs]
    path = np.full(16, snr_db_at(0.5, mcs, bits) - 3.0103 + 2)
    rng = np.random.default_rng(0)
    both = simulate_transfers(path, np.full(16, mcs), np.zeros(2000, int), bits, CELL, rng)
    assert (both.attempts_N == 2).all()
    path[8] = -60.0
    gone = simulate_transfers(path, np.full(16, mcs), np.zeros(2000, int), bits, CELL, rng)
    assert (gone.attempts_N > 2).all()


def test_repetitions_wait_for_their_process_and_displace_new_blocks():
    """Slots 0 and 2 are lost: their blocks come again in 8 and 10, where new ones would stand."""
    path, mcs = flat(60.0, slots=100)
    path[[0, 2]] = -60.0
    mcs[:] = 28
    rng = np.random.default_rng(0)
    blocks = simulate_transfers(path, mcs, np.zeros(1, int), 12 * BLOCK_BITS[28], CELL, rng)
    assert blocks.delay_ms_N == [14]
    short = simulate_transfers(path, mcs, np.zeros(1, int), 3 * BLOCK_BITS[28], CELL, rng)
    assert short.delay_ms_N == [11]
    assert short.attempts_N == [5]


def test_a_path_goes_on_from_its_beginning():
    path, mcs = np.array([-60.0, 60.0, 60.0]), np.full(3, 28)
    sent = simulate_transfers(
        path, mcs, np.array([2]), 2 * BLOCK_BITS[28], CELL, np.random.default_rng(0)
    )
    assert sent.attempts_N == [3], "the second slot is slot 0 of the path"
    assert sent.delay_ms_N == [10]


def test_uplink_slots_are_rare_where_the_downlink_has_the_others():
    sent = send(60.0, 1000, count=10, cell=TDD)
    assert sent.delay_ms_N == pytest.approx(2.5)


def test_quantiles_of_the_delay():
    sent = send(snr_db_at(0.3, 12, BLOCK_BITS[12]), 5000, mcs=12)
    assert sent.quantiles_ms([0.5, 0.69, 0.71, 1.0]).tolist() == [1, 1, 9, 9]
    assert sent.missed(1.0) == pytest.approx(0.3, abs=0.01)
    assert sent.missed(9.0) == 0


@pytest.mark.parametrize("bits", [4000, 17_408, 300_000])
@pytest.mark.parametrize("snr_db", [-9.0, -3.7, 0.0, 5.0, 8.0, 17.1])
def test_the_digital_link_is_what_the_simulation_does(bits, snr_db):
    link = digital_link(snr_db, bits, CELL)
    sent = send(snr_db, bits)
    loss = np.mean(~sent.delivered_N)
    assert loss == pytest.approx(link.loss_probability, abs=0.014)  # four standard errors
    attempts = sent.attempts_N.sum() / sent.blocks_N.sum()
    assert attempts == pytest.approx(link.mean_attempts, rel=0.02)
    # Of many blocks the closed form takes the mean of what repetitions displace.
    mean_ms = sent.delay_ms_N[sent.delivered_N].mean()
    assert mean_ms == pytest.approx(link.mean_delay_ms, rel=0.02 if bits < 1e5 else 0.05)


def test_rate_of_the_digital_link_is_that_of_a_long_transfer():
    bits = 3e6
    link, sent = digital_link(12.0, bits, CELL), send(12.0, bits, count=100)
    assert bits / sent.delay_ms_N.mean() / 1e3 == pytest.approx(link.rate_mbit_s, rel=0.03)


def test_a_deadline_takes_attempts_away():
    snr_db, bits = -7.0, 2000
    assert bits < BLOCK_BITS[0], "one block"
    free = digital_link(snr_db, bits, CELL)
    p = failures(snr_db, free.mcs, BLOCK_BITS[free.mcs], 4)
    for deadline_ms, attempts in ((0.5, 0), (1, 1), (9, 2), (17, 3), (25, 4), (1e6, 4)):
        link = digital_link(snr_db, bits, CELL, deadline_ms)
        assert link.loss_probability == pytest.approx(p[attempts])
        assert link.rate_mbit_s == free.rate_mbit_s
    sent = send(snr_db, bits, count=50_000)
    assert sent.missed(9) == pytest.approx(
        digital_link(snr_db, bits, CELL, 9).loss_probability, abs=0.01
    )
    assert digital_link(snr_db, bits, CELL, 1).mean_delay_ms == 1
    assert digital_link(snr_db, bits, CELL, 0.5).mean_delay_ms == np.inf


def test_better_links_are_faster_and_lose_less():
    link = digital_link(np.linspace(-20, 30, 101), 17_408, CELL, deadline_ms=30)
    assert (np.diff(link.rate_mbit_s) >= 0).all()
    assert link.loss_probability[0] == 1
    assert link.loss_probability[-1] == 0
    assert link.mean_delay_ms[-1] == 1
    assert link.mcs.shape == (101,)


def test_simulation_is_repeatable():
    one, other = (send(8.0, 17_408, count=500, seed=3) for _ in range(2))
    assert one.delay_ms_N.tolist() == other.delay_ms_N.tolist()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: attempts_before(-1, 3, 8), "deadline_ms = -1 .* above 0"),
        (lambda: attempts_before(5, 3, 0), "round_trip_ms = 0 .* above 0"),
        (lambda: packet_loss(1.2, 3), "residual = 1.2"),
        (lambda: packet_loss(0.2, 0), "blocks = 0"),
        (lambda: residual_error_rate(3, 3, 10, -1), "attempts = -1"),
        (lambda: digital_link(3, 0, CELL), "bits = 0"),
        (lambda: digital_link(3, 10, CELL, deadline_ms=0), "deadline_ms = 0"),
        (lambda: digital_link(np.nan, 10, CELL), "snr_db = nan"),
        (lambda: send(3, -5), "bits = -5"),
        (
            lambda: simulate_transfers(np.zeros(3), np.zeros(2, int), [0], 1, CELL, None),
            r"path of shape \(3,\) does not go with MCS of shape \(2,\)",
        ),
        (lambda: simulate_transfers(*flat(3), [-1], 1, CELL, None), "start = -1"),
    ],
)
def test_what_no_transfer_has_is_refused(call, message):
    with pytest.raises(UserError, match=message):
        call()
