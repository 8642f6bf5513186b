"""Numbers as texts: as short as may be, and no two alike."""

import math

import numpy as np
import pandas as pd
import pytest

from raysplit.base.number_texts import distinct_texts
from raysplit.measure.table import Measurements
from raysplit.pipeline.views.panels import perplexity_panel
from raysplit.pipeline.views.sweep_panels import sweep_panels
from tuning.sweep.settings import SweepConfig

# A thousandth of a nanosecond of noise apart: equal in six digits, and close by any tolerance.
NARROW = [0.5, 0.5 + 1e-9, 0.5 + 2e-9]


@pytest.mark.parametrize(
    ("values", "digits", "texts"),
    [
        ([0.4, 6.0, 0.25], 6, ["0.4", "6", "0.25"]),
        ([0.1234567, 0.1234568, 1.0], 6, ["0.1234567", "0.1234568", "1"]),
        ([0.12, 0.34, 0.12], 1, ["0.1", "0.3", "0.1"]),
        ([0.12, 0.14], 1, ["0.12", "0.14"]),
        ([1.0, math.nextafter(1.0, 2.0)], 6, ["1", "1.0000000000000002"]),
    ],
)
def test_digits_are_as_many_as_it_takes(values, digits, texts):
    found = distinct_texts(values, digits)
    assert [found[value] for value in values] == texts


def test_link_states_of_a_narrow_range_have_curves_of_their_own():
    split_points, states = map(np.ravel, np.meshgrid([1, 2, 3], NARROW))
    table = Measurements(
        split_points_N=split_points,
        link_names=("noise_std",),
        link_states_NK=states[:, None],
        log_ppl_N=np.log(split_points + 10 * np.searchsorted(NARROW, states)),
        stderr_N=np.zeros(9),
        clean_log_ppl=0.0,
    )
    curves = perplexity_panel(table, "PPL").curves
    assert [curve.label.partition(" = ")[2] for curve in curves] == [
        "0.5",
        "0.500000001",
        "0.500000002",
    ]
    for i, curve in enumerate(curves):
        np.testing.assert_allclose(curve.band.centre, np.array([1, 2, 3]) + 10 * i)


def curves_of(values):
    """A sweep's table: each value's curve stands at its place in the list."""
    rows = [
        {"panel": "learning_rate", "seed": 0, "learning_rate": value, "step": step}
        | {"judged_return": float(i)}
        for i, value in enumerate(values)
        for step in (0, 100)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize("count", [3, 12])
def test_a_sweep_of_a_narrow_range_merges_no_values_and_no_groups(count):
    values = [0.001 * (1 + 1e-8 * i) for i in range(count)]
    config = SweepConfig(space={"learning_rate": values})
    (panel,) = sweep_panels(config, curves_of(values))
    ends = [band.centre[-1] for band in panel.curves.values()]
    assert len(ends) == min(count, 4)
    assert ends == sorted(set(ends))
