"""The token of a local Ray, where the home folder cannot keep the one that Ray makes."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def give_token_without_home() -> None:
    """Give this process a token of its own, where Ray could not write ~/.ray/auth_token.

    Ray's processes inherit it. Without one Ray does not start, and without asking for one it would
    run whatever anybody sends it.
    """
    given = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    if given or os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return
    if not _home_keeps_it():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _home_keeps_it() -> bool:
    try:
        token = Path.home() / ".ray" / "auth_token"
    except RuntimeError:  # no home folder is known
        return False
    if os.path.exists(token):
        return os.access(token, os.R_OK)
    try:
        token.parent.mkdir(parents=True, exist_ok=True)  # as Ray will
    except OSError:
        return False
    return os.access(token.parent, os.W_OK | os.X_OK)
