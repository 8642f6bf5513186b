"""A file of a finished run changes: it is told, made good, or changes nothing that is read."""

import pytest

from tests.corruption import corrupt


@pytest.mark.slow
@pytest.mark.parametrize(
    "mutations", [8, pytest.param(200, marks=pytest.mark.thorough, id="as in the benchmark")]
)
def test_no_change_of_a_file_changes_a_result_in_silence(finished_run, tmp_path, mutations):
    tried = list(corrupt(finished_run, tmp_path, mutations))
    assert len(tried) == mutations
    assert [one for one in tried if one.outcome in {"silent", "traceback"}] == []
    assert {one.outcome for one in tried} <= {"told", "made good"}
