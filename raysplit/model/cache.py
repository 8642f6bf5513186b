"""Where imported models lie on this machine: one folder a model, by name. Light: no torch."""

from __future__ import annotations

import os
from pathlib import Path

from raysplit.base.files import at_home

CARD_FILE = "import.json"
"""What an imported folder says about its source; see `raysplit.model.importing`."""


def cache_folder() -> Path:
    """Return $RAYSPLIT_CACHE, else raysplit's folder in $XDG_CACHE_HOME or ~/.cache."""
    if own := os.environ.get("RAYSPLIT_CACHE"):
        return at_home(Path(own))
    return at_home(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")) / "raysplit"


def model_folder(name: str) -> Path:
    """Return where a model of this name lies once it is imported; names ignore case."""
    return cache_folder() / "models" / name.lower()


def imported_models() -> list[str]:
    """Return the names of the models that lie in the cache, sorted."""
    return sorted(card.parent.name for card in (cache_folder() / "models").glob(f"*/{CARD_FILE}"))
