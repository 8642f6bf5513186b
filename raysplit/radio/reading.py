"""Files of traces: those of the mahimahi emulator, and CSV or Parquet tables.

What is read shifted gives numbers that look right, so a file is read rightly or refused, with the
line.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from raysplit.base.arrays import FloatArray
from raysplit.base.errors import UserError, suggest
from raysplit.base.tables import Table, read_table
from raysplit.radio.checks import checked
from raysplit.radio.trace import Quantity, Trace

OPPORTUNITY_BITS = 1500 * 8  # mahimahi: one packet of Ethernet's size
_LONGEST_HOURS = 24
# Names of columns, in small letters and with what is no letter or digit as "_".
_SECONDS_BY_TIME = {
    **dict.fromkeys(("time_s", "time", "t", "t_s", "seconds", "timestamp", "timestamp_s"), 1.0),
    **dict.fromkeys(("time_ms", "t_ms", "milliseconds", "timestamp_ms"), 1e-3),
}
_QUANTITIES: dict[Quantity, tuple[str, ...]] = {
    "capacity_mbit_s": (
        *("capacity_mbit_s", "capacity_mbps", "mbit_s", "mbps", "throughput_mbit_s"),
        *("throughput_mbps", "rate_mbit_s", "rate_mbps", "bandwidth_mbit_s", "bandwidth_mbps"),
    ),
    "snr_db": ("snr_db", "snr", "sinr_db", "sinr"),
    "rsrp_dbm": ("rsrp_dbm", "rsrp"),
}
_LARGEST_GAP = 5  # times the usual distance between rows


def read_trace_file(
    path: Path, quantity: Quantity | None = None, max_gap_s: float | None = None
) -> Trace:
    """Read a trace: a mahimahi file where its first line is one whole number, else a table.

    Args:
        path: The file.
        quantity: Of a table: the quantity to read where it has several.
        max_gap_s: Of a table: the longest time between rows; None: five times the usual.

    Raises:
        UserError: It cannot be read or is no trace: file, line, rule, remedy.
    """
    try:
        with path.open("rb") as file:
            beginning = file.read(100).removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise _unreadable(path, error) from None
    if re.match(rb"\s*[0-9]+[ \t]*([\n\r]|$)", beginning):
        return read_mahimahi(path)
    return read_table_trace(path, quantity, max_gap_s)


def read_mahimahi(path: Path) -> Trace:
    """Read a mahimahi file: each line the ms since the start at which 1,500 bytes may be sent.

    Times ascend and may repeat; the last one is the length of the trace. An opportunity at t ms
    counts for the millisecond that ends at t, one at 0 for the first.

    Raises:
        UserError: It cannot be read, or a line is no whole number of ms or below the one before.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise _unreadable(path, error) from None
    except UnicodeError:
        raise UserError(f"trace {path} is no text in UTF-8: save it so") from None
    longest_ms = _LONGEST_HOURS * 3_600_000
    times_ms = [0]
    for number, line in enumerate(lines, start=1):
        if not (text := line.strip()):
            continue
        if not re.fullmatch(r"0*[0-9]{1,18}", text):
            raise UserError(
                f"trace {path}, line {number} is {text[:40]!r}: a mahimahi file has a whole number "
                "of ms on each line, and a table begins with the names of its columns"
            )
        if not times_ms[-1] <= int(text) <= longest_ms:
            rule = (
                f"below {times_ms[-1]} before it: sort the lines"
                if int(text) < times_ms[-1]
                else f"beyond {_LONGEST_HOURS} hours: give ms since the start of the trace"
            )
            raise UserError(f"trace {path}, line {number}: {text} ms is {rule}")
        times_ms.append(int(text))
    if times_ms[-1] == 0:
        raise UserError(f"trace {path} has no time above 0 ms: it needs at least one")
    per_ms_R = np.bincount(np.maximum(np.array(times_ms[1:]) - 1, 0), minlength=times_ms[-1])
    edges_s = np.linspace(0.0, times_ms[-1] / 1e3, times_ms[-1] + 1)
    capacity_R = per_ms_R.astype(np.float64) * (OPPORTUNITY_BITS / 1e3)
    return Trace(str(path), "capacity_mbit_s", edges_s, capacity_R)


def read_table_trace(
    path: Path, quantity: Quantity | None = None, max_gap_s: float | None = None
) -> Trace:
    """Read a CSV (comma, semicolon, tab or bar; UTF-8) or Parquet table with a header.

    It needs a time (`time_s` or `time_ms`) and one of `capacity_mbit_s`, `snr_db` and `rsrp_dbm`;
    usual other spellings are known. Times ascend; they count from the first row. A value holds
    until the next row, the last one for the usual distance between rows.

    Args:
        path: The file.
        quantity: The quantity to read where the table has several.
        max_gap_s: The longest time between rows; None: five times the usual (median) one.

    Raises:
        UserError: It cannot be read or is no trace: file, line, rule, remedy.
    """
    subject = f"trace {path}"
    if quantity is not None and quantity not in _QUANTITIES:
        raise UserError(
            f"unknown quantity '{quantity}' of a trace; known: {', '.join(_QUANTITIES)}"
            f"{suggest(quantity, _QUANTITIES)}"
        )
    found: list[tuple[float, Quantity]] = []

    def choose(header: Sequence[str]) -> Sequence[str]:
        time, (value, kind) = (
            _time_column(header, subject),
            _value_column(header, quantity, subject),
        )
        found.append((_SECONDS_BY_TIME[_normal(time)], kind))
        return time, value

    table = read_table(path, choose, "trace", any_separator=True)
    ((unit_s, kind),) = found
    time_s = _ascending(table, unit_s, subject)
    usual_s = float(np.median(np.diff(time_s)))
    _refuse_gaps(table, time_s, usual_s, max_gap_s, subject)
    values_R = table.values_RC[:, 1]
    wrong_R = {"capacity_mbit_s": values_R < 0, "snr_db": np.zeros(0), "rsrp_dbm": values_R >= 0}
    for row in np.flatnonzero(wrong_R[kind])[:1]:
        rule = "at least 0" if kind == "capacity_mbit_s" else "below 0 dBm"
        raise UserError(
            f"{subject}, {table.places[row]}: {kind} {values_R[row]:g} is not possible: it must be "
            f"{rule}; correct the row"
        )
    return Trace(str(path), kind, np.append(time_s, time_s[-1] + usual_s), values_R)


def _time_column(header: Sequence[str], subject: str) -> str:
    times = [name for name in header if _normal(name) in _SECONDS_BY_TIME]
    if len(times) == 1:
        return times[0]
    found = f"has several times ({', '.join(times)})" if times else "has no column for the time"
    raise UserError(
        f"{subject} {found}: name one column time_s or time_ms; it has "
        f"{', '.join(header) or 'none'}"
    )


def _value_column(
    header: Sequence[str], quantity: Quantity | None, subject: str
) -> tuple[str, Quantity]:
    """Return the name of the value's column, and what it is."""
    wanted: tuple[Quantity, ...] = tuple(_QUANTITIES) if quantity is None else (quantity,)
    values: list[tuple[str, Quantity]] = [
        (name, kind) for kind in wanted for name in header if _normal(name) in _QUANTITIES[kind]
    ]
    if len(values) == 1:
        return values[0]
    names = ", ".join(name for name, _ in values)
    raise UserError(
        f"{subject} has several columns that could be meant ({names}): choose by quantity, of "
        f"{', '.join(_QUANTITIES)}, or leave one of them in the file"
        if values
        else f"{subject} has no column for {' or '.join(wanted)}: name one so; it has "
        f"{', '.join(header) or 'none'}"
    )


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(
        f"trace {path} cannot be read ({error.strerror or error}): give a mahimahi file or a table"
    )


def _normal(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _ascending(table: Table, unit_s: float, subject: str) -> FloatArray:
    """Return the times in seconds from the first row on."""
    time_s = table.values_RC[:, 0] * unit_s
    if len(time_s) < 2:
        raise UserError(f"{subject} has {len(time_s)} row(s): a trace needs at least two")
    for row in np.flatnonzero(np.diff(time_s) <= 0)[:1]:
        fault = "repeats the time" if time_s[row + 1] == time_s[row] else "is earlier than that"
        raise UserError(
            f"{subject}, {table.places[row + 1]} {fault} of {table.places[row]} "
            f"({time_s[row + 1]:g} s after {time_s[row]:g} s): sort the rows and keep one a time"
        )
    return time_s - time_s[0]


def _refuse_gaps(
    table: Table, time_s: FloatArray, usual_s: float, max_gap_s: float | None, subject: str
) -> None:
    if max_gap_s is None:
        max_gap_s = _LARGEST_GAP * usual_s * (1 + 1e-9)
    max_gap_s = float(checked("max_gap_s", max_gap_s, above=0))
    for row in np.flatnonzero(np.diff(time_s) > max_gap_s)[:1]:
        raise UserError(
            f"{subject}, {table.places[row + 1]} comes {time_s[row + 1] - time_s[row]:g} s after "
            f"{table.places[row]}, and at most {max_gap_s:g} s may lie between rows: fill the gap, "
            "cut the trace there, or raise max_gap_s"
        )
