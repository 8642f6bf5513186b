"""A file of a finished run changes: it is told, made good, or changes nothing that is read."""

import pytest

from tests.corruption import corrupt
from tests.finished_run import finish

MUTATIONS = 8  # the benchmark `users` tries 200


@pytest.mark.slow
def test_no_change_of_a_file_changes_a_result_in_silence(tmp_path):
    finish(tmp_path / "run")
    (tmp_path / "work").mkdir()
    tried = list(corrupt(tmp_path / "run", tmp_path / "work", MUTATIONS))
    assert len(tried) == MUTATIONS
    assert [one for one in tried if one.outcome in {"silent", "traceback"}] == []
    assert {one.outcome for one in tried} <= {"told", "made good"}
