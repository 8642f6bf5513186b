"""One progress bar for all long work: what is done, rate, time left."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

console = Console(stderr=True, highlight=False)

Advance = Callable[..., None]
"""advance(steps, note="") moves the bar and shows a note behind it."""


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.1f}/s" if task.speed else "")


@contextmanager
def progress_bar(title: str, total: int, done: int = 0) -> Generator[Advance]:
    """Show a bar on a terminal; elsewhere print one line at the end.

    Args:
        title: What is being done.
        total: Units in all.
        done: Units already done when the work begins (left out of the rate).
    """
    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        _Rate(),
        TextColumn("elapsed"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(title, total=total, completed=done, note="")

        def advance(steps: float, note: str = "") -> None:
            progress.update(task, advance=steps, note=note)

        yield advance
