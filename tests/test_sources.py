"""Sources of perplexity: callables, surrogates, tables and measuring."""

import doctest

import numpy as np
import pytest
import torch

import envs.sources
from envs.checks import fingerprint
from envs.example import example_params, example_source
from envs.grid import Grid
from envs.grid_sources import MeasuredSource, TableSource
from envs.params import params_from
from envs.problem import ProblemConfig
from envs.sources import SurrogateSource, as_source, ask
from raysplit.base.errors import UserError

LOSS = np.array([0.0, 0.1, 0.25, 0.3])
NOISE = np.array([0.0, 0.5, 1.0])
SETTINGS = np.array([1, 2]), np.array([[0.1], [0.2]])


def smooth_ppl(split_points_N, link_states_NK):
    return (
        16.0
        * np.exp(link_states_NK @ np.array([3.0, 0.4])[: link_states_NK.shape[1]])
        / (split_points_N)
    )


def test_the_documented_example_runs():
    assert doctest.testmod(envs.sources).attempted > 0
    assert doctest.testmod(envs.sources).failed == 0


def test_a_callable_must_answer_once_per_setting():
    for answer in (np.float64(3.0), np.ones((2, 1)), np.ones(1)):
        source = as_source(lambda p, link, answer=answer: answer, quantity="ppl")
        with pytest.raises(UserError, match="one number per setting"):
            ask(source, np.array([1, 2]), np.zeros((2, 1)))
    for answer in (["a", "b"], np.array(["16", "17"]), np.array([16 + 1j, 17]), None, [1, [2, 3]]):
        source = as_source(lambda p, link, answer=answer: answer, quantity="ppl")
        with pytest.raises(UserError, match="one number per setting"):
            ask(source, *SETTINGS)
    with pytest.raises(UserError, match="'gain'"):
        as_source(smooth_ppl, quantity="gain")


def test_a_source_may_write_into_what_it_is_given():
    def careless(split_points, links):
        split_points += 3
        links *= 2.0
        return links[:, 0] / split_points

    split_points, links = (value.copy() for value in SETTINGS)
    ask(as_source(careless, quantity="ppl"), split_points, links)
    np.testing.assert_array_equal(split_points, SETTINGS[0])
    np.testing.assert_array_equal(links, SETTINGS[1])


def test_a_network_with_gradients_and_a_list_are_sources():
    def network(split_points, links):
        return torch.tensor(links[:, 0], requires_grad=True) * 2.0

    answers = [
        ask(as_source(source, quantity="ppl"), *SETTINGS)
        for source in (network, lambda p, link: [0.2, 0.4])
    ]
    for values in answers:
        assert values.dtype == np.float64
        np.testing.assert_allclose(values, [0.2, 0.4])


def test_a_table_of_an_unknown_quantity_is_refused():
    with pytest.raises(UserError, match="'gain'"):
        TableSource((1, 2), [LOSS], np.ones((2, 4)), "gain")


@pytest.mark.parametrize("axis", [[0.1], [0.2, 0.1], [0.1, 0.1]])
def test_an_axis_of_one_value_or_without_order_is_refused(axis):
    with pytest.raises(UserError, match="ascending"):
        TableSource((1, 2), [np.array(axis)], np.ones((2, len(axis))))


def test_sources_are_told_apart_by_their_answers():
    params = example_params()
    sources = [
        example_source,
        as_source(lambda p, link: 1.01 * example_source(p, link), quantity="ppl"),
        as_source(lambda p, link: example_source(p, link), quantity="ppl"),
    ]
    first, louder, same = (fingerprint(params, source) for source in sources)
    assert first == same != louder


def test_tables_of_gains_are_told_apart_though_all_begin_at_zero():
    params = params_from(
        ProblemConfig.model_validate({"link": {"loss_probability": [0, 0.3]}, "reward": "authors"})
    )
    bump = np.zeros((10, 4))
    bump[4:6] = 0.1
    sources = [TableSource((1, 10), [LOSS], values, "relative_gain") for values in (bump, 0 * bump)]
    assert fingerprint(params, sources[0]) != fingerprint(params, sources[1])


def test_a_source_with_noise_is_known_by_that_alone():
    rng = np.random.default_rng(0)
    noisy = as_source(lambda p, link: rng.uniform(15, 17, len(p)), quantity="ppl")
    assert fingerprint(example_params(), noisy) == fingerprint(example_params(), noisy)


def test_a_fingerprint_measures_nothing():
    def measure(*_):
        raise AssertionError("measured")

    source = MeasuredSource(measure, (1, 10), [LOSS])
    assert fingerprint(example_params(), source) == "MeasuredSource"


def test_a_surrogate_s_log_ppl_becomes_ppl():
    class Model:
        def predict_log_ppl(self, split_points_N, link_states_NK):
            return np.log(smooth_ppl(split_points_N, link_states_NK)), np.ones(len(split_points_N))

    p, link = np.array([1, 4]), np.array([[0.1], [0.2]])
    source = SurrogateSource(Model())
    assert source.quantity == "ppl"
    np.testing.assert_allclose(source(p, link), smooth_ppl(p, link))


def test_a_table_is_exact_on_its_grid():
    rng = np.random.default_rng(0)
    values = rng.uniform(10, 100, size=(4, 4, 3))
    table = TableSource((2, 5), [LOSS, NOISE], values)
    split_points, links = table.grid.rows()
    np.testing.assert_allclose(table(split_points, links), values.ravel(), rtol=1e-14)


def test_a_table_interpolates_log_ppl_linearly():
    # log PPL of smooth_ppl is linear in both coordinates, so interpolation has no error.
    split_points, links = Grid((1, 10), [LOSS, NOISE]).rows()
    values = smooth_ppl(split_points, links).reshape(10, 4, 3)
    table = TableSource((1, 10), [LOSS, NOISE], values)
    rng = np.random.default_rng(1)
    p = rng.integers(1, 11, 500)
    x = rng.uniform([0, 0], [0.3, 1.0], (500, 2))
    np.testing.assert_allclose(table(p, x), smooth_ppl(p, x), rtol=1e-12)


def test_a_table_of_gains_interpolates_the_gain_itself():
    table = TableSource(
        (1, 2), [np.array([0.0, 1.0])], np.array([[0.0, -1], [0, 0.5]]), "relative_gain"
    )
    assert table(np.array([1, 2]), np.array([[0.25], [0.5]])).tolist() == [-0.25, 0.25]


def test_a_table_refuses_what_it_does_not_know():
    table = TableSource((1, 2), [np.array([0.0, 0.3])], np.ones((2, 2)))
    with pytest.raises(UserError, match=r"split point 3 is outside the table's 1\.\.2"):
        table(np.array([1, 3]), np.zeros((2, 1)))
    for outside in (-0.01, 0.31, np.nan):
        with pytest.raises(UserError, match="outside the table's"):
            table(np.array([1]), np.array([[outside]]))
    with pytest.raises(UserError, match="shape"):
        TableSource((1, 2), [np.array([0.0, 0.3])], np.ones((3, 2)))
    for bad in (np.nan, np.inf, 0.0):
        with pytest.raises(UserError, match="not finite"):
            TableSource((1, 2), [np.array([0.0, 0.3])], np.array([[1, 1], [1, bad]]))


def test_a_table_from_rows_wants_the_whole_grid():
    split_points, links = Grid((1, 3), [LOSS]).rows()
    order = np.random.default_rng(0).permutation(len(split_points))
    log_ppl = np.log(smooth_ppl(split_points, links))
    table = TableSource.from_rows(split_points[order], links[order], log_ppl[order])
    np.testing.assert_allclose(table(split_points, links), smooth_ppl(split_points, links))
    with pytest.raises(UserError, match="1 of the grid's 12 settings are not measured"):
        TableSource.from_rows(split_points[1:], links[1:], log_ppl[1:])
    with pytest.raises(UserError, match="at least two values"):
        TableSource.from_rows(split_points[::4], links[::4], log_ppl[::4])


def test_repeated_rows_are_averaged_in_log_ppl():
    p, x = np.array([1, 1, 2, 2, 1]), np.array([[0.0], [1], [0], [1], [1]])
    table = TableSource.from_rows(p, x, np.log([1.0, 2, 3, 4, 8]))
    assert table(np.array([1]), np.array([[1.0]])) == pytest.approx(4.0)


class Recorder:
    """Measures smooth_ppl and remembers what it was asked."""

    def __init__(self, failing_split_point=None):
        self.asked = []
        self.failing = failing_split_point

    def __call__(self, split_points_N, link_states_NK):
        self.asked.append((split_points_N.tolist(), link_states_NK.ravel().tolist()))
        return np.where(
            split_points_N == self.failing, np.nan, smooth_ppl(split_points_N, link_states_NK)
        )


def test_measuring_asks_for_each_grid_setting_once():
    recorder = Recorder()
    source = MeasuredSource(recorder, (1, 3), [np.array([0.0, 0.1, 0.2])])
    first = source(np.array([1, 2, 2, 2]), np.array([[0.01], [0.09], [0.14], [0.16]]))
    assert recorder.asked == [([1, 2, 2], [0.0, 0.1, 0.2])]
    np.testing.assert_allclose(
        first, smooth_ppl(np.array([1, 2, 2, 2]), np.array([[0.0], [0.1], [0.1], [0.2]]))
    )
    source(np.array([2, 1]), np.array([[0.19], [0.0]]))
    assert len(recorder.asked) == 1
    source(np.array([3, 1]), np.array([[0.0], [0.0]]))
    assert recorder.asked[1] == ([3], [0.0])


def test_a_failed_measurement_is_named_and_the_others_are_kept():
    recorder = Recorder(failing_split_point=2)
    source = MeasuredSource(recorder, (1, 3), [LOSS])
    with pytest.raises(UserError, match=r"1 setting.*split point 2"):
        source(np.array([1, 2]), np.array([[0.1], [0.1]]))
    source(np.array([1]), np.array([[0.1]]))
    assert len(recorder.asked) == 1
