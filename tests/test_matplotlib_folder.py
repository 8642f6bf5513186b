"""matplotlib's folder where the home folder is closed: a temporary one, and not a word about it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from raysplit.figures.matplotlib_folder import give_matplotlib_a_folder
from tests.closed_folder import forbid

PLACES = ("MPLCONFIGDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")


@pytest.fixture
def home(tmp_path, monkeypatch):
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("MPLCONFIGDIR", "")  # so that what is set here is taken back
    for name in PLACES:
        monkeypatch.delenv(name, raising=False)
    return folder


def test_a_closed_home_gives_a_temporary_folder(home, monkeypatch):
    forbid(monkeypatch, home)
    give_matplotlib_a_folder()
    given = Path(os.environ["MPLCONFIGDIR"])
    assert given.is_dir()
    assert home not in given.parents
    monkeypatch.setenv("MPLCONFIGDIR", "/where/the/user/says")
    give_matplotlib_a_folder()
    assert os.environ["MPLCONFIGDIR"] == "/where/the/user/says"


def test_an_open_home_stays_matplotlibs_own(home):
    give_matplotlib_a_folder()
    assert "MPLCONFIGDIR" not in os.environ


@pytest.mark.slow
def test_nothing_is_printed_and_nothing_is_left(tmp_path):
    """In a process of its own, whose home is no folder at all: closed for root, too."""
    closed, temporary = tmp_path / "home", tmp_path / "temporary"
    closed.touch()
    temporary.mkdir()
    environment = {name: value for name, value in os.environ.items() if name not in PLACES}
    done = subprocess.run(
        [sys.executable, "-c", "import raysplit.report, os; os.environ['MPLCONFIGDIR']"],
        env=environment | {"HOME": str(closed), "TMPDIR": str(temporary)},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == done.stdout == ""
    assert list(temporary.glob("matplotlib-*")) == []
