"""Split a shell script into its commands, as far as cluster files need it: no shell is run."""

from __future__ import annotations

import re
from dataclasses import dataclass

_PIECE = re.compile(
    r"""
      (?P<space> \\\n | [^\S\n]+ )
    | (?P<comment> (?<![^\s;&|()]) \#[^\n]* )
    | (?P<plain> &?>[>&|]? | <[<&]? )                # redirections: their & ends no command
    | (?P<end> [;&|\n()]+ )
    | (?P<single> '[^']*' )
    | (?P<double> "(?:\\.|[^"\\])*" )
    | (?P<substitution> \$\((?:'[^']*'|"[^"]*"|\([^()]*\)|[^()'"])*\) | `[^`]*` )
    | (?P<unclosed> ['"`] | \$\( )
    | (?P<escape> \\. )
    | (?P<rest> [^\s;&|()<>'"`\\$]+ | . )
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Command:
    r"""One command of a script.

    Attributes:
        before: What separates it from the command before: ";", "&&", "\n", "||(" and the like.
        words: Its words without quotes; a `$` that the shell leaves alone stands as `\$`.
    """

    before: str
    words: list[str]


def shell_commands(script: str) -> list[Command]:
    """Return the commands of the script.

    Raises:
        ValueError: A quote or a `$(` is not closed.
    """
    commands = [Command("", [])]
    in_word = False
    for piece in _PIECE.finditer(script):
        kind, text = str(piece.lastgroup), piece[0]
        if kind == "unclosed":
            raise ValueError("no closing parenthesis" if text == "$(" else "no closing quotation")
        if kind == "end":
            # Separators that follow each other, as in `|| (`, make no command between them.
            before = "" if commands[-1].words else commands.pop().before
            commands.append(Command(before + text, []))
        elif kind not in ("space", "comment"):
            words = commands[-1].words
            if not in_word:
                words.append("")
            words[-1] += _unquoted(kind, text)
        in_word = kind not in ("end", "space", "comment")
    return commands if commands[-1].words else commands[:-1]


def _unquoted(kind: str, text: str) -> str:
    if kind == "single":
        return text[1:-1].replace("$", r"\$")
    if kind == "double":
        return re.sub(r'\\(["\\`])', r"\1", text[1:-1])
    return text[1:] if kind == "escape" and text != r"\$" else text
