"""How the project gets installed on the nodes, with our Ray."""

from __future__ import annotations

import re
from collections.abc import Iterator

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from raysplit.doctor.check import Finding, error, warning
from raysplit.doctor.file_rules import is_within
from raysplit.doctor.yaml_file import Section, node_types, section, strings

# What the build reads, see pyproject.toml.
_PROJECT_PARTS = ("pyproject.toml", "README.md", "LICENSE", "raysplit", "envs", "tuning")
_HOME_PATH = re.compile(r"~/[\w./-]+")
_COMMAND_KEYS = (
    "initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands",
)  # fmt: skip
# ray==2.59.0, ray[default]>=2.4,<3; and a wheel: .../ray-3.0.0.dev0-cp311-cp311-linux.whl
_VERSION = r"(?:===|[=~!<>]=|[<>])\s*\d[\w.*+]*"
_RAY_PIN = re.compile(rf"(?<![\w./-])ray(?:\[[^\]]*\])?\s*({_VERSION}(?:\s*,\s*{_VERSION})*)")
_RAY_WHEEL = re.compile(r"(?<![\w.-])ray-([\w.+]+)-[\w.-]+\.whl")


def setup_findings(config: Section, ray_version: str) -> Iterator[Finding]:
    """Yield faults of the setup commands; `ray_version` is the one the project is pinned to."""
    yield from _other_ray(config, ray_version)
    commands = strings(config, "setup_commands")
    text = "\n".join(commands)
    if not commands:
        yield error(
            "setup_commands is missing: no node has raysplit, and on AWS Ray's default installs"
            " a nightly",
            "write setup_commands as in the shipped file",
        )
        return
    if "pip install" not in text:
        yield error("setup_commands installs nothing", "add the pip install of the shipped file")
    elif "constraints.txt" not in text:
        yield warning(
            "setup_commands installs without constraints.txt: versions differ from yours",
            "write pip install -c ~/raysplit/constraints.txt -e ~/raysplit",
        )
    if "RAY_AUTH_MODE" not in text:
        yield warning(
            "setup_commands sets no RAY_AUTH_MODE for logins: `ray exec` is refused (InvalidToken)",
            "write the line with ~/.bashrc of the shipped file",
        )
    mounts = [str(remote).rstrip("/") for remote in section(config, "file_mounts")]
    for command in commands:
        if "pip install" in command:
            yield from _unmounted(command.split("pip install", 1)[1], mounts)


def _unmounted(arguments: str, mounts: list[str]) -> Iterator[Finding]:
    for path in _HOME_PATH.findall(arguments):
        if not any(is_within(path, mount) or is_within(mount, path) for mount in mounts):
            yield error(f"setup_commands uses {path}, which no file mount brings", "add it")
    project = re.search(r"-e (~/[\w./-]+)", arguments)
    if project and not any(is_within(project[1], mount) for mount in mounts):
        for part in _PROJECT_PARTS:
            if f"{project[1]}/{part}" not in mounts:
                yield error(
                    f"{part} is missing in {project[1]}, so the project cannot be installed",
                    f'add "{project[1]}/{part}": {part} to file_mounts',
                )


def _other_ray(config: Section, ray_version: str) -> Iterator[Finding]:
    """Yield commands that install another Ray, which the other nodes would refuse."""
    for place in (config, *node_types(config).values()):
        for key in _COMMAND_KEYS:
            text = "\n".join(strings(place, key))
            pins = [pin for pin in _RAY_PIN.findall(text) if not _allows(pin, ray_version)]
            pins += [wheel for wheel in _RAY_WHEEL.findall(text) if wheel != ray_version]
            for pin in pins:
                yield error(
                    f"{key} installs Ray {pin}, the project is pinned to {ray_version}",
                    f"remove it, or write ray=={ray_version}",
                )


def _allows(pin: str, version: str) -> bool:
    try:
        return SpecifierSet(pin).contains(version, prereleases=True)
    except InvalidSpecifier:
        return False
