"""Secrets written into a cluster file: where and of which kind, never what they are."""

from __future__ import annotations

import re
from collections.abc import Iterator

from raysplit.doctor.check import Finding, error

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


def secret_findings(text: str) -> Iterator[Finding]:
    """Yield the lines and kinds of secrets written into the file itself; never the secret."""
    for kind, pattern in _SECRETS.items():
        for match in pattern.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            yield error(f"line {line}: {kind} is written in the file", "take it out and revoke it")


def without_secrets(message: str) -> str:
    """Return the message with *** for secrets, as other rules quote values of the file."""
    for pattern in _SECRETS.values():
        message = pattern.sub("***", message)
    return message
