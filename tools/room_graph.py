"""Draw the rooms and their imports from the real import graph: docs/figures/rooms.svg.

    python -m tools.room_graph             # draw
    python -m tools.room_graph --check     # exit code 1 where the committed picture is not this one

Floors are the layers of the import contract in pyproject.toml; a room is one entry of it. The last
line of a box names all that the room imports; arrows are drawn where no longer way exists, and none
to the ground, which carries all. Rooms that learning (`tuning`) does not need stand on the right.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
import textwrap
import tomllib
from html import escape
from importlib.util import find_spec
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "figures" / "rooms.svg"
WIDTH, LEFT_WIDTH, FLOOR, BOX_HEIGHT, MARGIN, GAP = 1240, 720, 122, 84, 16, 14
WIDEST_BOX, CHARACTER_WIDTH, LINES = 320, 5.9, 3  # pixels, pixels, lines of small text
BESIDE_WHAT_NEEDS_NO = "tuning"

Edges = set[tuple[str, str]]


def floors() -> list[list[str]]:
    """Return the rooms of each floor, the top one first."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = next(c["layers"] for c in contracts["contracts"] if c["type"] == "layers")
    return [re.split(r"\s*[|:]\s*", layer) for layer in layers]


def imports_between(rooms: list[str]) -> Edges:
    """Return every pair (importer, imported) of different rooms.

    Raises:
        SystemExit: A package lies in no room, so that the contract does not cover it.
    """
    graph = grimp.build_graph("raysplit", "envs", "tuning")
    outside = {
        name for name in graph.modules if _room_of(name, rooms) is None and name != "raysplit"
    }
    if outside:
        sys.exit(f"in no layer of pyproject.toml's import contract: {', '.join(sorted(outside))}")
    edges = {
        (_room_of(importer, rooms), _room_of(imported, rooms))
        for importer in graph.modules
        for imported in graph.find_modules_directly_imported_by(importer)
    }
    return {(a, b) for a, b in edges if a and b and a != b}


def reachable(start: str, edges: Edges) -> set[str]:
    """Return the rooms that a room needs, directly or not; there are no circles."""
    steps = {b for a, b in edges if a == start}
    return steps.union(*(reachable(step, edges) for step in steps))


def without_shortcuts(edges: Edges) -> Edges:
    """Return the edges whose end cannot be reached by way of a third room."""
    needs = {room: reachable(room, edges) for edge in edges for room in edge}
    return {(a, b) for a, b in edges if not any(b in needs[c] for start, c in edges if start == a)}


def picture(levels: list[list[str]], edges: Edges) -> str:
    """Return the picture as SVG text, the same for the same graph."""
    learning = BESIDE_WHAT_NEEDS_NO
    beside = {room for edge in edges for room in edge} - reachable(learning, edges)
    beside -= {room for room in beside if learning in {room, *reachable(room, edges)}}
    boxes: dict[str, tuple[float, float, float]] = {}  # left, top, width
    for level, rooms in enumerate(levels):
        top = MARGIN + level * FLOOR
        left = [room for room in rooms if room not in beside]
        boxes |= _row(left, MARGIN, LEFT_WIDTH - MARGIN, top)
        boxes |= _row([r for r in rooms if r in beside], LEFT_WIDTH + GAP, WIDTH - MARGIN, top)
    ground = levels[-1][-1]
    boxes[ground] = (MARGIN, boxes[ground][1], WIDTH - 2 * MARGIN)  # below all that stands on it
    arrows = sorted((a, b) for a, b in without_shortcuts(edges) if b != ground)
    imports = {room: sorted(b for a, b in edges if a == room) for room in boxes}
    height = MARGIN + (len(levels) - 1) * FLOOR + BOX_HEIGHT + MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            f'width="{WIDTH}" height="{height}" font-family="Helvetica, Arial, sans-serif">',
            f"<title>{len(boxes)} rooms, {len(edges)} arrows between them, all downwards</title>",
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" '
            'markerHeight="6" orient="auto"><path d="M0 0L8 4L0 8z" fill="#44546a"/>'
            "</marker></defs>",
            f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
            *(_arrow(boxes[a], boxes[b]) for a, b in arrows),
            *(_box(room, imports[room], *place) for room, place in boxes.items()),
            "</svg>\n",
        ]
    )


def _row(
    rooms: list[str], left: float, right: float, top: float
) -> dict[str, tuple[float, float, float]]:
    if not rooms:
        return {}
    width = min(WIDEST_BOX, (right - left - GAP * (len(rooms) - 1)) / len(rooms))
    start = (left + right - width * len(rooms) - GAP * (len(rooms) - 1)) / 2
    return {room: (start + i * (width + GAP), top, width) for i, room in enumerate(rooms)}


def _room_of(module: str, rooms: list[str]) -> str | None:
    return next((r for r in rooms if module == r or module.startswith(r + ".")), None)


def _purpose(room: str) -> str:
    """The first paragraph of a room's docstring."""
    spec = find_spec(room)
    assert spec is not None
    assert spec.origin is not None
    text = ast.get_docstring(ast.parse(Path(spec.origin).read_text())) or ""
    return " ".join(text.partition("\n\n")[0].split()).rstrip(".")


def _box(room: str, imports: list[str], left: float, top: float, width: float) -> str:
    columns, middle = int((width - 12) / CHARACTER_WIDTH), left + width / 2
    named = ", ".join(map(_short, imports))
    below = textwrap.wrap(f"imports {named}" if named else "imports no other room", columns)
    above = textwrap.wrap(
        _purpose(room), columns, max_lines=LINES - len(below) + 1, placeholder=" …"
    )
    lines = [(line, "#44546a") for line in above] + [(line, "#8593a6") for line in below]
    words = "".join(
        f'<text x="{middle:.0f}" y="{top + 33 + 13 * i:.0f}" font-size="11" fill="{colour}" '
        f'text-anchor="middle">{escape(line)}</text>'
        for i, (line, colour) in enumerate(lines)
    )
    return (
        f'<rect x="{left:.0f}" y="{top:.0f}" width="{width:.0f}" height="{BOX_HEIGHT}" rx="7" '
        f'fill="#eef3fa" stroke="#44546a"/><text x="{middle:.0f}" y="{top + 18:.0f}" '
        f'font-size="14" font-weight="bold" fill="#16243a" text-anchor="middle">'
        f"{escape(_short(room))}</text>{words}"
    )


def _short(room: str) -> str:
    return room.removeprefix("raysplit.")


def _arrow(source: tuple[float, float, float], target: tuple[float, float, float]) -> str:
    x1, y1 = source[0] + source[2] / 2, source[1] + BOX_HEIGHT
    x2, y2 = target[0] + target[2] / 2, target[1]
    bend = (y2 - y1) / 2
    return (
        f'<path d="M{x1:.0f} {y1:.0f}C{x1:.0f} {y1 + bend:.0f} {x2:.0f} {y2 - bend:.0f} '
        f'{x2:.0f} {y2:.0f}" fill="none" stroke="#44546a" stroke-width="1.4" '
        'marker-end="url(#tip)"/>'
    )


def main() -> None:
    """Draw, or compare with what is committed."""
    parser = argparse.ArgumentParser(description="The rooms and their imports as a picture.")
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    check: bool = parser.parse_args().check
    levels = floors()
    drawn = picture(levels, imports_between([room for level in levels for room in level]))
    if not check:
        PICTURE.write_text(drawn, encoding="utf-8")
    elif not PICTURE.exists() or PICTURE.read_text(encoding="utf-8") != drawn:
        sys.exit(
            f"{PICTURE.relative_to(ROOT)} is not what the imports are now: "
            ".venv/bin/python -m tools.room_graph draws it"
        )


if __name__ == "__main__":
    main()
