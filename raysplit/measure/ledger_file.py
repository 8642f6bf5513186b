"""The ledger's SQLite file: whether it is whole, ours and of this version, and what errors mean."""

from __future__ import annotations

import errno
import shutil
import sqlite3
import time
from collections.abc import Set
from pathlib import Path

from raysplit.base.errors import UserError
from raysplit.measure.sealed_rows import lenient_text

FORMAT = 4
"""Version of the tables, kept in the file's user_version; raysplit 0.1 wrote none."""
_OLDEST_FORMAT = 3  # of those that are taken over as they are: it knew no codecs
_LOCK_TIMEOUT_S = 30.0
_LOCKED = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_SMALLEST_FREE_BYTES = 2**16


def open_ledger_file(path: Path) -> sqlite3.Connection:
    """Open a ledger's file, or create an empty one, after checking that it is sound.

    Raises:
        UserError: If it is damaged, of another version or program, or its folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _refuse_a_cut_file(path)
        connection = sqlite3.connect(path, timeout=_LOCK_TIMEOUT_S, isolation_level=None)
        connection.text_factory = lenient_text
        _refuse_another_format(path, connection)
        _switch_to_wal(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
        state = connection.execute("PRAGMA quick_check").fetchone()[0]
        if state != "ok":
            raise sqlite3.DatabaseError(state)
    except (sqlite3.DatabaseError, OSError) as error:
        raise unusable(path, error) from None
    return connection


def _refuse_a_cut_file(path: Path) -> None:
    """Refuse a file shorter than its header says: SQLite fills it with zeros and calls it sound.

    While a write-ahead log is pending the header may be ahead of the file.
    """
    wal = path.with_name(path.name + "-wal")
    if not path.exists() or path.stat().st_size == 0 or (wal.exists() and wal.stat().st_size):
        return
    with path.open("rb") as file:
        header = file.read(100)
    # https://www.sqlite.org/fileformat.html, section 1.3: page size and number of pages
    page_bytes = int.from_bytes(header[16:18], "big")
    page_bytes = 65_536 if page_bytes == 1 else page_bytes
    whole_bytes = page_bytes * int.from_bytes(header[28:32], "big")
    size = path.stat().st_size
    if len(header) < 100 or size < whole_bytes or size % page_bytes:
        raise sqlite3.DatabaseError(f"cut short: {size:,} of {whole_bytes:,} bytes")


def _refuse_another_format(path: Path, connection: sqlite3.Connection) -> None:
    """Refuse a file of another version or another program, before anything in it is changed.

    Raises:
        UserError: It is one.
    """
    connection.execute("BEGIN")  # another process may be creating the tables just now
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
    connection.execute("COMMIT")
    if _OLDEST_FORMAT <= version <= FORMAT or (version == 0 and not tables):
        return
    if version > FORMAT:
        reason, remedy = "is of a newer raysplit", "install that one"
    elif version > 0 and {"cards", "settings"} <= tables:
        reason = "is of an earlier raysplit: its rows do not say which anchors they rest on"
        remedy = f"move it away to measure anew: mv {path} {path}.{version}"
    elif {"cards", "settings"} <= tables:
        reason = (
            "is of raysplit 0.1: its rows carry no checksum, and no note of all that decides their "
            "values"
        )
        remedy = f"move it away to measure anew: mv {path} {path}.0.1"
    else:
        reason, remedy = "is an SQLite file of another program", "move it away"
    raise UserError(
        f"ledger {path} {reason}; {remedy} (or name another file with measuring.ledger)"
    )


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """Wait while another process opens the new file too: here SQLite's timeout does not count."""
    until = time.monotonic() + _LOCK_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if not _is(error, _LOCKED) or time.monotonic() > until:
                raise
            time.sleep(0.05)


def unusable(path: Path, error: Exception) -> UserError:
    """Return what an error of SQLite or the system means for the user."""
    if _is(error, {sqlite3.SQLITE_FULL}) or (
        _is(error, {sqlite3.SQLITE_IOERR}) and _disk_is_full(path)
    ):
        return UserError(
            f"no space left for {path}: free some and start again; nothing measured is lost"
        )
    if _is(error, _LOCKED):
        return UserError(
            f"ledger {path} stayed locked by another process for {_LOCK_TIMEOUT_S:g} s: wait for "
            "that one, or name another file with measuring.ledger"
        )
    if isinstance(error, sqlite3.OperationalError | OSError):
        return UserError(
            f"ledger {path} cannot be opened or written ({error}): its folder must be "
            "writable, and on a local disk (not NFS)"
        )
    return UserError(
        f"ledger {path} is damaged ({error}): move it away to measure anew, or restore a copy"
    )


def _is(error: Exception, codes: Set[int]) -> bool:
    """Tell an error by SQLite's code or the system's: its text may quote a path."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOSPC and sqlite3.SQLITE_FULL in codes
    code: int | None = getattr(error, "sqlite_errorcode", None)  # none where this module raised it
    return code is not None and code & 0xFF in codes  # https://www.sqlite.org/rescode.html


def _disk_is_full(path: Path) -> bool:
    return shutil.disk_usage(path.parent).free < _SMALLEST_FREE_BYTES
