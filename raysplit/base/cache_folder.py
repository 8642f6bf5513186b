"""Where raysplit keeps on this machine what it fetched or computed once."""

from __future__ import annotations

import os
from pathlib import Path

from raysplit.base.files import at_home


def cache_folder() -> Path:
    """Return $RAYSPLIT_CACHE, else raysplit's folder in $XDG_CACHE_HOME or ~/.cache."""
    if own := os.environ.get("RAYSPLIT_CACHE"):
        return at_home(Path(own))
    return at_home(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")) / "raysplit"
