"""JSON files that hold the hash of their own content, so that a change or a cut is noticed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from raysplit.base.errors import UserError
from raysplit.base.files import sha256_of, write_atomically

SEAL = "content_sha256"


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object and the hash of its content.

    Raises:
        UserError: If the disk is full or the folder cannot be written.
    """
    # Without a line break at the end: then no byte can be cut off without a trace.
    write_atomically(path, json.dumps({**content, SEAL: sha256_of(content)}, indent=1))


def read_sealed(path: Path, remedy: str) -> dict[str, Any]:
    """Return the content of a file that `write_sealed` wrote.

    Args:
        path: The file.
        remedy: What to do where it is damaged; ends the message.

    Raises:
        UserError: If the file is missing, cannot be read, or was changed.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} is missing or unreadable; {remedy}") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged: it is no JSON any more; {remedy}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: it holds no JSON object; {remedy}")
    sealed = cast(dict[str, Any], content)
    if sealed.pop(SEAL, None) != sha256_of(sealed):
        raise UserError(f"{path} was changed after it was saved; {remedy}")
    return sealed
