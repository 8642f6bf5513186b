"""Files that are whole or not there, and their hashes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Generator
from pathlib import Path

from raysplit.errors import UserError


@contextlib.contextmanager
def replacing(path: Path) -> Generator[Path]:
    """Yield a path to write to; what lies there takes the file's place if all went well.

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


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that a reader finds the old text or the new one, never a part.

    Raises:
        UserError: If the disk is full or the folder cannot be written.
    """
    with replacing(path) as new:
        new.write_text(text, encoding="utf-8")


def sha256_of_file(path: Path) -> str:
    """Hash a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
