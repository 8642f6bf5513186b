"""Open a GGUF file: its metadata and where its tensors lie; nothing of the tensors is read yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysplit.base.errors import UserError

if TYPE_CHECKING:
    from gguf import ReaderField, ReaderTensor

_MAGIC = b"GGUF"


@dataclass(frozen=True, slots=True)
class GgufFile:
    """An opened GGUF file.

    Attributes:
        path: The file.
        fields: Its metadata, undecoded, by key.
        tensors: Its tensors, mapped from the file, by llama.cpp's names.
    """

    path: Path
    fields: Mapping[str, ReaderField]
    tensors: Mapping[str, ReaderTensor]
    _asked: set[str] = field(default_factory=set[str], repr=False)

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the architecture, such as "llama"."""
        return str(self.value("general.architecture", ""))

    def value(self, key: str, default: Any = None) -> Any:  # noqa: ANN401 - whatever the file holds
        """Return a metadata value by its whole key."""
        self._asked.add(key)
        found = self.fields.get(key)
        return default if found is None else found.contents()

    def own(self, key: str, default: Any = None) -> Any:  # noqa: ANN401 - whatever the file holds
        """Return a metadata value of the architecture: `own("block_count")` is "llama.block_count".

        Numbers in single precision come as their shortest decimal form: 1e-5, not 9.99999975e-06.
        """
        from gguf import GGUFValueType

        key = f"{self.architecture}.{key}"
        value = self.value(key, default)
        if key in self.fields and self.fields[key].types == [GGUFValueType.FLOAT32]:
            return _shortest(value)
        return value

    def needed(self, key: str) -> Any:  # noqa: ANN401 - whatever the file holds
        """Return a value of the architecture that cannot be done without.

        Raises:
            UserError: The file lacks it, or has one for each layer.
        """
        value = self.own(key)
        if value is None or isinstance(value, list):
            what = "missing" if value is None else "another one in every layer"
            raise UserError(f"{self.path}: {self.architecture}.{key} is {what}: convert it again")
        return value

    def never_asked(self) -> list[str]:
        """Return the architecture's keys that nobody has asked for."""
        prefix = f"{self.architecture}."
        return sorted(k for k in self.fields if k.startswith(prefix) and k not in self._asked)

    def shape(self, tensor: str) -> tuple[int, ...]:
        """Return a tensor's shape in torch's order: the file names the fastest dimension first."""
        return tuple(int(size) for size in reversed(self.tensors[tensor].shape))


def check_magic(path: Path) -> None:
    """Refuse at once what is no GGUF file.

    Raises:
        UserError: It cannot be read, or begins otherwise.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(len(_MAGIC))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    if magic != _MAGIC:
        raise UserError(f"{path} is not a GGUF file: it does not begin with {_MAGIC.decode()!r}")


def open_gguf(path: Path) -> GgufFile:
    """Open a file and check that it is whole.

    Raises:
        UserError: It cannot be read, is no GGUF file, is cut, or is one part of several.
    """
    check_magic(path)
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: damaged or cut short ({reason}): download it again") from None
    if reader.byte_order == "S":
        raise UserError(f"{path} is for machines of the other byte order: convert it for this one")
    opened = GgufFile(path, reader.fields, {tensor.name: tensor for tensor in reader.tensors})
    if (parts := opened.value("split.count", 0)) > 1:
        raise UserError(f"{path} is one of {parts} parts: join them with llama-gguf-split --merge")
    return opened


def _shortest(value: float) -> float:
    import numpy as np

    return float(str(np.float32(value)))
