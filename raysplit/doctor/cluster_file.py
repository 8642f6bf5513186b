"""Check one cluster file of `ray up`: the table of its rules, and secrets in its text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from raysplit.base.errors import UserError
from raysplit.doctor import aws_rules, node_rules, setup_rules
from raysplit.doctor.check import Check, error, named, ok
from raysplit.doctor.cluster_yaml import ClusterFile, read_cluster_file
from raysplit.doctor.schema_rules import ray_findings
from raysplit.doctor.start_rules import start_findings

# `(?!\$)`: a variable or $(command) is no secret.
_SECRETS = {
    "an AWS access key": re.compile(r"\b(AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a Hugging Face token": re.compile(r"\bhf_[A-Za-z0-9]{20,}"),
    "a GitHub token": re.compile(r"\b(gh[pousr]|github_pat)_[A-Za-z0-9_]{20,}"),
    "an API key": re.compile(r"\bsk-[A-Za-z0-9_-]{20,}"),
    "Ray's token": re.compile(r"\bRAY_AUTH_TOKEN=(?!\$)\S+"),
    "a W&B key": re.compile(r"\bWANDB_API_KEY=(?!\$)\S+|\bwandb login (?:-\S+ )*[A-Za-z0-9_]{20,}"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a password in an address": re.compile(r"://[^\s/:@]+:(?!\$)[^\s/:@]+@"),
    # HF_TOKEN=..., --token ..., aws_secret_access_key: ... (with a digit, as "token: ..." may stand
    # in a comment); values that are paths, placeholders or one of the above are left out.
    "a key, token or password": re.compile(
        r"(?<![\w/.])(?!RAY_AUTH_TOKEN|WANDB_API_KEY)(?:\w*_|--)?"
        r"(?:API_KEY|ACCESS_KEY|SESSION_TOKEN|SECRET|TOKEN|PASSWORD)\b"
        r"[\"']?(?:=|\s*:\s*(?=\S*\d)|(?<=--token) |(?<=--password) )[\"']?"
        r"(?!your|hf_|gh[pousr]_|github_pat_|sk-)[A-Za-z0-9+][A-Za-z0-9+/=_-]{7,}",
        re.IGNORECASE,
    ),
}


def check_cluster_file(path: Path, ray_version: str) -> list[Check]:
    """Return one row for each group of rules that holds, and one for each fault found.

    Relative paths in the file count from the current folder; our Ray is of `ray_version`.
    """
    try:
        file = read_cluster_file(path, ray_version)
    except UserError as reason:
        return named(f"{path.name}: file", error(str(reason), "correct the file"))
    provider, rows = file.provider.get("type"), list[Check]()
    for name, rules, fine in _ROWS:
        if _ONLY_FOR.get(name, provider) == provider:
            found = dict.fromkeys(map(_without_secrets, rules(file)))  # commands may share a fault
            rows += named(f"{path.name}: {name}", found or [ok(fine)])
    return rows


def _secret_findings(file: ClusterFile) -> Iterator[Check]:
    """Yield the lines and kinds of secrets written into the file itself; never the secret."""
    for kind, pattern in _SECRETS.items():
        for match in pattern.finditer(file.text):
            line = file.text.count("\n", 0, match.start()) + 1
            yield error(f"line {line}: {kind} is written in the file", "take it out and revoke it")


def _without_secrets(check: Check) -> Check:
    """Return the check with *** for secrets, as rules quote values of the file."""
    for pattern in _SECRETS.values():
        detail, remedy = pattern.sub("***", check.detail), pattern.sub("***", check.remedy)
        check = replace(check, detail=detail, remedy=remedy)
    return check


# Each row: its name, the rules behind it, what it says where none of them finds a fault.
_ROWS: tuple[tuple[str, Callable[[ClusterFile], Iterable[Check]], str], ...] = (
    ("schema", ray_findings, "Ray's own validation passes"),
    ("keys", node_rules.dropped_key_findings, "no key is dropped silently"),
    ("images", setup_rules.image_findings, "pinned to our Ray"),
    ("instances", aws_rules.instance_findings, "types, GPUs and markets agree"),
    ("provider", aws_rules.provider_findings, "region fits; only ssh is open"),
    ("addresses", node_rules.address_findings, "each machine is named once"),
    ("ssh", node_rules.ssh_findings, "user and key are set"),
    ("limits", node_rules.limit_findings, "idle workers are given back"),
    ("start commands", start_findings, "token mode; dashboard on loopback"),
    ("token", setup_rules.token_findings, "brought by a file mount"),
    ("secrets", _secret_findings, "none in the file"),
    ("file mounts", setup_rules.mount_findings, "every local path exists"),
    ("setup", setup_rules.setup_findings, "installs the project with its constraints"),
)
_ONLY_FOR = {"instances": "aws", "provider": "aws", "addresses": "local"}
