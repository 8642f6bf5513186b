"""Print the doctor's rows as one table."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from raysplit.doctor.check import Check

_STYLES = {"ok": "green", "warning": "yellow", "error": "bold red"}
# Columns of a file or pipe, which wraps nothing and may be searched line by line.
_UNBOUNDED = 1000


def table_console() -> Console:
    """Return the terminal, or a console wide enough for one line a check where there is none."""
    return Console(width=None if sys.stdout.isatty() else _UNBOUNDED)


def print_table(checks: Sequence[Check], console: Console) -> None:
    """Print one line a check, then how many there are of each status."""
    table = Table(box=box.SIMPLE_HEAD, header_style="bold")
    for column in ("check", "status", "found", "remedy"):
        table.add_column(column, overflow="fold", no_wrap=column == "status")
    for check in checks:
        # Text, not markup: details quote YAML and paths, whose brackets are not styles.
        table.add_row(
            Text(check.name),
            Text(check.status, style=_STYLES[check.status]),
            Text(check.detail),
            Text(check.remedy),
        )
    console.print(table)
    counts = {status: sum(c.status == status for c in checks) for status in _STYLES}
    console.print(", ".join(f"{count} {status}" for status, count in counts.items()))
