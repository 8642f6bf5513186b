"""What may be changed in a module: mutmut's operators, applied one at a time.

Never changed, since no test is about it: docstrings, annotations, decorators, `__all__`, `len` and
`isinstance`, and the texts of errors (`raise` statements and calls of `...Error`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.mutators import mutation_operators

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change: the module's source with it, the lines that it concerns, and their texts.

    `on_import` tells that the changed line runs on import, so every test may depend on it.
    """

    source: str
    lines: range
    before: str
    after: str
    on_import: bool

    def is_in(self, entries: list[dict[str, Any]]) -> dict[str, Any] | None:
        """Return the entry of a report, or of the equivalent changes, that is this change."""
        same = (e for e in entries if (e["before"], e["after"]) == (self.before, self.after))
        return next(same, None)


def mutants(module: str) -> list[Mutant]:
    """Return every change of a module that could matter."""
    source = path_of(module).read_text()
    wrapper = MetadataWrapper(cst.parse_module(source))
    positions = wrapper.resolve(PositionProvider)
    parts = [wrapper.module.code_for_node(top) for top in wrapper.module.body]
    start, end = source.split("".join(parts))
    found: dict[str, Mutant] = {}
    for n, top in enumerate(wrapper.module.body):
        for node, statement, on_import in _nodes(top, top, True):
            operators = [make for kind, make in mutation_operators if isinstance(node, kind)]
            for new in (new for make in operators for new in make(node)):
                part = wrapper.module.code_for_node(top.deep_replace(node, new))
                changed = "".join([start, *parts[:n], part, *parts[n + 1 :], end])
                whole = statement if isinstance(statement, cst.SimpleStatementLine) else node
                lines = range(positions[statement].start.line, positions[whole].end.line + 1)
                with suppress(SyntaxError):
                    compile(changed, module, "exec", dont_inherit=True)
                    texts = _difference(source, changed)
                    found[changed] = Mutant(changed, lines, *texts, on_import)
    found.pop(source, None)
    return list(found.values())


def _nodes(
    node: cst.CSTNode, statement: cst.CSTNode, on_import: bool
) -> Iterator[tuple[cst.CSTNode, cst.CSTNode, bool]]:
    """Yield what may be changed, the statement around it, and whether that runs on import."""
    match node:
        case cst.Raise() | cst.Annotation() | cst.Decorator():
            return
        case cst.Call(func=cst.Name(value=name)) if name.endswith(("Error", "len", "isinstance")):
            return
        case cst.Assign(targets=[cst.AssignTarget(target=cst.Name(value="__all__"))]):
            return
        case cst.SimpleStatementLine() | cst.BaseCompoundStatement():
            statement = node
        case _:
            pass
    yield node, statement, on_import
    for child in node.children:
        in_body = isinstance(node, cst.FunctionDef) and child is node.body
        yield from _nodes(child, statement, on_import and not in_body)


def path_of(module: str) -> Path:
    """Return the file of a module."""
    return ROOT / (module.replace(".", "/") + ".py")


def _difference(source: str, changed: str) -> tuple[str, str]:
    """Return the changed lines before and after, without their indentation."""
    old, new = source.splitlines(), changed.splitlines()
    for end in (0, -1):
        while old and new and old[end] == new[end]:
            del old[end], new[end]
    return " ".join(map(str.strip, old)), " ".join(map(str.strip, new))
