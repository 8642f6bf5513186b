"""The ledger: every measured setting exactly once, kept from the moment it is known.

One SQLite file (WAL mode, so a reader never blocks the writer and a killed process leaves no torn
row). A row's key is the hash of everything that decides its value, so a ledger can serve several
experiments and what was measured is never measured again. Every row carries a hash of its content:
one that was changed is named, left out, and measured anew. Keep the file on a local disk: WAL is
not safe on NFS.
"""

from __future__ import annotations

import errno
import json
import shutil
import sqlite3
import time
from collections.abc import Generator, Iterable, Set
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from raysplit.base.arrays import FloatArray
from raysplit.base.errors import UserError
from raysplit.link.state import LinkState
from raysplit.measure.sealed_rows import Record, SealedTable, lenient_text
from raysplit.measure.setting import Setting

Status = Literal["done", "invalid", "quarantined"]

_LOCK_TIMEOUT_S = 30.0
_LOCKED = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_SMALLEST_FREE_BYTES = 2**16
_FORMAT = 3
"""Version of the tables, kept in the file's user_version; raysplit 0.1 wrote none."""
# Without further constraints: SQLite would refuse the whole file for one row that breaks them.
_CARDS = {"sha256": "TEXT", "card": "TEXT", "created": "REAL"}
_CLEAN = {"card": "TEXT", "reference": "BLOB"}
_ANCHORS = {
    "key": "TEXT",
    "card": "TEXT",
    "damages": "BLOB",
    "recomputed": "INTEGER",
    "seconds": "REAL",
    "finished": "REAL",
}
_SETTINGS = {
    "key": "TEXT",
    "card": "TEXT",
    "split_point": "INTEGER",
    "link": "TEXT",
    "seed": "INTEGER",
    "status": "TEXT",
    "log_ppl": "REAL",
    "stderr": "REAL",
    "sequences": "INTEGER",
    "tokens": "INTEGER",
    "recomputed": "INTEGER",
    "seconds": "REAL",
    "anchor_sequences": "INTEGER",
    "attempts": "INTEGER",
    "reason": "TEXT",
    "worker": "TEXT",
    "finished": "REAL",
}


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
        anchor_sequences: Sequences of the anchors that the estimate rests on besides; 0 without.
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
    anchor_sequences: int = 0
    attempts: int = 1
    reason: str | None = None
    worker: str = ""
    finished: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class AnchorBlock:
    """What an anchor did to one block of the corpus.

    Attributes:
        setting: The anchor.
        block: The block's number.
        damages_B: NLL under the link less the clean NLL of its sequences, in drawing order, nats.
        recomputed: Sequences whose suffix was run.
        seconds: Wall time on its worker.
    """

    setting: Setting
    block: int
    damages_B: FloatArray
    recomputed: int
    seconds: float

    def key(self, card_sha256: str) -> str:
        """Name it among all blocks of all anchors."""
        return anchor_block_key(card_sha256, self.setting, self.block)


def anchor_block_key(card_sha256: str, setting: Setting, block: int) -> str:
    """Name a block of an anchor."""
    return f"{setting.key(card_sha256)}:{block}"


_RESULTS = tuple(field.name for field in fields(Row) if field.name != "setting")


class Ledger:
    """The measured settings of one or several experiments."""

    def __init__(self, path: Path) -> None:
        """Open or create the ledger.

        Raises:
            UserError: If the file is not a sound ledger or its folder cannot be written.
        """
        self.path = path
        self._cards = SealedTable(path, "cards", _CARDS)
        self._clean = SealedTable(path, "clean", _CLEAN)
        self._anchors = SealedTable(path, "anchors", _ANCHORS)
        self._settings = SealedTable(path, "settings", _SETTINGS)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _refuse_a_cut_file(path)
            self._connection = sqlite3.connect(path, timeout=_LOCK_TIMEOUT_S, isolation_level=None)
            self._connection.text_factory = lenient_text
            _refuse_another_format(path, self._connection)
            _switch_to_wal(self._connection)
            self._connection.execute("PRAGMA synchronous = NORMAL")
            state = self._connection.execute("PRAGMA quick_check").fetchone()[0]
            if state != "ok":
                raise sqlite3.DatabaseError(state)
        except (sqlite3.DatabaseError, OSError) as error:
            raise _unusable(path, error) from None
        self._create_tables()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what was added stays."""
        self._connection.close()

    def add_card(self, sha256: str, card: dict[str, Any]) -> None:
        """Store a protocol card under its hash, once."""
        record = {
            "sha256": sha256,
            "card": json.dumps(card, sort_keys=True),
            "created": time.time(),
        }
        with self._writing():
            self._cards.put(self._connection, [record], replace_if=lambda _: False)

    def add(self, card_sha256: str, rows: Iterable[Row]) -> None:
        """Add rows in one transaction. A key keeps its first row, unless that is quarantined."""
        records = [_record(card_sha256, row) for row in rows]
        with self._writing():
            self._settings.put(
                self._connection, records, replace_if=lambda there: there["status"] == "quarantined"
            )

    def rows(self, card_sha256: str) -> dict[str, Row]:
        """Return all rows of a protocol card by key, without those that were changed."""
        return self._rows("card = ?", card_sha256)

    def rows_of(self, keys: Iterable[str]) -> dict[str, Row]:
        """Return those of the keys' rows that are there and as they were written."""
        return self._rows("key IN (SELECT value FROM json_each(?))", json.dumps(list(keys)))

    def _rows(self, condition: str, value: str) -> dict[str, Row]:
        with self._reading():
            records = self._settings.select(self._connection, condition, (value,))
            return {record["key"]: _row(record) for record in records}

    def clean_reference(self, card_sha256: str) -> bytes | None:
        """Return the serialised result of the clean pass, if it is known and unchanged."""
        with self._reading():
            found = next(self._clean.select(self._connection, "card = ?", (card_sha256,)), None)
        return found["reference"] if found else None

    def add_clean_reference(self, card_sha256: str, reference: bytes) -> None:
        """Store the result of the clean pass, instead of an earlier one."""
        record = {"card": card_sha256, "reference": reference}
        with self._writing():
            self._clean.put(self._connection, [record], replace_if=lambda _: True)

    def anchor_blocks(
        self, card_sha256: str, anchors: Iterable[Setting], blocks: int
    ) -> dict[tuple[Setting, int], AnchorBlock]:
        """Return those of the anchors' first blocks that are there and as they were written."""
        wanted = {
            anchor_block_key(card_sha256, setting, block): (setting, block)
            for setting in anchors
            for block in range(blocks)
        }
        condition = "key IN (SELECT value FROM json_each(?))"
        with self._reading():
            records = self._anchors.select(self._connection, condition, (json.dumps(list(wanted)),))
            return {
                wanted[record["key"]]: AnchorBlock(
                    *wanted[record["key"]],
                    np.frombuffer(record["damages"], dtype="<f8"),
                    record["recomputed"],
                    record["seconds"],
                )
                for record in records
            }

    def add_anchor_block(self, card_sha256: str, found: AnchorBlock) -> None:
        """Store a block of an anchor; one that is there stays."""
        record = {
            "key": found.key(card_sha256),
            "card": card_sha256,
            "damages": found.damages_B.astype("<f8").tobytes(),
            "recomputed": found.recomputed,
            "seconds": found.seconds,
            "finished": time.time(),
        }
        with self._writing():
            self._anchors.put(self._connection, [record], replace_if=lambda _: False)

    def _create_tables(self) -> None:
        with self._writing():
            for table in (self._cards, self._clean, self._anchors, self._settings):
                table.create(self._connection)
            self._connection.execute(
                "CREATE INDEX IF NOT EXISTS settings_of_card ON settings (card)"
            )
            self._connection.execute(f"PRAGMA user_version = {_FORMAT}")

    @contextmanager
    def _reading(self) -> Generator[None]:
        try:
            yield
        except sqlite3.Error as error:
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


def _refuse_another_format(path: Path, connection: sqlite3.Connection) -> None:
    """Refuse a file of another version or another program, before anything in it is changed.

    Raises:
        UserError: It is one.
    """
    connection.execute("BEGIN")  # another process may be creating the tables just now
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
    connection.execute("COMMIT")
    if version == _FORMAT or (version == 0 and not tables):
        return
    if version > _FORMAT:
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


def _unusable(path: Path, error: Exception) -> UserError:
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


def _record(card_sha256: str, row: Row) -> Record:
    setting = row.setting
    return {
        "key": setting.key(card_sha256),
        "card": card_sha256,
        "split_point": setting.split_point,
        "link": json.dumps(setting.link.as_dict(), sort_keys=True),
        "seed": setting.seed,
        **{name: getattr(row, name) for name in _RESULTS},
        "finished": row.finished or time.time(),
    }


def _row(record: Record) -> Row:
    link = LinkState(**json.loads(record["link"]))
    setting = Setting(record["split_point"], link, record["seed"])
    return Row(setting=setting, **{name: record[name] for name in _RESULTS})
