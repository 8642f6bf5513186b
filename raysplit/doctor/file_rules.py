"""What the file mounts bring to the nodes: Ray's token, and only what exists here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from raysplit.doctor.check import Finding, error, warning
from raysplit.doctor.start_command import start_commands
from raysplit.doctor.yaml_file import Section, section, strings

TOKEN = "~/.ray/auth_token"


def token_findings(config: Section) -> Iterator[Finding]:
    """Yield a fault where no file mount brings the token that RAY_AUTH_MODE=token asks for."""
    wanted = _token_path(config)
    mounts = {str(remote).rstrip("/") for remote in section(config, "file_mounts")}
    if not any(is_within(wanted, mount) for mount in mounts):
        yield error(
            f"no file mount brings {wanted}: the launcher does not carry Ray's token",
            f'add "{TOKEN}": "{TOKEN}" to file_mounts',
        )


def is_within(path: str, folder: str) -> bool:
    """Return whether a remote path is the folder or lies in it."""
    return path == folder or path.startswith(f"{folder}/")


def _token_path(config: Section) -> str:
    try:
        heads = start_commands(strings(config, "head_start_ray_commands"))
    except ValueError:  # reported with the start commands
        heads = []
    return heads[0].environment.get("RAY_AUTH_TOKEN_PATH", TOKEN) if heads else TOKEN


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
