"""The installed software: versions against constraints.txt, and where our packages lie."""

from __future__ import annotations

import importlib.util
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from raysplit.doctor.check import Check

_PACKAGES = ("raysplit", "envs", "tuning")


def installed_version(distribution: str) -> str:
    """Return the installed version, or "" where the distribution is absent."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def constraints_file() -> Path:
    """Return where constraints.txt lies in a checkout: beside the package folders."""
    return Path(__file__).resolve().parents[2] / "constraints.txt"


def read_constraints(path: Path) -> dict[str, Requirement]:
    """Return the requirements that apply to this interpreter, by name; {} for a missing file."""
    if not path.is_file():
        return {}
    requirements: dict[str, Requirement] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            requirement = Requirement(line.partition(" #")[0].strip())
        except InvalidRequirement:  # comments, blank lines, pip options
            continue
        if requirement.marker is None or requirement.marker.evaluate():
            requirements[requirement.name] = requirement
    return requirements


def pinned_ray_version(constraints: dict[str, Requirement]) -> str:
    """Return the Ray that cluster images must have: the pinned one, else the installed one."""
    pins = [s.version for s in constraints["ray"].specifier] if "ray" in constraints else []
    return pins[0] if pins else installed_version("ray")


def check_versions(path: Path) -> list[Check]:
    """Return one row for each installed distribution that differs from its constraint.

    A different Ray is an error, as nodes of a cluster refuse each other; the rest are warnings.
    """
    constraints = read_constraints(path)
    if not constraints:
        return [
            Check(
                "versions",
                "warning",
                f"{path} is missing or empty: nothing to compare with",
                "work in a checkout of the project, or pass on its constraints.txt",
            )
        ]
    found = {name: installed_version(name) for name in constraints}
    differing = [
        Check(
            f"version: {name}",
            "error" if name == "ray" else "warning",
            f"{found[name]} is installed, {requirement.specifier} is pinned",
            f"pip install -c {path.name} '{name}{requirement.specifier}'",
        )
        for name, requirement in constraints.items()
        if found[name] and not requirement.specifier.contains(found[name], prereleases=True)
    ]
    if differing:
        return differing
    compared = sum(bool(version) for version in found.values())
    return [Check("versions", "ok", f"{compared} installed packages match {path.name}")]


def check_packages() -> Check:
    """Return whether raysplit, envs and tuning are one project and not a stranger's `envs`."""
    parents = {name: _parent_folder(name) for name in _PACKAGES}
    if len(set(parents.values())) == 1:
        return Check("packages", "ok", f"raysplit, envs and tuning lie in {parents['raysplit']}")
    listed = ", ".join(f"{name} in {parent or 'none'}" for name, parent in parents.items())
    return Check(
        "packages",
        "error",
        f"not from one project: {listed}",
        "uninstall the foreign package, or run in the project's folder",
    )


def _parent_folder(package: str) -> Path | None:
    """Return the folder that holds the package, without importing it."""
    spec = importlib.util.find_spec(package)
    places = list(spec.submodule_search_locations or ()) if spec else []
    return Path(places[0]).resolve().parent if places else None
