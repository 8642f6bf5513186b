"""Log a run as TensorBoard files."""

# tensorboardX and Pillow's array interface carry no type information:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tensorboardX import SummaryWriter
from typing_extensions import override

from raysplit.tracking.base import Cell, Tracker

_FLUSH_SECONDS = 10


class TensorBoardTracker(Tracker):
    """Writes event files into a folder; a resumed run adds a file to it."""

    def __init__(self, folder: Path) -> None:
        # The suffix keeps a resumed run from writing the file of the same second.
        self._writer = SummaryWriter(
            logdir=str(folder), flush_secs=_FLUSH_SECONDS, filename_suffix=f".{uuid.uuid4().hex}"
        )

    @override
    def log_config(self, config: Mapping[str, object]) -> None:
        self._writer.add_text("config", f"```json\n{json.dumps(config, indent=2)}\n```")

    @override
    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    @override
    def log_figure(self, name: str, png: Path) -> None:
        with Image.open(png) as image:
            pixels_HWC = np.asarray(image.convert("RGB"))
        self._writer.add_image(name, pixels_HWC, dataformats="HWC")

    @override
    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        lines = [columns, ["---"] * len(columns), *rows]
        self._writer.add_text(
            name, "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
        )

    @override
    def log_artifact(self, path: Path, *, name: str, kind: str) -> None:
        self._writer.add_text(f"artifact/{name}", f"{kind}: `{path}`")

    @override
    def finish(self, *, failed: bool = False) -> None:
        if failed:
            self._writer.add_text("outcome", "failed")
        self._writer.close()
