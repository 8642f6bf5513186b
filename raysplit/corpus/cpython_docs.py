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
import sys
import sysconfig
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from raysplit.base.cache_folder import cache_folder
from raysplit.base.errors import UserError
from raysplit.base.files import sha256_of, sha256_of_file
from raysplit.base.sealed_json import read_sealed, write_sealed

HELD_OUT_PERCENT = 5
_MIN_CHARACTERS = 50
_MIN_LETTER_SHARE = 0.74  # letters and spaces; below it a paragraph is a table, a listing or code
_LETTERS = (string.ascii_letters + " ").encode()
_SKIPPED_FOLDERS = frozenset({"site-packages", "dist-packages", "test", "tests", "__pycache__"})
_OF_STATEMENTS = ("body", "handlers", "orelse", "finalbody", "cases")  # fields, in ast's own order
_MARKUP = re.compile(r":[a-z:]+:`~?([^`]*)`|[`*]{1,2}([^`*]+)[`*]{1,2}")


@functools.cache
def held_out_paragraphs() -> tuple[str, ...]:
    """Return the paragraphs that no embedded model was trained on, in the order of `paragraphs`.

    Parsing the whole library takes seconds. So they are kept in raysplit's cache folder, as long as
    the library's files and this module stay the same; where they cannot be, they are read anew.

    Raises:
        UserError: If this Python ships neither the topics nor the library's sources.
    """
    kept = cache_folder() / f"embedded-corpus-{_fingerprint()[:16]}.json"
    with contextlib.suppress(UserError, KeyError):
        return tuple(read_sealed(kept, "it is written again")["paragraphs"])
    found = tuple(p for p in paragraphs() if is_held_out(p))
    if kept.is_absolute():  # else no home folder is known, or the cache is where the command runs
        with contextlib.suppress(UserError, OSError):
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_sealed(kept, {"paragraphs": found})
    return found


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
    for path in _sources():
        yield from _docstrings(path)


def _fingerprint() -> str:
    """Hash what the paragraphs follow from: names, sizes and times of the library's files."""
    stats = [(str(path), path.stat()) for path in _sources()]
    files = [[path, stat.st_size, stat.st_mtime_ns] for path, stat in stats]
    return sha256_of([sys.version, sha256_of_file(Path(__file__)), files])


def _sources() -> list[Path]:
    found: list[Path] = []
    for folder, folders, files in os.walk(sysconfig.get_path("stdlib")):
        folders[:] = set(folders) - _SKIPPED_FOLDERS  # what they hold is not even looked at
        found += (Path(folder, name) for name in files if name.endswith(".py"))
    return sorted(path for path in found if path.is_file())  # not links to what is gone


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
