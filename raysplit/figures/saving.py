"""Write a figure to disk; the same figure gives the same bytes."""

# matplotlib leaves keyword arguments without a type:
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from raysplit.base.files import replacing
from raysplit.figures.style import styled

# What a format writes about itself: no dates, so that files can be compared.
_METADATA: dict[str, dict[str, str | None]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None},
    "svg": {"Date": None},
}


@styled
def save(figure: Figure, folder: Path, name: str) -> dict[str, Path]:
    """Write NAME.png (150 dpi), NAME.pdf and NAME.svg; return the paths by format.

    Letters in the SVG are outlines, so no font is needed to show it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = {kind: folder / f"{name}.{kind}" for kind in _METADATA}
    # Lay the figure out once instead of once a format: it takes longer than writing.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for kind, path in paths.items():
        with replacing(path) as new:
            figure.savefig(new, format=kind, dpi=150, metadata=_METADATA[kind])
    return paths
