"""Where our packages come from: `envs` and `tuning` are names that others use too."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from raysplit.base.errors import UserError

PACKAGES = ("raysplit", "envs", "tuning")


def package_homes() -> dict[str, Path | None]:
    """Return the folder that each package lies in; None for one that is missing."""
    homes: dict[str, Path | None] = {}
    for name in PACKAGES:
        spec = find_spec(name)
        places = spec.submodule_search_locations if spec else None
        homes[name] = Path(next(iter(places))).resolve().parent if places else None
    return homes


def refuse_foreign_packages() -> None:
    """Refuse to work with a stranger's `envs` or `tuning`.

    Raises:
        UserError: One lies before ours.
    """
    homes = package_homes()
    home = homes["raysplit"]
    for name, found in homes.items():
        if found != home:
            raise UserError(
                f"package '{name}' comes from {found}, not from {home}: another package of that "
                "name hides ours; remove it or use a fresh virtual environment"
            )
