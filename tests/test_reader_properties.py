"""Any bytes and any small edit of a good file: the right value, or one refusal."""

import pytest

from tests.reader_properties import check_examples, readers

pytestmark = pytest.mark.slow

NAMES = (
    "plan", "trace", "experiment", "override", "cluster file", "sealed JSON", "checkpoint state",
)  # fmt: skip


@pytest.mark.parametrize(
    "examples",
    [
        pytest.param(40, id="few"),
        pytest.param(2_000, id="many", marks=[pytest.mark.slow, pytest.mark.thorough]),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_a_reader_returns_what_the_file_says_or_refuses(name, examples, tmp_path):
    known = readers(tmp_path)
    assert tuple(known) == NAMES
    assert check_examples(known[name], tmp_path, examples) >= examples
