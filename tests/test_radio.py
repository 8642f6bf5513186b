"""Rates, block errors and link adaptation against the standard, closed forms and brute force."""

import re
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.stats import norm

from raysplit.base.errors import UserError
from raysplit.radio import (
    EFFICIENCY,
    OuterLoopConfig,
    ResourceGrid,
    block_error_rate,
    cell_names,
    ideal_mcs,
    load_cell,
    load_place,
    mcs_at_target,
    outer_loop,
    rate_mbit_s,
    snr_db_at,
)

GRID = ResourceGrid(resource_blocks=106)
ALL_MCS = np.arange(29)
SNR_DB = np.linspace(-15, 30, 181)


@pytest.mark.parametrize(("mcs", "mbit_s"), [(3, 7.6), (14, 33), (27, 82)])
def test_rate_of_an_mcs(mcs, mbit_s):
    assert rate_mbit_s(15.5e6, mcs) == pytest.approx(mbit_s, rel=0.03)
    assert rate_mbit_s(15.5e6, mcs, 0.1) == pytest.approx(0.9 * rate_mbit_s(15.5e6, mcs))


def test_efficiency_is_that_of_the_standard():
    """Its last column, rounded to four decimals there."""
    assert EFFICIENCY[[0, 9, 10, 16, 17, 28]] == pytest.approx(
        [0.2344, 1.3262, 1.3281, 2.5703, 2.5664, 5.5547], abs=5e-5
    )


@pytest.mark.parametrize(
    ("grid", "elements_per_s"),
    [
        (GRID, 106 * 12 * 12 * 1000),
        (ResourceGrid(resource_blocks=273, subcarrier_spacing_khz=30, uplink_share=0.2), 15.7248e6),
    ],
)
def test_two_usual_grids_have_about_15_5_million_elements_a_second(grid, elements_per_s):
    assert grid.resource_elements_per_s == pytest.approx(elements_per_s)
    assert grid.resource_elements_per_s == pytest.approx(15.5e6, rel=0.02)


def test_frequencies_of_a_grid_lie_around_the_carrier():
    frequencies_F = ResourceGrid(resource_blocks=4).subcarrier_frequencies_hz()
    assert frequencies_F.tolist() == [-270e3, -90e3, 90e3, 270e3]


@pytest.mark.parametrize("bits", [40, 1000, 8448, 8449, 81_384])
def test_block_errors_fall_with_snr_and_rise_with_mcs(bits):
    error_SM = block_error_rate(SNR_DB[:, None], ALL_MCS, bits)
    assert (error_SM >= 0).all()
    assert (error_SM <= 1).all()
    assert (np.diff(error_SM, axis=0) <= 0).all()
    assert (np.diff(error_SM, axis=1) >= 0).all()
    assert error_SM[0].min() > 0.999
    assert error_SM[-1].max() < 1e-6


def test_waterfall_is_normal_with_a_width_that_goes_with_the_length():
    for bits in (100, 1000, 4000):
        widths_db = snr_db_at(norm.sf(1), ALL_MCS, bits) - snr_db_at(0.5, ALL_MCS, bits)
        assert widths_db == pytest.approx(0.32 * np.sqrt(1000 / bits))


def test_a_transport_block_fails_with_any_of_its_code_blocks():
    one = block_error_rate(10.4, 18, 8448)
    assert block_error_rate(10.4, 18, 4 * 8448) == pytest.approx(1 - (1 - one) ** 4)
    assert 0.3 < one < 0.9


def test_smallest_error_rates_are_not_rounded_to_zero():
    assert 0 < block_error_rate(9.5, 14, 1000) < 1e-16


@pytest.mark.parametrize("bits", [300, 20_000])
def test_snr_at_an_error_rate_is_the_inverse(bits):
    for target in (1e-5, 0.1, 0.9):
        found = block_error_rate(snr_db_at(target, ALL_MCS, bits), ALL_MCS, bits)
        assert found == pytest.approx(target, rel=1e-6)


def test_beyond_the_table_the_distance_to_shannon_stays():
    gap_db = snr_db_at(0.5, ALL_MCS, 1000) - 10 * np.log10(2**EFFICIENCY - 1)
    assert gap_db[:3] == pytest.approx(gap_db[3])
    assert gap_db[28] == pytest.approx(gap_db[27])
    assert (gap_db > 0.5).all(), "no code reaches the limit"


SMALL_GRID = ResourceGrid(resource_blocks=1, data_symbols=4)  # one on which MCS 10 is never best


@pytest.mark.parametrize("grid", [*(load_cell(name).grid for name in cell_names()), SMALL_GRID])
def test_ideal_adaptation_is_the_best_of_all(grid):
    snr_db = np.linspace(-10, 25, 20_001)
    error_SM = block_error_rate(snr_db[:, None], ALL_MCS, grid.transport_block_bits())
    goodput_SM = EFFICIENCY * (1 - error_SM)
    mcs_S = ideal_mcs(snr_db, grid)
    found_S = goodput_SM[np.arange(len(snr_db)), mcs_S]
    assert found_S == pytest.approx(goodput_SM.max(axis=1), rel=1e-9)
    # 17 needs more SNR than 16 and carries less.
    left_out = set(ALL_MCS.tolist()) - set(mcs_S.tolist())
    assert left_out == ({10, 17} if grid == SMALL_GRID else {17})


def test_mcs_at_a_target_is_the_highest_that_keeps_it():
    error_SM = block_error_rate(SNR_DB[:, None], ALL_MCS, GRID.transport_block_bits())
    expected_S = [max([m for m in ALL_MCS if row[m] <= 0.1], default=0) for row in error_SM]
    assert mcs_at_target(SNR_DB, GRID, 0.1).tolist() == expected_S


@pytest.mark.parametrize("bias_db", [-3.0, 0.0, 4.0])
@pytest.mark.parametrize("target", [0.1, 0.3])
def test_outer_loop_holds_its_target_whatever_the_reports_say(bias_db, target):
    snr_db_NT = np.random.default_rng(1).normal(11, 2, (40, 3000))
    config = OuterLoopConfig(target=target, step_db=0.5, feedback_delay_slots=4)
    run = outer_loop(snr_db_NT, GRID, config, np.random.default_rng(0), bias_db)
    assert run.failed_NT[:, 500:].mean() == pytest.approx(target, rel=0.05)


def test_outer_loop_takes_a_bias_back():
    snr_db_NT = np.full((30, 2000), 12.0)
    offsets = [
        outer_loop(
            snr_db_NT, GRID, OuterLoopConfig(), np.random.default_rng(0), bias_db
        ).offset_db_NT
        for bias_db in (0.0, 3.0)
    ]
    assert offsets[0][:, 500:].mean() - offsets[1][:, 500:].mean() == pytest.approx(3, abs=0.1)


def test_feedback_comes_late():
    snr_db_NT = np.concatenate([np.full((1, 50), 20.0), np.full((1, 50), 0.0)], axis=1)
    config = OuterLoopConfig(feedback_delay_slots=6)
    run = outer_loop(snr_db_NT, GRID, config, np.random.default_rng(0))
    assert run.failed_NT[0, 50:56].all(), "six slots with an MCS for 20 dB"
    assert run.mcs_NT[0, 55] > 20
    assert run.mcs_NT[0, 56] < 13, "a report of 0 dB, and an offset that 50 successes have raised"
    assert (run.offset_db_NT[0, :6] == 0).all()
    assert run.offset_db_NT[0, 56] - run.offset_db_NT[0, 55] == pytest.approx(-1)


def test_cells_and_places_say_where_their_constants_are_from():
    for preset in [*map(load_cell, cell_names()), load_place("umi-nlos")]:
        assert preset.source
        assert preset.date


def test_a_preset_can_be_changed():
    cell = load_cell("lte", grid={"resource_blocks": 50}, phone_power_dbm=20.0)
    assert cell.grid.resource_elements == 50 * 144
    assert cell.phone_power_dbm == 20
    assert cell.harq == load_cell("lte").harq


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: load_cell("lt"), "unknown cell preset 'lt'; known: lte, .* did you mean 'lte'"),
        (lambda: load_place("uma-lso"), "unknown place preset .* did you mean 'uma-los'"),
        (lambda: load_cell("lte", grid={"resource_blocks": -1}), "grid.resource_blocks = -1"),
        (lambda: load_cell("lte", grids=3), "unknown key grids; did you mean 'grid'"),
        (lambda: rate_mbit_s(-1, 3), "resource_elements_per_s = -1 .* at least 0"),
        (lambda: rate_mbit_s(1, 29), "MCS 29 is not in the table"),
        (lambda: rate_mbit_s(1, 2.5), "MCS 2.5 is not in the table"),
        (lambda: rate_mbit_s(1, 3, 1.5), "block_error_rate = 1.5 .* at most 1"),
        (lambda: block_error_rate(np.nan, 3, 10), "snr_db = nan is not possible"),
        (lambda: block_error_rate("3 dB", 3, 10), "snr_db = '3 dB' is no number"),
        (lambda: block_error_rate(3, 3, 0), "bits = 0 is not possible: it must be at least 1"),
        (lambda: snr_db_at(0, 3, 10), "target = 0 .* above 0"),
        (lambda: outer_loop(np.zeros(3), GRID, OuterLoopConfig(), None), "give .users, slots"),
    ],
)
def test_what_no_radio_has_is_refused(call, message):
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_section_refuses_unknown_keys():
    with pytest.raises(ValidationError, match="resource_block"):
        ResourceGrid(resource_block=3)


def test_the_pages_example_runs():
    text = (Path(__file__).parents[1] / "docs" / "radio.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(block, "docs/radio.md", "exec"), names)
    assert names["snr_db"] == pytest.approx(7, abs=0.5), "as the comment says"
