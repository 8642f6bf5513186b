"""The ledger: every measured setting exactly once, kept from the moment it is known.

One SQLite file (WAL mode, so a reader never blocks the writer and a killed process leaves no torn
row). A row's key is the hash of everything that decides its value, so a ledger can serve several
experiments and what was measured is never measured again. Every row carries a hash of its content:
one that was changed is named, left out, and measured anew. Keep the file on a local disk: WAL is
not safe on NFS.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from raysplit.link.codec import IDENTITY, Codec
from raysplit.link.state import LinkState
from raysplit.measure.ledger_file import FORMAT, open_ledger_file, unusable
from raysplit.measure.rows import AnchorBlock, Row, anchor_block_key
from raysplit.measure.sealed_rows import Record, SealedTable
from raysplit.measure.setting import Setting

# Without further constraints: SQLite would refuse the whole file for one row that breaks them.
_CARDS = {"sha256": "TEXT", "card": "TEXT", "created": "REAL"}
_CLEAN = {"card": "TEXT", "reference": "BLOB"}
_CLEAN_BLOCKS = {
    "key": "TEXT",
    "card": "TEXT",
    "first_split_point": "INTEGER",
    "last_split_point": "INTEGER",
    "block": "INTEGER",
    "content": "BLOB",
    "finished": "REAL",
}
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
_SINCE_FORMAT_4 = {"codec": "TEXT"}  # its name; nothing for hidden states sent as computed
_OF_A_CLEAN_PASS = "card = ? AND first_split_point = ? AND last_split_point = ?"
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
        self._clean_blocks = SealedTable(path, "clean_blocks", _CLEAN_BLOCKS)
        self._anchors = SealedTable(path, "anchors", _ANCHORS)
        self._settings = SealedTable(path, "settings", _SETTINGS, _SINCE_FORMAT_4)
        self._connection = open_ledger_file(path)
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

    def add_clean_reference(
        self, card_sha256: str, split_points: tuple[int, int], reference: bytes
    ) -> None:
        """Store the result of the clean pass, instead of its blocks and of an earlier one."""
        record = {"card": card_sha256, "reference": reference}
        with self._writing():
            self._clean.put(self._connection, [record], replace_if=lambda _: True)
            self._connection.execute(
                f"DELETE FROM clean_blocks WHERE {_OF_A_CLEAN_PASS}", (card_sha256, *split_points)
            )

    def clean_blocks(self, card_sha256: str, split_points: tuple[int, int]) -> dict[int, bytes]:
        """Return the serialised blocks of a clean pass that has not come to its end."""
        with self._reading():
            records = self._clean_blocks.select(
                self._connection, _OF_A_CLEAN_PASS, (card_sha256, *split_points)
            )
            return {record["block"]: record["content"] for record in records}

    def add_clean_block(
        self, card_sha256: str, split_points: tuple[int, int], block: int, content: bytes
    ) -> None:
        """Store a block of a clean pass; one that is there stays."""
        first, last = split_points
        record = {
            "key": f"{card_sha256}:{first}-{last}:{block}",
            "card": card_sha256,
            "first_split_point": first,
            "last_split_point": last,
            "block": block,
            "content": content,
            "finished": time.time(),
        }
        with self._writing():
            self._clean_blocks.put(self._connection, [record], replace_if=lambda _: False)

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
        tables = (self._cards, self._clean, self._clean_blocks, self._anchors, self._settings)
        with self._writing():
            for table in tables:
                table.create(self._connection)
            self._connection.execute(
                "CREATE INDEX IF NOT EXISTS settings_of_card ON settings (card)"
            )
            self._connection.execute(f"PRAGMA user_version = {FORMAT}")

    @contextmanager
    def _reading(self) -> Generator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise unusable(self.path, error) from None

    @contextmanager
    def _writing(self) -> Generator[None]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise unusable(self.path, error) from None


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
        "codec": None if setting.codec == IDENTITY else setting.codec.name,
    }


def _row(record: Record) -> Row:
    link = LinkState(**json.loads(record["link"]))
    codec = IDENTITY if record["codec"] is None else Codec(record["codec"])
    setting = Setting(record["split_point"], link, record["seed"], codec)
    return Row(setting=setting, **{name: record[name] for name in _RESULTS})
