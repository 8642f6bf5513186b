"""Fetch a checkpoint from the Hugging Face hub (or its local cache): only what a span can need."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download  # pyright: ignore[reportUnknownVariableType]
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from raysplit.base.errors import UserError
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
    try:
        return Path(
            snapshot_download(
                repo_id,
                revision=revision,
                allow_patterns=patterns,
                local_files_only=not allow_download,
            )
        )
    except LocalEntryNotFoundError:
        raise UserError(
            f"{repo_id!r} (revision {revision or 'main'}) is not in the local Hugging Face cache "
            "and the hub was not reached; download it once, or give a local folder"
        ) from None
    except HFValidationError as error:
        raise UserError(f"{repo_id!r} is not a Hugging Face id like 'org/name': {error}") from None
    except HfHubHTTPError as error:
        first_line = str(error).partition("\n")[0]
        raise UserError(
            f"{repo_id!r} (revision {revision or 'main'}) cannot be downloaded: {first_line}; "
            "check the id, the revision and your access (`hf auth login` for gated models)"
        ) from None
