"""Take a shell line with `ray start` apart: environment, options, and what stands around it."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_SEPARATORS = {";", "&&", "||", "|", "&"}


@dataclass(frozen=True, slots=True)
class StartCommand:
    """One `ray start`.

    Attributes:
        environment: The variables set in the same line before it.
        options: Its options ("--port") with their values; "" for a flag.
    """

    environment: dict[str, str]
    options: dict[str, str]

    @property
    def port(self) -> str:
        """The port of the cluster's head that this command opens or calls; 6379 by default."""
        called = self.options.get("--address", "").rpartition(":")[2]
        return self.options.get("--port") or (called if called.isdigit() else "6379")


def parse_start_command(lines: list[str]) -> StartCommand | None:
    """Return the first `ray start` among the lines, or None.

    Raises:
        ValueError: A line with `ray start` has an unclosed quote.
    """
    for line in lines:
        tokens = _tokens(line)
        for index in range(len(tokens) - 1):
            if tokens[index].endswith("ray") and tokens[index + 1] == "start":
                return StartCommand(_environment(tokens[:index]), _options(tokens[index + 2 :]))
    return None


def _tokens(line: str) -> list[str]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
    lexer.whitespace_split = True
    lexer.commenters = ""
    return list(lexer)


def _environment(tokens: list[str]) -> dict[str, str]:
    found = (_ASSIGNMENT.fullmatch(token) for token in tokens)
    return {match[1]: match[2] for match in found if match}


def _options(tokens: list[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    name = ""
    for token in tokens:
        if token in _SEPARATORS and "$(" not in options.get(name, ""):
            break
        if token.startswith("--"):
            name, _, options[name] = token.partition("=")
        elif name and not options[name] and not token.startswith("-"):
            options[name] = token
    return options
