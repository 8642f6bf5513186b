"""The base of every configuration section: frozen, and unknown keys are refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

_LONGEST_NAME = 64


class Config(BaseModel):
    """A frozen section of an experiment; each room defines its own beside what reads it."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False
    )


def check_name(name: str) -> str:
    """Return a name that the user chose, fit for a folder, a key and a figure's legend.

    Raises:
        ValueError: It is none.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) or len(name) > _LONGEST_NAME:
        raise ValueError(
            f"{name!r} is no name: take up to {_LONGEST_NAME} letters, digits, '.', '_' and '-', "
            "a letter or digit first"
        )
    return name


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError(f"no home folder is known for {path.parts[0]}: write it out") from None


UserPath = Annotated[Path, AfterValidator(_expanded)]
"""A path that the user wrote: `~` is the home folder."""
