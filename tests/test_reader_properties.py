"""Any bytes and any small edit of a good file: the right value, or one refusal."""

import pytest

from tests.reader_properties import check_examples, readers

NAMES = (
    "plan", "trace", "experiment", "override", "cluster file", "sealed JSON", "checkpoint state",
)  # fmt: skip


SLOW = "cluster file"  # 2,000 of it take minutes: the benchmark `users` tries them


@pytest.mark.parametrize(
    ("name", "examples"),
    [
        *((name, 40) for name in NAMES),
        *(pytest.param(name, 2_000, marks=pytest.mark.slow) for name in NAMES if name != SLOW),
    ],
)
def test_a_reader_returns_what_the_file_says_or_refuses(name, examples, tmp_path):
    known = readers(tmp_path)
    assert tuple(known) == NAMES
    assert check_examples(known[name], tmp_path, examples) >= examples
