"""One progress bar for all long work: what is done, rate, time left."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import timedelta

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

# No markup: what is printed quotes paths, whose brackets and colons are no styles.
console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)


# Prints whatever `set_verbosity` says.
_warnings = Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)
_TOLD_ALWAYS = frozenset({"yellow", "red"})


def say(styled: str, style: str, rest: str) -> None:
    """Print a line whose first part has a style; "yellow" and "red" are warnings."""
    told = _warnings if style in _TOLD_ALWAYS else console
    told.print(Text.assemble((styled, style), rest))


def set_verbosity(*, quiet: bool = False, verbose: bool = False) -> None:
    """Choose what goes to stderr besides errors, and the level of our `logging`.

    Args:
        quiet: Neither progress nor what was done; warnings all the same.
        verbose: Also our loggers' messages from level DEBUG, with time and place.
    """
    console.quiet = quiet
    if verbose:
        logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        for name in ("raysplit", "envs", "tuning"):
            logging.getLogger(name).setLevel(logging.DEBUG)


Advance = Callable[..., None]
"""advance(steps, note="") moves the bar and shows a note behind it."""


_LINE_EVERY_S = 60.0


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.1f}/s" if task.speed else "")


@contextmanager
def progress_bar(title: str, total: int, done: int = 0) -> Generator[Advance]:
    """Show a bar on a terminal; elsewhere print a line a minute, as a log wants it.

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
    if not sys.stderr.isatty():
        yield _lines(title, total, done)
        return
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=total, completed=done, note="")

        def advance(steps: float, note: str = "") -> None:
            progress.update(task, advance=steps, note=note)

        yield advance


def _lines(title: str, total: int, done: int) -> Advance:
    begun = told = time.monotonic()
    now_done = float(done)

    def advance(steps: float, note: str = "") -> None:
        nonlocal told, now_done
        now_done += steps
        now = time.monotonic()
        if now - told < _LINE_EVERY_S:
            return
        told, rate = now, (now_done - done) / (now - begun)
        left = f", {timedelta(seconds=round((total - now_done) / rate))} left" if rate > 0 else ""
        console.print(f"{title:<10} {now_done:g} of {total}, {rate:,.1f}/s{left}  {note}".rstrip())

    return advance
