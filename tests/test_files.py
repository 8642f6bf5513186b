import hashlib
import random
from pathlib import Path

import pytest

from raysplit.base import files
from raysplit.base.errors import UserError
from raysplit.base.files import (
    at_home,
    read_with_copy,
    refuse_unwritable,
    replacing,
    sha256_of,
    write_atomically,
    write_with_copy,
)
from raysplit.base.sealed_json import read_sealed, write_sealed
from tests.closed_folder import forbid


@pytest.mark.parametrize("content", ["λ = 0.2\r\n", b"\x00\xff\r\n"])
def test_what_is_written_is_what_lies_there(tmp_path, content):
    path = tmp_path / "file"
    path.write_text("a longer text that was there before")
    write_atomically(path, content, durable=isinstance(content, bytes))
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(TypeError, match="must be str"), replacing(path) as new:
        new.write_bytes(b"half of the new") and new.write_text(1)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(UserError, match="cannot be written"):
        write_atomically(path / "below a file", "new")


def test_a_folder_that_cannot_be_made_is_refused(tmp_path, monkeypatch):
    refuse_unwritable(tmp_path / "not" / "yet")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file is no folder; choose another"):
        refuse_unwritable(tmp_path / "file" / "below")
    closed = tmp_path / "closed"
    closed.mkdir()
    forbid(monkeypatch, closed)
    with pytest.raises(UserError, match=rf"cannot be written \(as {closed}\)"):
        refuse_unwritable(closed / "runs" / "a")


def test_the_hash_of_json_is_that_of_its_canonical_text():
    text = '{"a":[1,2.5],"b":"\\u03bb"}'
    assert sha256_of({"b": "λ", "a": (1, 2.5)}) == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.slow
def test_every_flipped_bit_and_every_cut_of_a_sealed_file_is_noticed(tmp_path):
    path = tmp_path / "file.json"
    content = {"name": "ppo", "values": [1, 2.5, None], "inner": {"x": float("inf")}}
    write_sealed(path, content)
    whole = path.read_bytes()
    assert read_sealed(path, "make it anew") == content
    flipped = [
        whole[:n] + bytes([whole[n] ^ 1 << bit]) + whole[n + 1 :]
        for n in range(len(whole))
        for bit in range(8)
    ]
    believed = []
    for damaged in [*flipped, *(whole[:n] for n in range(len(whole)))]:
        path.write_bytes(damaged)
        try:
            believed.append((read_sealed(path, "make it anew"), damaged))
        except UserError as error:
            assert str(path) in str(error)  # noqa: PT017
            assert str(error).endswith("; make it anew")  # noqa: PT017
    # What differs in white space alone says the same.
    assert all(found == content for found, _ in believed)
    assert all(len(damaged) == len(whole) for _, damaged in believed)


@pytest.mark.slow
def test_one_of_two_copies_may_change_in_any_way(tmp_path):
    """A digit that was changed leaves a file that parses: nothing but the hash tells."""
    path, copy = tmp_path / "file.yaml", tmp_path / "file.yaml.copy"
    text = "lambda: 0.2\nname: demo\n"
    write_with_copy(path, text)
    rng = random.Random(0)
    for damaged in (path, copy) * 100:
        whole = damaged.read_bytes()
        at = rng.randrange(len(whole))
        cut = whole[:at]
        flipped = cut + bytes([whole[at] ^ 1 << rng.randrange(8)]) + whole[at + 1 :]
        for content in (cut, flipped):
            damaged.write_bytes(content)
            assert read_with_copy(path, str) == text
        damaged.write_bytes(whole)


def test_a_change_of_both_copies_is_damage(tmp_path):
    path, copy = tmp_path / "file.yaml", tmp_path / "file.yaml.copy"
    write_with_copy(path, "lambda: 0.2\n")
    path.write_text("lambda: 0.3\n")
    copy.write_text(copy.read_text().replace("0.2", "0.4"))
    with pytest.raises(ValueError, match="is damaged"):
        read_with_copy(path, str)


def test_a_kill_between_the_two_copies_leaves_the_newer_text(tmp_path, monkeypatch):
    path = tmp_path / "file.yaml"
    write_with_copy(path, "old")
    written = []

    def die_after_one(place, content, **options):
        if written:
            raise KeyboardInterrupt
        written.append(write_atomically(place, content, **options))

    monkeypatch.setattr(files, "write_atomically", die_after_one)
    with pytest.raises(KeyboardInterrupt):
        write_with_copy(path, "new")
    assert read_with_copy(path, str) == "new"


def test_a_home_that_nobody_knows_stays_as_it_was_written():
    assert at_home(Path("~.ssh/id")) == Path("~.ssh/id")
    assert at_home(Path("~/x")) == Path.home() / "x"
    assert at_home(Path("a/~b")) == Path("a/~b")
