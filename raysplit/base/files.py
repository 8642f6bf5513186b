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
    """Write a text file and then a second copy of it, for `read_with_copy`.

    Both are on the disk before this returns, so that a power cut spoils at most one of them.

    Raises:
        UserError: If the disk is full or the folder cannot be written.
    """
    for copy in (path, _second(path)):
        write_atomically(copy, text, durable=True)


def read_with_copy(path: Path, parse: Callable[[str], Parsed]) -> Parsed:
    """Read a file of `write_with_copy`, or its second copy where the file is damaged.

    A text that is only the beginning of the other one was cut short, even if it can be parsed.

    Args:
        path: The file.
        parse: Turns the text into a value; raises a ValueError where it cannot.

    Raises:
        ValueError: Neither can be read.
    """
    texts = {copy: _text_of(copy) for copy in (path, _second(path))}
    longest = max(texts.values(), key=len)
    for copy, text in texts.items():
        if text == longest or not longest.startswith(text):
            with contextlib.suppress(ValueError):
                parsed = parse(text)
                if copy != path:
                    _report_damage(path, copy)
                return parsed
    raise ValueError(f"{path} is damaged")


def _second(path: Path) -> Path:
    return path.with_name(path.name + ".copy")


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


@functools.cache  # a file is read many times in a run
def _report_damage(path: Path, used: Path) -> None:
    say(f"{path} cannot be read", "yellow", f"; going on from its copy {used.name}")


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
