"""The ledger: every measured setting exactly once, kept from the moment it is known.

One SQLite file (WAL mode, so a reader never blocks the writer and a killed process leaves no torn
row). A row's key is the hash of everything that decides its value, so a ledger can serve several
experiments and what was measured is never measured again. Keep it on a local disk: WAL is not safe
on NFS.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from collections.abc import Generator, Iterable
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from raysplit.base.errors import UserError
from raysplit.link.state import LinkState
from raysplit.measure.setting import Setting

Status = Literal["done", "invalid", "quarantined"]

_LOCK_TIMEOUT_S = 30.0
_SMALLEST_FREE_BYTES = 2**16
_SCHEMA = """
CREATE TABLE IF NOT EXISTS cards (
    sha256 TEXT PRIMARY KEY, card TEXT NOT NULL, created REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS clean (
    card TEXT PRIMARY KEY REFERENCES cards, reference BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS settings (
    key TEXT PRIMARY KEY,
    card TEXT NOT NULL REFERENCES cards,
    split_point INTEGER NOT NULL,
    link TEXT NOT NULL,
    seed INTEGER NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('done', 'invalid', 'quarantined')),
    log_ppl REAL, stderr REAL, sequences INTEGER, tokens INTEGER, recomputed INTEGER,
    seconds REAL, attempts INTEGER NOT NULL, reason TEXT, worker TEXT, finished REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS settings_of_card ON settings (card);
"""
_COLUMNS = (
    "split_point, link, seed, status, log_ppl, stderr, sequences, tokens, recomputed, seconds, "
    "attempts, reason, worker, finished"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What became of one setting.

    Attributes:
        setting: The setting.
        status: `done`; `invalid` (NaN or inf, see reason); `quarantined` (gave up after attempts).
        log_ppl: Natural logarithm of the perplexity (Eq. 6), or None.
        stderr: Standard error of log_ppl against the full corpus.
        sequences: Sequences that entered the estimate.
        tokens: Scored tokens that entered the estimate.
        recomputed: Sequences that the link touched, so that their suffix was run.
        seconds: Wall time on its worker.
        attempts: How often the setting was started.
        reason: Why it is not `done`; for a done row, a note such as a halved batch.
        worker: Who measured it.
        finished: Unix time.
    """

    setting: Setting
    status: Status
    log_ppl: float | None = None
    stderr: float | None = None
    sequences: int = 0
    tokens: int = 0
    recomputed: int = 0
    seconds: float = 0.0
    attempts: int = 1
    reason: str | None = None
    worker: str = ""
    finished: float = 0.0


class Ledger:
    """The measured settings of one or several experiments."""

    def __init__(self, path: Path) -> None:
        """Open or create the ledger.

        Raises:
            UserError: If the file is not a sound ledger or its folder cannot be written.
        """
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _refuse_a_cut_file(path)
            self._connection = sqlite3.connect(path, timeout=_LOCK_TIMEOUT_S, isolation_level=None)
            _switch_to_wal(self._connection)
            self._connection.execute("PRAGMA synchronous = NORMAL")
            state = self._connection.execute("PRAGMA quick_check").fetchone()[0]
            if state != "ok":
                raise sqlite3.DatabaseError(state)
            self._connection.executescript(_SCHEMA)
        except (sqlite3.DatabaseError, OSError) as error:
            raise _unusable(path, error) from None

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what was added stays."""
        self._connection.close()

    def add_card(self, sha256: str, card: dict[str, Any]) -> None:
        """Store a protocol card under its hash, once."""
        with self._writing():
            self._connection.execute(
                "INSERT OR IGNORE INTO cards VALUES (?, ?, ?)",
                (sha256, json.dumps(card, sort_keys=True), time.time()),
            )

    def add(self, card_sha256: str, rows: Iterable[Row]) -> None:
        """Add rows in one transaction. A key keeps its first row, unless that is quarantined."""
        values = [
            (
                row.setting.key(card_sha256),
                card_sha256,
                row.setting.split_point,
                json.dumps(row.setting.link.as_dict(), sort_keys=True),
                row.setting.seed,
                row.status,
                row.log_ppl,
                row.stderr,
                row.sequences,
                row.tokens,
                row.recomputed,
                row.seconds,
                row.attempts,
                row.reason,
                row.worker,
                row.finished or time.time(),
            )
            for row in rows
        ]
        with self._writing():
            self._connection.executemany(
                "DELETE FROM settings WHERE key = ? AND status = 'quarantined'",
                [(row[0],) for row in values],
            )
            self._connection.executemany(
                f"INSERT INTO settings (key, card, {_COLUMNS}) VALUES ({', '.join('?' * 16)}) "
                "ON CONFLICT (key) DO NOTHING",
                values,
            )

    def rows(self, card_sha256: str) -> dict[str, Row]:
        """Return all rows of a protocol card by key."""
        return self._rows("card = ?", card_sha256)

    def rows_of(self, keys: Iterable[str]) -> dict[str, Row]:
        """Return those of the keys' rows that are there."""
        return self._rows("key IN (SELECT value FROM json_each(?))", json.dumps(list(keys)))

    def _rows(self, condition: str, value: str) -> dict[str, Row]:
        query = f"SELECT key, {_COLUMNS} FROM settings WHERE {condition}"
        with self._reading(), closing(self._connection.execute(query, (value,))) as cursor:
            return {record[0]: _row(record[1:]) for record in cursor}

    def clean_reference(self, card_sha256: str) -> bytes | None:
        """Return the serialised result of the clean pass, if it is known."""
        with self._reading():
            found = self._connection.execute(
                "SELECT reference FROM clean WHERE card = ?", (card_sha256,)
            ).fetchone()
        return found[0] if found else None

    def add_clean_reference(self, card_sha256: str, reference: bytes) -> None:
        """Store the result of the clean pass."""
        with self._writing():
            self._connection.execute(
                "INSERT OR REPLACE INTO clean VALUES (?, ?)", (card_sha256, reference)
            )

    @contextmanager
    def _reading(self) -> Generator[None]:
        try:
            yield
        except (sqlite3.Error, ValueError, TypeError) as error:  # a row that is no row counts too
            raise _unusable(self.path, error) from None

    @contextmanager
    def _writing(self) -> Generator[None]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise _unusable(self.path, error) from None


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


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """Wait while another process opens the new file too: here SQLite's timeout does not count."""
    until = time.monotonic() + _LOCK_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.05)


def _unusable(path: Path, error: Exception) -> UserError:
    if "full" in str(error) or ("I/O" in str(error) and _disk_is_full(path)):
        return UserError(
            f"no space left for {path}: free some and start again; nothing measured is lost"
        )
    if "locked" in str(error):
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


def _disk_is_full(path: Path) -> bool:
    return shutil.disk_usage(path.parent).free < _SMALLEST_FREE_BYTES


def _row(record: tuple[Any, ...]) -> Row:
    split_point, link, seed, status, *rest = record
    log_ppl, stderr, sequences, tokens, recomputed, seconds, attempts, reason, worker, finished = (
        rest
    )
    return Row(
        setting=Setting(split_point, LinkState(**json.loads(link)), seed),
        status=status,
        log_ppl=log_ppl,
        stderr=stderr,
        sequences=sequences,
        tokens=tokens,
        recomputed=recomputed,
        seconds=seconds,
        attempts=attempts,
        reason=reason,
        worker=worker,
        finished=finished,
    )
