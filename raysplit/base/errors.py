"""The one error that means "your input", and what its messages are made of."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable


class UserError(ValueError):
    """Something the user can mend: says the value, the rule and the remedy in one or two lines.

    The command line prints the message without a traceback and exits with code 2.
    """

    def __str__(self) -> str:
        """Return the message; a value's control characters are shown, not sent to the terminal."""
        return "".join(
            one if one == "\n" or one.isprintable() else one.encode("unicode_escape").decode()
            for one in super().__str__()
        )


def command(*words: object) -> str:
    """Return a `raysplit` command as a remedy shows it, quoted so that it can be pasted."""
    return f"`raysplit {shlex.join(map(str, words))}`"


def suggest(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for a near miss among the known names, else ""."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""


def yaml_reason(error: Exception) -> str:
    """Return "line 3: what is wrong there" for an error of PyYAML, whose text has five lines."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    line = f"line {mark.line + 1}: " if mark else ""
    return line + (problem or " ".join(str(error).split()))
