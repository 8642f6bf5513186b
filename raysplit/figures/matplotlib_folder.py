"""Where matplotlib keeps its list of fonts."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from raysplit.base.errors import UserError
from raysplit.base.files import refuse_unwritable

_VARIABLE = "MPLCONFIGDIR"


def give_matplotlib_a_folder() -> None:
    """Set MPLCONFIGDIR to a temporary folder where matplotlib's own places are closed.

    Else it prints lines about them, as it is imported, in every process. A folder that the user has
    set stays, and so do the usual ones where they can be written.
    """
    if os.environ.get(_VARIABLE) or _usual_places_are_open():
        return
    folder = tempfile.mkdtemp(prefix="matplotlib-")
    os.environ[_VARIABLE] = folder
    atexit.register(shutil.rmtree, folder, ignore_errors=True)


def _usual_places_are_open() -> bool:
    given = {"XDG_CONFIG_HOME": ".config", "XDG_CACHE_HOME": ".cache"}
    try:
        for variable, name in given.items():
            base = os.environ.get(variable)
            refuse_unwritable((Path(base) if base else Path.home() / name) / "matplotlib")
    except (UserError, RuntimeError):  # closed; no home at all
        return False
    return True
