"""Check one cluster file of `ray up`: Ray's own schema, and what it lets pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from raysplit.base.errors import UserError
from raysplit.doctor import aws_rules, file_rules, limit_rules, local_rules
from raysplit.doctor.check import Check, Finding, error
from raysplit.doctor.image_rules import image_findings
from raysplit.doctor.network_rules import provider_findings
from raysplit.doctor.ray_schema import schema_findings
from raysplit.doctor.secret_rules import secret_findings, without_secrets
from raysplit.doctor.setup_rules import setup_findings
from raysplit.doctor.shape_rules import name_findings, shape_findings
from raysplit.doctor.start_rules import start_findings
from raysplit.doctor.yaml_file import Section, read_yaml, section


def check_cluster_file(path: Path, ray_version: str) -> list[Check]:
    """Return one row for each group of rules that holds, and one for each fault found.

    Args:
        path: The YAML file; relative paths inside it count from the current folder, as in `ray up`.
        ray_version: The version of Ray that the project is pinned to, e.g. "2.60.0".
    """
    try:
        config = read_yaml(path)
    except UserError as reason:
        return _rows(path, "file", [error(str(reason), "correct the file")], "")
    rows = [_rows(path, *group) for group in _groups(config, path, ray_version)]
    return [row for group in rows for row in group]


def _groups(
    config: Section, path: Path, ray_version: str
) -> Iterator[tuple[str, Iterable[Finding], str]]:
    """Yield (name of the group, its findings, what an ok row says)."""
    provider = section(config, "provider").get("type")
    yield "schema", _schema_findings(config), "Ray's own validation passes"
    yield "keys", limit_rules.dropped_key_findings(config), "no key is dropped silently"
    if provider != "local" or section(config, "docker"):
        yield "images", image_findings(config, ray_version), f"pinned to Ray {ray_version}"
    if provider == "aws":
        yield "instances", aws_rules.instance_findings(config), "types, GPUs and markets agree"
        yield "provider", provider_findings(config), "region fits; only ssh is open"
    if provider == "local":
        yield "addresses", local_rules.address_findings(config), "each machine is named once"
    yield "ssh", local_rules.ssh_findings(config), "user and key are set"
    yield "limits", limit_rules.limit_findings(config), "idle workers are given back"
    yield "start commands", start_findings(config), "token mode; dashboard on loopback"
    yield "token", file_rules.token_findings(config), "brought by a file mount"
    yield "secrets", secret_findings(path.read_text("utf-8")), "none in the file"
    yield "file mounts", file_rules.mount_findings(config), "every local path exists"
    yield "setup", setup_findings(config, ray_version), "installs the project with its constraints"


def _schema_findings(config: Section) -> Iterator[Finding]:
    yield from name_findings(config)
    yield from list(shape_findings(config)) or schema_findings(config)


def _rows(path: Path, group: str, findings: Iterable[Finding], fine: str) -> list[Check]:
    name = f"{path.name}: {group}"
    rows = [
        Check(name, finding.status, without_secrets(finding.detail), finding.remedy)
        for finding in dict.fromkeys(findings)  # two commands may have the same fault
    ]
    return rows or [Check(name, "ok", fine)]
