"""An algorithm's state in files: every value comes back, and nothing is run by reading it."""

import json

import numpy as np
import pytest

from tuning.state_files import load_state, save_state


def test_every_kind_of_value_comes_back_as_it_was(tmp_path):
    state = {
        "plain": [None, True, 3, -2.5, "text", {}],
        "not in JSON": [float("inf"), -float("inf"), (1, (2.0, "x"))],
        "keys": {0: "whole", "a": "text"},
        "looks like a tag": {"$array": 1},
        "close numbers": [0.1, 0.1 + 2**-56, 1e-300],
    }
    save_state(tmp_path, state)
    assert load_state(tmp_path) == state
    save_state(tmp_path, {"nan": float("nan")})
    assert np.isnan(load_state(tmp_path)["nan"])


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bool", "uint8"])
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
def test_arrays_keep_their_type_and_shape_in_any_memory_order(tmp_path, dtype, shape):
    array = np.ones(shape, dtype)
    if array.size > 1:
        array = np.asfortranarray(np.arange(6).reshape(shape).astype(dtype))
    save_state(tmp_path, {"deep": [{"array": array}]})
    (found,) = load_state(tmp_path)["deep"]
    assert found["array"].dtype == dtype
    assert found["array"].shape == shape
    np.testing.assert_array_equal(found["array"], array)


def test_a_value_that_needs_a_pickle_is_refused_when_it_is_saved(tmp_path):
    for value in (object(), {1.5: 0}, {(1,): 0}, np.array([object()])):
        with pytest.raises(TypeError, match="state"):
            save_state(tmp_path, {"value": value})


@pytest.mark.parametrize(
    "tree",
    [
        "[]",
        '{"a": {"$array": "7"}}',
        '{"a": {"$array": [7]}}',
        '{"a": {"$float": "text"}}',
        '{"a": {"$tuple": 3}}',
        '{"a": {"$dict": [[[], 1]]}}',
        '{"a": {"$dict": [[1, 2, 3]]}}',
        "[" * 100_000,
    ],
)
def test_a_tree_that_says_nothing_is_one_error(tmp_path, tree):
    save_state(tmp_path, {"a": np.zeros(2)})
    (tmp_path / "state.json").write_text(tree)
    with pytest.raises(ValueError):  # noqa: PT011 - the reason is Python's own
        load_state(tmp_path)


def test_the_tree_is_plain_json(tmp_path):
    save_state(tmp_path, {"a": [np.float64(1.5), np.int64(2), np.zeros(1)]})
    assert json.loads((tmp_path / "state.json").read_text()) == {"a": [1.5, 2, {"$array": "0"}]}
