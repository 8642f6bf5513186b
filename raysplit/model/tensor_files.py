"""The files of a safetensors checkpoint: which tensors lie where, and whether they are whole."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError, safe_open

from raysplit.base.errors import UserError

CONFIG_FILE = "config.json"
SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
LOADED_TYPES = ("F64", "F32", "F16", "BF16")
"""The format's element types that can be loaded."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where one tensor lies.

    Attributes:
        file: The safetensors file.
        dtype: The format's name of the element type, such as "BF16".
        shape: Its shape.
        offset: First byte of its data in the file.
        nbytes: Bytes of its data in the file.
    """

    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def is_loaded(self) -> bool:
        """Whether its elements are of a type that can be loaded."""
        return self.dtype in LOADED_TYPES


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        UserError: The file is missing or no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path.parent}: no {path.name}; is this a checkpoint folder?") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: not valid JSON ({error}); download it again") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: a JSON object was expected; download it again")
    return cast("dict[str, Any]", content)


def index_of(folder: Path) -> dict[str, StoredTensor]:
    """Every stored tensor of a folder, read from the headers of its safetensors files."""
    if (folder / INDEX_FILE).is_file():
        return _sharded_index(folder)
    if (folder / SINGLE_FILE).is_file():
        return _header(folder / SINGLE_FILE)
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt*")):
        raise UserError(
            f"{folder}: only pickled weights (*.bin); convert them to safetensors "
            "(model.save_pretrained writes it) or choose another revision"
        )
    raise UserError(f"{folder}: neither {SINGLE_FILE} nor {INDEX_FILE}; download it again")


def _sharded_index(folder: Path) -> dict[str, StoredTensor]:
    """The tensors that a sharded checkpoint's index names, each found in its shard."""
    weight_map = cast("dict[str, str]", read_json(folder / INDEX_FILE).get("weight_map", {}))
    if not weight_map:
        raise UserError(f"{folder / INDEX_FILE}: no weight_map; download it again")
    headers = {name: _header(folder / name) for name in sorted(set(weight_map.values()))}
    tensors: dict[str, StoredTensor] = {}
    for tensor, shard in weight_map.items():
        if tensor not in headers[shard]:
            raise UserError(f"{folder / shard}: tensor {tensor!r} is missing; download it again")
        tensors[tensor] = headers[shard][tensor]
    return tensors


def _header(path: Path) -> dict[str, StoredTensor]:
    """The tensors of one safetensors file, after the library's own check of header and length."""
    try:
        with safe_open(path, framework="numpy"):
            pass
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
    except FileNotFoundError:
        raise UserError(f"{path.parent}: file {path.name} is missing; download it again") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: damaged or truncated ({error}); download it again") from None
    return {
        name: _stored(path, name, entry, 8 + length)
        for name, entry in header.items()
        if name != "__metadata__"
    }


def _stored(path: Path, name: str, entry: Mapping[str, Any], data_start: int) -> StoredTensor:
    """One header entry as a record.

    Old checkpoints hold position ids and causal masks, of types that no weight has: they stay
    where they are. A weight of such a type is a quantised one.
    """
    begin, end = (int(place) for place in entry["data_offsets"])
    stored = StoredTensor(
        path, entry["dtype"], tuple(entry["shape"]), data_start + begin, end - begin
    )
    if not stored.is_loaded and name.endswith(".weight"):
        raise UserError(
            f"{path}: tensor {name!r} has element type {stored.dtype}; "
            f"raysplit loads {', '.join(LOADED_TYPES)} (use an unquantised checkpoint)"
        )
    return stored
