"""Take the shell lines with `ray start` apart: environment, options, and what cuts them off."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from raysplit.doctor.shell import Command, shell_commands

_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_REDIRECTION = re.compile(r"\d*&?[<>]")
_OPTION = re.compile(r"-[^\d]")
_PRINTERS = {"echo", "printf"}


@dataclass(frozen=True, slots=True)
class StartCommand:
    """One `ray start`.

    Attributes:
        environment: The variables that it sees: set before it in the same line, or exported.
        unexported: The variables set in statements of their own, which it does not see.
        options: Its options ("--port") with their values; "" for a flag. Those cut off are among
            them, so that one fault does not hide the others.
        cut_off: The first option after a line break or ";", where the shell does not see it as
            one; "" if none.
        is_alternative: Whether it runs only where an earlier one does not (`||`, `else`).
    """

    environment: dict[str, str]
    unexported: frozenset[str]
    options: dict[str, str]
    cut_off: str
    is_alternative: bool

    @property
    def port(self) -> str:
        """The port of the cluster's head that this command opens or calls; 6379 by default."""
        called = self.options.get("--address", "").rpartition(":")[2]
        return self.options.get("--port") or (called if called.isdigit() else "6379")


@dataclass(slots=True)
class _Variables:
    """The variables of one shell, and those that it hands on to the commands that it starts."""

    local: dict[str, str] = field(default_factory=dict[str, str])
    exported: dict[str, str] = field(default_factory=dict[str, str])

    def run(self, words: list[str]) -> None:
        """Take in a command that does nothing but set or export variables."""
        assigned = _assignments(words)
        if words[0] == "export":
            named = {name: self.local[name] for name in words[1:] if name in self.local}
            self.exported |= named | assigned
        elif len(assigned) == len(words):
            self.local |= assigned
            self.exported |= {name: v for name, v in assigned.items() if name in self.exported}


def start_commands(scripts: list[str]) -> list[StartCommand]:
    """Return every `ray start` in the scripts; each script has a shell of its own, as in Ray.

    Raises:
        ValueError: A script has an unclosed quote or parenthesis.
    """
    return [command for script in scripts for command in _of_script(script)]


def _of_script(script: str) -> Iterator[StartCommand]:
    commands = shell_commands(script)
    variables = _Variables()
    found = branched = False
    for index, command in enumerate(commands):
        words = command.words
        branched |= found and ("||" in command.before or words[0] == "else")
        variables.run(words)
        start = _ray_start(words)
        if start is None:
            continue
        environment = variables.exported | _assignments(words[:start])
        lost = _lost_words(commands[index + 1 :])
        yield StartCommand(
            environment=environment,
            unexported=frozenset(variables.local.keys() - environment.keys()),
            options=_options(words[start + 2 :] + lost),
            cut_off=lost[0] if lost else "",
            is_alternative=branched,
        )
        found = True


def _lost_words(following: list[Command]) -> list[str]:
    """Return the words of the next commands as long as they are options and no commands."""
    options = itertools.takewhile(lambda command: _OPTION.match(command.words[0]), following)
    return [word for command in options for word in command.words]


def _ray_start(words: list[str]) -> int | None:
    """Return where `ray start` stands among the words, whatever runs it (env, sudo, then)."""
    if words[0] in _PRINTERS:
        return None
    for index in range(len(words) - 1):
        if PurePosixPath(words[index]).name == "ray" and words[index + 1] == "start":
            return index
    return None


def _assignments(words: list[str]) -> dict[str, str]:
    found = (_ASSIGNMENT.fullmatch(word) for word in words)
    return {match[1]: match[2] for match in found if match}


def _options(words: list[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    name = ""
    for word in words:
        if _REDIRECTION.match(word):
            break
        if _OPTION.match(word):
            name, _, options[name] = word.partition("=")
        elif name and not options[name]:
            options[name] = word
    return options
