"""The tutorials' code blocks run, in the order in which they stand."""

import re
import shlex

import pytest

from tests.commands import ROOT, raysplit_here

TUTORIALS = ROOT / "docs" / "tutorials"
_BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


def follow(name, folder):
    """Do what a tutorial says: write its files, run its commands and its Python."""
    names: dict = {}
    blocks = _BLOCK.findall((TUTORIALS / f"{name}.md").read_text())
    assert blocks
    for kind, title, text in blocks:
        match kind:
            case "yaml":
                (folder / title).write_text(text)
            case "python":
                exec(compile(text, f"{name}.md", "exec"), names)
            case "sh":
                for line in text.splitlines():
                    program, *words = shlex.split(line)
                    assert program == "raysplit", line
                    done = raysplit_here(*words, cwd=folder)
                    assert done.returncode == 0, done.stderr
            case _:
                assert kind == "text", f"what is a block of {kind}?"


@pytest.mark.parametrize("name", ["own-link", "own-reward", "sweep-on-a-cluster"])
def test_a_tutorial_works_as_it_stands(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    follow(name, tmp_path)


@pytest.mark.slow
def test_the_first_tutorial_leaves_the_run_that_another_reads(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    follow("own-model", tmp_path)
    follow("reading-the-report", tmp_path)


def test_every_tutorial_is_followed():
    followed = {"own-link", "own-reward", "sweep-on-a-cluster", "own-model", "reading-the-report"}
    assert {path.stem for path in TUTORIALS.glob("*.md")} == followed
