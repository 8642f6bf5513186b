"""What long work prints where no terminal draws a bar."""

import pytest

from raysplit.base import progress


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_a_minute_with_rate_and_time_left(clock, capsys):
    with progress.progress_bar("measure", total=100, done=10) as advance:
        for second in range(1, 81):
            clock[0] = float(second)
            advance(1, "2 workers")
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "measure    70 of 100, 1.0/s, 0:00:30 left  2 workers"


def test_short_work_prints_nothing(clock, capsys):
    with progress.progress_bar("measure", total=3) as advance:
        advance(3)
    assert capsys.readouterr().err == ""


def test_brackets_and_colons_of_a_path_are_printed_as_they_are(capsys):
    path = "/runs/[red]/[/x]/:smile:"
    progress.console.print(f"report: {path}")
    progress.say(f"{path} is damaged", "yellow", f"; see {path}")
    assert capsys.readouterr().err.splitlines() == [
        f"report: {path}",
        f"{path} is damaged; see {path}",
    ]
