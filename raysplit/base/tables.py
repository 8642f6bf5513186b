"""The user's own tables of numbers, CSV or Parquet: read rightly or refused with the line.

A table that is read with a column shifted gives numbers that look right, so every row must have
as many cells as the header.

Shape suffixes: R rows, C columns.
"""

# pyarrow ships no type information:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import csv
import itertools
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from raysplit.base.arrays import FloatArray
from raysplit.base.errors import UserError

_WITH_COMMA = re.compile(r"\s*[+-]?\d*,\d+([eE][+-]?\d+)?\s*")
_OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Numbers of a file.

    Attributes:
        values_RC: The columns asked for, finite, in that order.
        columns: All columns of the file.
        places: Where each row stands in it, such as "line 7".
    """

    values_RC: FloatArray
    columns: tuple[str, ...]
    places: tuple[str, ...]


Columns = Sequence[str] | Callable[[Sequence[str]], Sequence[str]]
"""Names of columns, or what chooses them from all columns of the file."""


def read_table(path: Path, needed: Columns, what: str, *, any_separator: bool = False) -> Table:
    """Read columns of numbers from a CSV (UTF-8) or Parquet file.

    Args:
        path: The file; Parquet by its name, `.parquet`.
        needed: Names of the columns, or a function that returns them for those of the file.
        what: What the file is, as messages begin: "trace".
        any_separator: Cells may be separated by semicolons, tabs or bars instead of commas; their
            decimals may then have a comma, all of them or none.

    Raises:
        UserError: It cannot be read, a column is missing or there twice, a row has other cells
            than the header, or a cell is no finite number.
    """
    subject = f"{what} {path}"
    try:
        if path.suffix.lower() == ".parquet":
            return _read_parquet(path, needed, subject)
        return _read_csv(path, needed, subject, any_separator)
    except OSError as error:
        names = "columns of numbers" if callable(needed) else f"the column(s) {', '.join(needed)}"
        raise UserError(
            f"{subject} cannot be read ({error.strerror or error}); it names a CSV or Parquet file "
            f"with {names}"
        ) from None
    except (UnicodeError, csv.Error) as error:
        raise UserError(
            f"{subject} is no CSV text in UTF-8 ({error}); save it as CSV, UTF-8"
        ) from None


def _read_csv(path: Path, columns: Columns, subject: str, any_separator: bool) -> Table:
    with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets write a mark first
        separator = _separator(file.readline()) if any_separator else ","
        file.seek(0)
        reader = csv.reader(file, delimiter=separator, skipinitialspace=True, strict=True)
        header = [name.strip() for name in next(reader, [])]
        _refuse_other_separators(header, subject)
        needed = _chosen(columns, header)
        _check_columns(header, needed, subject)
        number = _Numbers(commas_are_decimal=separator != ",")
        places: list[str] = []
        rows: list[list[float]] = []
        index = [header.index(name) for name in needed]
        for cells in reader:
            if not any(cells):
                continue  # an empty line
            places.append(f"line {reader.line_num}")
            if len(cells) != len(header):
                raise UserError(
                    f"{subject}, {places[-1]} has {len(cells)} cell(s) and the header {len(header)}"
                    f"{_hint_at_commas(cells, header)}"
                )
            if any(cell for cell, name in zip(cells[1:], header[1:], strict=True) if not name):
                raise UserError(
                    f"{subject}, {places[-1]} has a value in a column without a name: give the "
                    "column one; decimals have a point, as a comma separates cells"
                )
            rows.append([number(cells[i], header[i], f"{subject}, {places[-1]}") for i in index])
    values_RC = np.array(rows, dtype=np.float64).reshape(len(rows), len(needed))
    return Table(values_RC, tuple(header), tuple(places))


def _read_parquet(path: Path, needed: Columns, subject: str) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path).read()
    except pa.ArrowException as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{subject} cannot be read as Parquet: {reason}") from None
    needed = _chosen(needed, table.column_names)
    _check_columns(table.column_names, needed, subject)
    columns: list[FloatArray] = []
    for name in needed:
        column = table.column(name)
        if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
            raise UserError(f"{subject}: column {name} holds {column.type} and not numbers")
        columns.append(column.to_numpy().astype(np.float64))  # an empty cell becomes NaN
    values_RC = np.stack(columns, axis=1)
    for row, c in np.argwhere(~np.isfinite(values_RC))[:1]:
        raise UserError(f"{subject}, row {row + 1}: {needed[c]} is not finite, or empty")
    places = tuple(f"row {row + 1}" for row in range(len(values_RC)))
    return Table(values_RC, tuple(table.column_names), places)


def _chosen(columns: Columns, header: Sequence[str]) -> Sequence[str]:
    return columns(header) if callable(columns) else columns


def _separator(header: str) -> str:
    return next((separator for separator in _OTHER_SEPARATORS if separator in header), ",")


def _check_columns(header: Sequence[str], needed: Sequence[str], subject: str) -> None:
    missing = [name for name in needed if name not in header]
    if missing:
        raise UserError(
            f"{subject} lacks the column(s) {', '.join(missing)}: it needs {', '.join(needed)} and "
            f"has {', '.join(header) or 'none'}".replace("\n", " ")
        )
    twice = [name for name, count in Counter(header).items() if name and count > 1]
    if twice:
        raise UserError(f"{subject} has the column {twice[0]} twice: keep one of them")


def _refuse_other_separators(header: Sequence[str], subject: str) -> None:
    for separator, name in _OTHER_SEPARATORS.items():
        if len(header) == 1 and separator in header[0]:
            raise UserError(
                f"{subject} has {name} between its cells: separate them by commas, and write "
                "decimals with a point"
            )


def _hint_at_commas(cells: Sequence[str], header: Sequence[str]) -> str:
    whole = [re.fullmatch(r"[+-]?\d+", cell.strip()) is not None for cell in cells]
    if len(cells) > len(header) and any(map(all, itertools.pairwise(whole))):
        return ": a decimal comma separates two cells, so write decimals with a point"
    return ": give every column its cell, and put text with commas in quotes"


class _Numbers:
    """Reads cells; where commas are decimal, the first mark of a file is that of all its cells."""

    def __init__(self, commas_are_decimal: bool) -> None:
        self._commas_are_decimal = commas_are_decimal
        self._mark = ""

    def __call__(self, cell: str, name: str, where: str) -> float:
        if self._commas_are_decimal:
            cell = self._with_point(cell, name, where)
        try:
            value = float(cell)
        except ValueError:
            comma = "; write decimals with a point" if _WITH_COMMA.fullmatch(cell) else ""
            raise UserError(f"{where}: {name} is {cell!r}, which is no number{comma}") from None
        if not np.isfinite(value):
            raise UserError(f"{where}: {name} is {cell.strip()}, which is not finite")
        return value

    def _with_point(self, cell: str, name: str, where: str) -> str:
        mark = next((mark for mark in ",." if mark in cell), "")
        self._mark = self._mark or mark
        if mark != self._mark and mark:
            raise UserError(
                f"{where}: {name} is {cell.strip()!r}, and cells before it have decimals with "
                f"{self._mark!r}: write all decimals alike, and thousands without a mark"
            )
        return cell.replace(",", ".") if _WITH_COMMA.fullmatch(cell) else cell
