"""What travels to the nodes: the project, Ray's token, and no other secret."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from raysplit.doctor.check import Finding, error, warning
from raysplit.doctor.start_command import parse_start_command
from raysplit.doctor.yaml_file import Section, section, strings

TOKEN = "~/.ray/auth_token"
# What the build reads, see pyproject.toml.
_PROJECT_PARTS = ("pyproject.toml", "README.md", "LICENSE", "raysplit", "envs", "tuning")
_HOME_PATH = re.compile(r"~/[\w./-]+")
_SECRETS = {
    "an AWS access key": re.compile(r"\b(AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a Hugging Face token": re.compile(r"\bhf_[A-Za-z0-9]{20,}"),
    "Ray's token": re.compile(r"RAY_AUTH_TOKEN=(?!\$)\S+"),
    "a W&B key": re.compile(r"WANDB_API_KEY=(?!\$)\S+"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
}


def secret_findings(text: str) -> Iterator[Finding]:
    """Yield the kinds of secrets written into the file itself; never the secret."""
    for kind, pattern in _SECRETS.items():
        if pattern.search(text):
            yield error(f"{kind} is written in the file", "take it out and revoke it")


def token_findings(config: Section) -> Iterator[Finding]:
    """Yield a fault where no file mount brings the token that RAY_AUTH_MODE=token asks for."""
    wanted = _token_path(config)
    mounts = {str(remote).rstrip("/") for remote in section(config, "file_mounts")}
    if not any(_within(wanted, mount) for mount in mounts):
        yield error(
            f"no file mount brings {wanted}: the launcher does not carry Ray's token",
            f'add "{TOKEN}": "{TOKEN}" to file_mounts',
        )


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


def _token_path(config: Section) -> str:
    try:
        head = parse_start_command(strings(config, "head_start_ray_commands"))
    except ValueError:  # reported with the start commands
        head = None
    return head.environment.get("RAY_AUTH_TOKEN_PATH", TOKEN) if head else TOKEN


def mount_findings(config: Section) -> Iterator[Finding]:
    """Yield local paths of file mounts that do not exist (relative ones: in the current folder)."""
    for remote, local in section(config, "file_mounts").items():
        path = Path(str(local)).expanduser()
        if path.exists():
            continue
        if str(local) == TOKEN:
            yield warning(
                f"{TOKEN} does not exist here", "run `ray get-auth-token --generate > /dev/null`"
            )
        elif path.is_absolute():
            yield error(f"{local}, wanted at {remote}, does not exist here", "correct the path")
        else:
            yield error(
                f"{local}, wanted at {remote}, is not in the current folder",
                "run the doctor and `ray up` in the folder of the cluster file",
            )


def setup_findings(config: Section) -> Iterator[Finding]:
    """Yield faults of how the project gets installed on the nodes."""
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
        if not any(_within(path, mount) or _within(mount, path) for mount in mounts):
            yield error(f"setup_commands uses {path}, which no file mount brings", "add it")
    project = re.search(r"-e (~/[\w./-]+)", arguments)
    if project and not any(_within(project[1], mount) for mount in mounts):
        for part in _PROJECT_PARTS:
            if f"{project[1]}/{part}" not in mounts:
                yield error(
                    f"{part} is missing in {project[1]}, so the project cannot be installed",
                    f'add "{project[1]}/{part}": {part} to file_mounts',
                )
