"""Fetch a checkpoint from the Hugging Face hub (or its local cache): only what a span can need."""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path

from huggingface_hub import snapshot_download  # pyright: ignore[reportUnknownVariableType]
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RevisionNotFoundError,
)

from raysplit.base.errors import UserError
from raysplit.base.hub_requests import hub_timeout_s, limit_hub_requests
from raysplit.base.proxies import network_remedy
from raysplit.model.families import family_of
from raysplit.model.tensor_files import CONFIG_FILE, INDEX_FILE, SINGLE_FILE, read_json

# Configs, indices and tokenizers; the weights follow once the structure is known to be splittable.
_SMALL_FILES = ["*.json", "*.model", "merges.txt", "vocab.txt"]


def fetch(repo_id: str, revision: str | None, *, allow_download: bool) -> Path:
    """Return the local folder of a checkpoint on the hub.

    Raises:
        UserError: It cannot be reached or is not in the cache, or its structure is unknown (found
            out before any weights are downloaded).
    """
    limit_hub_requests()
    folder = _snapshot(repo_id, revision, _SMALL_FILES, allow_download=allow_download)
    family_of(read_json(folder / CONFIG_FILE), repo_id)
    weights = [SINGLE_FILE]
    if (folder / INDEX_FILE).is_file():
        weights = sorted(set(read_json(folder / INDEX_FILE).get("weight_map", {}).values()))
    return _snapshot(repo_id, revision, weights, allow_download=allow_download)


def _snapshot(
    repo_id: str, revision: str | None, patterns: list[str], *, allow_download: bool
) -> Path:
    """The snapshot folder with the files that match the patterns."""
    named = f"{repo_id!r} (revision {revision or 'main'})"
    try:
        return _fetched(repo_id, revision, patterns, local_only=not allow_download)
    except LocalEntryNotFoundError as error:
        raise UserError(
            f"{named} is not in the local Hugging Face cache, or not as a whole, and the hub "
            f"{_why_not_asked(error)}download it once, or give a local folder"
        ) from None
    except HFValidationError as error:
        raise UserError(f"{repo_id!r} is not a Hugging Face id like 'org/name': {error}") from None
    except HfHubHTTPError as error:
        first_line = str(error).partition("\n")[0]
        raise UserError(f"{named} cannot be downloaded: {first_line}; {_remedy(error)}") from None
    except Exception as error:  # a proxy of no known kind, a line that was cut, a closed folder
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        with contextlib.suppress(Exception):
            return _fetched(repo_id, revision, patterns, local_only=True)
        raise UserError(
            f"{named} is not in the local Hugging Face cache, or not as a whole, and cannot be "
            f"downloaded ({_in_one_line(error)}): {_local_remedy(error)}"
        ) from None


def _fetched(repo_id: str, revision: str | None, patterns: list[str], *, local_only: bool) -> Path:
    return Path(
        snapshot_download(
            repo_id, revision=revision, allow_patterns=patterns, local_files_only=local_only
        )
    )


def _why_not_asked(error: LocalEntryNotFoundError) -> str:
    if "Timeout" in type(error.__cause__).__name__:  # httpx's or httpx2's, by the hub's version
        return (
            f"gave no answer within {hub_timeout_s():g} s (HF_HUB_ETAG_TIMEOUT): "
            f"{network_remedy()}, "
        )
    return "was not reached; "


def _remedy(error: HfHubHTTPError) -> str:
    """What to do about an answer of the hub."""
    if isinstance(error, RevisionNotFoundError):
        return "check model.revision: a branch, a tag or a commit of that model"
    if isinstance(error, GatedRepoError):
        return "agree to its licence on its page, then `hf auth login`"
    if error.response.status_code >= 500:
        return "the hub has a fault: start again later"
    return "check the id and your access (`hf auth login` for private models)"


def _local_remedy(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return "set HF_HOME to a folder of your own"
    return f"{network_remedy()} and start again, or give a local folder"


def _in_one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
