"""Write files that are complete or not there at all, read them back, and hash files and JSON."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, TypeVar

from raysplit.base.errors import UserError
from raysplit.base.progress import say

Parsed = TypeVar("Parsed")

_HASH_DIGITS = 64


def at_home(path: Path) -> Path:
    """Return a path with `~` replaced by the home folder; where none is known, as it is.

    Then nothing lies there, and what looks for it says so.
    """
    with contextlib.suppress(RuntimeError):
        return path.expanduser()
    return path


@contextlib.contextmanager
def replacing(path: Path) -> Generator[Path]:
    """Yield a temporary path to write to, and rename it to the file's own name if all went well.

    A reader finds the old file or the new one, never a part.

    Raises:
        UserError: If the disk is full or the folder cannot be written; the old file stays.
    """
    new = path.with_name(path.name + ".new")
    try:
        yield new
        os.replace(new, path)
    except OSError as error:
        raise _unwritable(path, error) from None
    finally:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes, *, durable: bool = False) -> None:
    """Write a file so that a reader finds the old content or the new one, never a part.

    Args:
        path: The file; its folder exists.
        content: Bytes, or a text that is written as UTF-8.
        durable: Return only when the content is on the disk, so that a power cut does not undo it.

    Raises:
        UserError: If the disk is full or the folder cannot be written.
    """
    with replacing(path) as new, new.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        if durable:
            file.flush()
            os.fsync(file.fileno())


def write_with_copy(path: Path, text: str) -> None:
    """Write a text file and a second copy that knows its hash, for `read_with_copy`.

    Both are on the disk before this returns, so that a power cut spoils at most one of them.

    Raises:
        UserError: If the disk is full or the folder cannot be written.
    """
    # The copy first: whichever of the two is newer is then the one whose hash is known.
    write_atomically(_second(path), _hash_of(text.encode()) + f"\n{text}".encode(), durable=True)
    write_atomically(path, text, durable=True)


def read_with_copy(path: Path, parse: Callable[[str], Parsed]) -> Parsed:
    """Read a file of `write_with_copy`, or its second copy where the file was changed since.

    Args:
        path: The file.
        parse: Turns the text into a value; raises a ValueError where it cannot.

    Raises:
        ValueError: Neither is as it was written, or parsing failed.
    """
    content, second = _content_of(path), _content_of(_second(path))
    sha256, copy = second[:_HASH_DIGITS], second[_HASH_DIGITS + 1 :]
    # Before 0.2 the second copy had no hash; one that was cut within it leaves what it has of it.
    if content in (copy, second) or (
        _hash_of(content).startswith(sha256) and (content or not second)
    ):
        return parse(content.decode(errors="replace"))
    if _hash_of(copy) != sha256:
        raise ValueError(f"{path} is damaged")
    parsed = parse(copy.decode(errors="replace"))
    _report_damage(path, _second(path))
    return parsed


def _hash_of(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


def _second(path: Path) -> Path:
    return path.with_name(path.name + ".copy")


def _content_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@functools.cache  # a file is read many times in a run
def _report_damage(path: Path, used: Path) -> None:
    say(f"{path} was changed or cut", "yellow", f"; going on from its copy {used.name}")


def refuse_unwritable(folder: Path) -> None:
    """Refuse a folder that cannot be made or written, before the work whose results go there.

    Raises:
        UserError: It is one.
    """
    there = nearest_existing(folder)
    if not there.is_dir():
        raise UserError(f"{folder} cannot be made: {there} is no folder; choose another")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{folder} cannot be written (as {there}): choose another folder")


def nearest_existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that is there.

    What lies in a folder that may not be entered counts as not there.
    """
    # Not by Path.exists, which raises PermissionError.
    return next(path for path in (folder, *folder.absolute().parents) if os.path.exists(path))


def sha256_of_file(path: Path) -> str:
    """Hash a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """Hash a JSON value in its canonical form (sorted keys, no white space)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _unwritable(path: Path, error: OSError) -> UserError:
    if error.errno == errno.ENOSPC:
        return UserError(
            f"no space left for {path}: free some and start the same command again; nothing "
            "measured is lost"
        )
    return UserError(
        f"{path} cannot be written ({error.strerror or error}): choose another folder, or make it "
        "writable"
    )
