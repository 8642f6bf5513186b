"""How a command ends: with one message and the exit code that it stands for."""

from __future__ import annotations

import errno
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

import typer

from raysplit.base.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

_CTRL_C = 130
_signals: list[int] = []


def run_to_its_end(work: Callable[[], int | None]) -> NoReturn:
    """Do a command's work and exit with the code that it returns.

    Errors of the user end with one message and code 2, Ctrl-C with 130, SIGTERM like Ctrl-C with
    143.
    """
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = work()
    except UserError as error:
        _end_refused(str(error))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _end_refused(
            f"no space left for {error.filename or 'the run folder'}: free some and start "
            "the same command again; nothing measured is lost"
        )
    except KeyboardInterrupt:
        _end_interrupted()
    except Exception as error:
        if isinstance(error.__cause__, KeyboardInterrupt):  # it came while Ray was in its own code
            _end_interrupted()
        # typer keeps the classes of its usage errors to itself.
        format_message: Callable[[], str] | None = getattr(error, "format_message", None)
        if format_message is None:
            raise
        message = format_message()
        if not message:  # no arguments at all: the help is on the screen
            sys.exit(2)
        stop = "" if message.endswith((".", "?")) else "."
        _end_refused(f"{message}{stop} See `raysplit --help`.")
    if code == _CTRL_C:  # typer has made a code of the KeyboardInterrupt
        _end_interrupted()
    sys.exit(code)


def _terminate(number: int, _frame: object) -> NoReturn:
    """Treat SIGTERM (a batch system or a spot market wants its machine back) like Ctrl-C."""
    _signals.append(number)
    raise KeyboardInterrupt


def _end_interrupted() -> NoReturn:
    typer.echo("interrupted: the same command goes on where this one stopped", err=True)
    sys.exit(128 + (_signals or [signal.SIGINT])[-1])


def _end_refused(message: str) -> NoReturn:
    # Without NO_COLOR a terminal, and no file, gets the colour.
    plain = False if os.environ.get("NO_COLOR") else None
    typer.secho(f"error: {message}", err=True, fg=typer.colors.RED, color=plain)
    sys.exit(2)
