"""Where a model lies: a folder here, or an id on the Hugging Face hub. Light: no torch."""

from __future__ import annotations

from pathlib import Path

from raysplit.base.errors import UserError
from raysplit.base.files import at_home


def local_folder(location: str) -> Path | None:
    """Return the folder that a location names, or None where it is an id such as "org/name".

    Raises:
        UserError: It is neither.
    """
    folder = at_home(Path(location))
    if folder.is_dir():
        return folder
    if location.count("/") != 1 or location.startswith((".", "/", "~")):
        raise UserError(f"{location!r}: no such folder, and not a Hugging Face id like 'org/name'")
    return None
