"""Hashes of a checkpoint's weights: of its files as they are, and tensor by tensor.

The first names the weights in the protocol card. By the second, whoever loads a tensor, here or on
another machine, notices that it is not the one that was named.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from raysplit.model.tensor_files import StoredTensor

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class WeightDigests:
    """SHA-256 of the weights.

    Attributes:
        files: Of the files' bytes, one file after the other in the order of their names.
        by_tensor: Stored name -> of the tensor's bytes.
    """

    files: str
    by_tensor: Mapping[str, str]


def digest_weights(tensors: Mapping[str, StoredTensor]) -> WeightDigests:
    """Read every file once and hash it both ways."""
    whole = hashlib.sha256()
    by_tensor: dict[str, str] = {}
    for path in sorted({tensor.file for tensor in tensors.values()}):
        own = {name: tensor for name, tensor in tensors.items() if tensor.file == path}
        with path.open("rb") as file:
            for name, tensor in sorted(own.items(), key=lambda item: item[1].offset):
                before = tensor.offset - file.tell()  # the header, or tensors of no index
                _feed(file, before, whole.update)
                digest = hashlib.sha256()
                _feed(file, tensor.nbytes, whole.update, digest.update)
                by_tensor[name] = digest.hexdigest()
            _feed(file, path.stat().st_size, whole.update)  # what is left
    return WeightDigests(whole.hexdigest(), by_tensor)


def _feed(file: BinaryIO, size: int, *updates: Callable[[bytes], object]) -> None:
    """Read so many bytes, or to the end, into digests."""
    while size > 0 and (block := file.read(min(size, _BLOCK_BYTES))):
        for update in updates:
            update(block)
        size -= len(block)
