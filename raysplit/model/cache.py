"""Where imported models lie on this machine: one folder a model, by name. Light: no torch."""

from __future__ import annotations

from pathlib import Path

from raysplit.base.cache_folder import cache_folder

CARD_FILE = "import.json"
"""What an imported folder says about its source; see `raysplit.model.importing`."""


def model_folder(name: str) -> Path:
    """Return where a model of this name lies once it is imported; names ignore case."""
    return cache_folder() / "models" / name.lower()


def imported_models() -> list[str]:
    """Return the names of the models that lie in the cache, sorted."""
    return sorted(card.parent.name for card in (cache_folder() / "models").glob(f"*/{CARD_FILE}"))
