"""Open a safetensors checkpoint, a folder or a Hugging Face id: its config and tensor index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from raysplit.base.errors import UserError
from raysplit.model.digests import WeightDigests, digest_weights
from raysplit.model.families import FAMILIES, Family, family_of
from raysplit.model.location import local_folder
from raysplit.model.tensor_files import CONFIG_FILE, StoredTensor, index_of, read_json

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of an element, for the types in which a span can be loaded."""
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """An opened checkpoint; nothing of its weights has been read yet.

    Attributes:
        folder: Where its files lie.
        config: The transformers config.
        tensors: Every stored tensor by its name.
    """

    folder: Path
    config: PreTrainedConfig
    tensors: Mapping[str, StoredTensor]
    _digests: list[WeightDigests] = field(
        default_factory=list[WeightDigests], repr=False, compare=False
    )

    @property
    def family(self) -> Family:
        """Its known structure."""
        return FAMILIES[self.config.model_type]

    @property
    def architecture(self) -> str:
        """Class name of the language model, such as "LlamaForCausalLM"."""
        return self.family.architecture

    @property
    def layers(self) -> int:
        """Number of decoder layers L."""
        return int(self.config.num_hidden_layers)

    @property
    def hidden_size(self) -> int:
        """Width D of the hidden state that crosses the link."""
        return int(self.config.hidden_size)

    @property
    def vocabulary(self) -> int:
        """Number of rows of the embedding."""
        return int(self.config.vocab_size)

    @property
    def tied(self) -> bool:
        """Whether the head reads the embedding matrix."""
        return bool(self.config.tie_word_embeddings)

    @property
    def files(self) -> tuple[Path, ...]:
        """The safetensors files, in the order of their names."""
        return tuple(sorted({tensor.file for tensor in self.tensors.values()}))

    def weights_sha256(self) -> str:
        """SHA-256 of the safetensors files' bytes, one file after the other (kept in memory)."""
        if not self._digests:
            self._digests.append(digest_weights(self.tensors))
        return self._digests[0].files

    def tensor_sha256(self, stored_name: str) -> str | None:
        """SHA-256 of a tensor's bytes when the weights were hashed; None if they were not.

        It goes where the checkpoint goes: a process that was sent it knows what was hashed.
        """
        return self._digests[0].by_tensor[stored_name] if self._digests else None

    def stored_name(self, parameter: str) -> str:
        """Return the name under which a parameter is stored.

        A tied head and embedding are usually stored once, under either name. Where both are
        stored, each has its own, as in transformers.

        Raises:
            UserError: The checkpoint has no such tensor.
        """
        twin = {HEAD: EMBEDDING, EMBEDDING: HEAD}.get(parameter) if self.tied else None
        for name in (parameter, twin):
            if name is not None and name in self.tensors:
                return name
        if parameter == HEAD and EMBEDDING in self.tensors:
            raise UserError(
                f"{self.folder}: tensor {HEAD!r} is missing, which turns hidden states into words: "
                "the checkpoint is of a model without a head; save it with AutoModelForCausalLM, "
                "or choose another"
            )
        raise UserError(
            f"{self.folder}: tensor {parameter!r} is missing from the safetensors files; "
            "the checkpoint is incomplete or of another architecture: download it again"
        )

    def span_tensors(self, start: int, stop: int) -> frozenset[str]:
        """Return the stored names of what a span of layers [start, stop) needs.

        Raises:
            UserError: The range is not within the model, or a tensor is missing.
        """
        check_range(start, stop, self.layers)
        wanted = {
            name
            for name, tensor in self.tensors.items()
            if tensor.is_loaded and (layer := _layer_of(name)) is not None and start <= layer < stop
        }
        if start == 0:
            wanted.add(self.stored_name(EMBEDDING))
        if stop == self.layers:
            wanted |= {name for name in self.tensors if name.startswith("model.norm.")}
            wanted.add(self.stored_name(HEAD))
        return frozenset(wanted)

    def tensor_bytes(self, start: int, stop: int, dtype: str = "float32") -> int:
        """Return the bytes of a span's tensors once loaded in `dtype`."""
        names = self.span_tensors(start, stop)
        return DTYPE_BYTES[dtype] * sum(self.tensors[name].elements for name in names)


def open_checkpoint(
    location: str | Path, revision: str | None = None, *, allow_download: bool = True
) -> Checkpoint:
    """Open a folder or a Hugging Face id; check that it is complete and of a known structure.

    Args:
        location: A folder with `config.json` and safetensors files, or an id such as "org/name".
        revision: Commit, tag or branch of a Hugging Face id; a folder has none.
        allow_download: Whether files may be fetched from the hub; otherwise only its local cache
            is looked at.

    Raises:
        UserError: Nothing there, files missing or damaged, pickled weights, or a structure that
            cannot be cut (with the reason).
    """
    folder = _folder_of(str(location), revision, allow_download=allow_download)
    family_of(read_json(folder / CONFIG_FILE), str(location))
    from transformers import AutoConfig

    auto_config = cast("Any", AutoConfig)  # typed in part only
    try:
        config = auto_config.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # a config with a wrong value shows as any kind of error
        first_line = str(error).strip().replace("\n", " ")
        raise UserError(f"{folder / CONFIG_FILE}: transformers refuses it: {first_line}") from None
    return Checkpoint(folder=folder, config=config, tensors=_with_prefix(index_of(folder)))


def _with_prefix(tensors: Mapping[str, StoredTensor]) -> Mapping[str, StoredTensor]:
    """Name a base model's tensors (as `AutoModel` saves them) as those of a language model."""
    if any(name.startswith("model.") for name in tensors):
        return tensors
    return {name if name == HEAD else f"model.{name}": tensors[name] for name in tensors}


def check_range(start: int, stop: int, layers: int) -> None:
    """Refuse a range of layers that is empty or not within [0, layers)."""
    if not 0 <= start < stop <= layers:
        raise UserError(
            f"layers [{start}, {stop}) are not a span of this model; "
            f"choose 0 <= start < stop <= {layers}"
        )


def _folder_of(location: str, revision: str | None, *, allow_download: bool) -> Path:
    """The local folder of a checkpoint, fetched where it is a Hugging Face id."""
    folder = local_folder(location)
    if folder is not None:
        return folder
    from raysplit.model.hub import fetch

    return fetch(location, revision, allow_download=allow_download)


def _layer_of(name: str) -> int | None:
    """The layer index in a tensor's name, such as 3 in `model.layers.3.mlp.up_proj.weight`."""
    parts = name.split(".")
    is_layer = len(parts) > 3 and parts[:2] == ["model", "layers"] and parts[2].isdigit()
    is_computed = parts[-1] == "inv_freq"  # old checkpoints carry them along
    return int(parts[2]) if is_layer and not is_computed else None
