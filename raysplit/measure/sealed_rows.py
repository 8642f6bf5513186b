"""SQLite tables whose rows carry a hash of their content: a changed row is noticed, not believed.

SQLite's own check sees a broken page, not another number in a sound one.
"""

from __future__ import annotations

import functools
import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from raysplit.base.progress import say

Record = dict[str, Any]
"""A row by column name."""

_SEAL = "content_sha256"
_PYTHON_TYPES: Mapping[str, Callable[[Any], Any]] = {
    "TEXT": str,
    "INTEGER": int,
    "REAL": float,
    "BLOB": bytes,
}


class SealedTable:
    """A table of one SQLite file.

    The connection's `text_factory` must be `lenient_text`: text that is no UTF-8 any more is then a
    changed row like another.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        columns: Mapping[str, str],
        later_columns: Mapping[str, str] | None = None,
    ) -> None:
        """Describe the table.

        Args:
            path: The file, for messages.
            name: The table's name.
            columns: Name -> SQL type: TEXT, INTEGER, REAL or BLOB; the first is the key.
            later_columns: The same of those that an older file lacks and gets. A row that holds
                nothing there has the hash that it had without them.
        """
        self._path = path
        self._name = name
        self._columns = {**columns, **(later_columns or {})}
        self._first_columns = len(columns)
        self._key = next(iter(columns))

    def create(self, connection: sqlite3.Connection) -> None:
        """Create the table, unless it is there, and the columns that it lacks."""
        columns = ", ".join(f"{name} {kind}" for name, kind in self._columns.items())
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {self._name} "
            f"({columns}, {_SEAL} TEXT, PRIMARY KEY ({self._key}))"
        )
        there = {name for _, name, *_ in connection.execute(f"PRAGMA table_info({self._name})")}
        for name, kind in self._columns.items():
            if name not in there:
                connection.execute(f"ALTER TABLE {self._name} ADD COLUMN {name} {kind}")

    def put(
        self,
        connection: sqlite3.Connection,
        records: Iterable[Record],
        *,
        replace_if: Callable[[Record], bool],
    ) -> None:
        """Add rows; a key that is there keeps its row, unless that was changed or may be replaced.

        Args:
            connection: Within a transaction.
            records: The rows, each with every column.
            replace_if: Whether a row that is there, and sound, makes way.
        """
        for record in records:
            key = (record[self._key],)
            there = next(self.select(connection, f"{self._key} = ?", key), None)
            if there is None or replace_if(there):
                values = [self._stored(column, record[column]) for column in self._columns]
                names = ", ".join((*self._columns, _SEAL))
                marks = ", ".join("?" * (len(values) + 1))
                connection.execute(f"DELETE FROM {self._name} WHERE {self._key} = ?", key)
                connection.execute(
                    f"INSERT INTO {self._name} ({names}) VALUES ({marks})",
                    (*values, self._hash(values)),
                )

    def select(
        self, connection: sqlite3.Connection, condition: str, values: tuple[Any, ...]
    ) -> Iterator[Record]:
        """Yield the rows that fulfil an SQL condition; those that were changed are named instead.

        A key has one row: the index that answers for the key is no part of the row, so a row that
        lost its entry there may have got a twin.
        """
        names = ", ".join((*self._columns, _SEAL))
        query = f"SELECT {names} FROM {self._name} WHERE {condition}"
        with closing(connection.execute(query, values)) as cursor:
            for *content, seal in cursor:
                record = dict(zip(self._columns, content, strict=True))
                if seal == self._hash(content):
                    yield record
                else:
                    _report_damage(self._path, f"{self._name} {str(record[self._key])[:12]}")

    def _hash(self, values: list[Any]) -> str:
        hashed = list(values)
        while len(hashed) > self._first_columns and hashed[-1] is None:
            hashed.pop()
        text = json.dumps(hashed, default=lambda blob: hashlib.sha256(blob).hexdigest())
        return hashlib.sha256(text.encode()).hexdigest()

    def _stored(self, column: str, value: Any) -> Any:  # noqa: ANN401 - any SQLite value
        """Return a value as SQLite will give it back: the hash is taken of that."""
        return None if value is None else _PYTHON_TYPES[self._columns[column]](value)


def lenient_text(encoded: bytes) -> str:
    """Decode a text column, whatever its bytes."""
    return encoded.decode("utf-8", errors="surrogateescape")


@functools.cache  # a row is read many times in a run
def _report_damage(path: Path, row: str) -> None:
    say(
        f"{path}: {row} was changed since it was written",
        "yellow",
        " (its checksum does not fit): it is not used, and measured anew where it is needed",
    )
