"""English prose that every CPython carries: the language reference and the library's docstrings.

The embedded model is trained on one part of these paragraphs and measured on the other. A hash of
the paragraph's own text decides which part it belongs to, so the decision is the same on every
machine and for every Python version, and no held-out paragraph was ever trained on.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import inspect
import os
import re
import string
import sysconfig
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from raysplit.base.errors import UserError

HELD_OUT_PERCENT = 5
_MIN_CHARACTERS = 50
_MIN_LETTER_SHARE = 0.74  # letters and spaces; below it a paragraph is a table, a listing or code
_LETTERS = (string.ascii_letters + " ").encode()
_SKIPPED_FOLDERS = frozenset({"site-packages", "dist-packages", "test", "tests", "__pycache__"})
_OF_STATEMENTS = ("body", "handlers", "orelse", "finalbody", "cases")  # fields, in ast's own order
_MARKUP = re.compile(r":[a-z:]+:`~?([^`]*)`|[`*]{1,2}([^`*]+)[`*]{1,2}")


@functools.cache  # reading the whole library takes seconds, and two stages ask for it
def paragraphs() -> tuple[str, ...]:
    """Return every distinct prose paragraph, white space collapsed, in a stable order.

    Raises:
        UserError: If this Python ships neither the topics nor the library's sources.
    """
    found = dict.fromkeys(p for text in _texts() for p in _prose(text))  # a dict keeps the order
    if not found:
        raise UserError(
            "This Python carries no library sources, so the embedded corpus is empty: "
            "install the full standard library, or set corpus.source to 'wikitext-2' or 'file'."
        )
    return tuple(found)


def is_held_out(paragraph: str) -> bool:
    """Tell whether a paragraph belongs to the held-out part (never trained on)."""
    digest = hashlib.sha256(paragraph.encode()).digest()
    return int.from_bytes(digest[:8], "big") % 100 < HELD_OUT_PERCENT


def _texts() -> Iterator[str]:
    with contextlib.suppress(ModuleNotFoundError):  # some distributions leave it out
        from pydoc_data import topics

        yield from topics.topics.values()
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(_sources(library)):
        yield from _docstrings(path)


def _sources(library: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(library):
        folders[:] = set(folders) - _SKIPPED_FOLDERS  # what they hold is not even looked at
        yield from (Path(folder, name) for name in files if name.endswith(".py"))


def _docstrings(path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):
        return  # lib2to3 and friends keep deliberately broken files
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in _walk_statements(tree):
        if isinstance(node, documented) and (text := ast.get_docstring(node)):
            yield text


def _walk_statements(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield what holds statements in the order of `ast.walk`, which looks at expressions as well.

    Those are nine nodes of ten and hold no docstring.
    """
    waiting: deque[ast.AST] = deque([tree])
    while waiting:
        node = waiting.popleft()
        yield node
        for field in _OF_STATEMENTS:
            waiting.extend(getattr(node, field, ()))


def _prose(text: str) -> Iterator[str]:
    for block in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        paragraph = _MARKUP.sub(r"\1\2", " ".join(block.split()))
        if len(paragraph) >= _MIN_CHARACTERS and ">>>" not in paragraph and _is_prose(paragraph):
            yield paragraph


def _is_prose(paragraph: str) -> bool:
    if not paragraph.isascii():
        return False
    others = paragraph.encode().translate(None, delete=_LETTERS)
    return len(paragraph) - len(others) >= _MIN_LETTER_SHARE * len(paragraph)
