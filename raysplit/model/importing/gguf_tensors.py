"""From a GGUF file's tensors to safetensors: names, layout, and one shard in memory at a time."""

# huggingface_hub, safetensors and torch type these functions in part only:
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from huggingface_hub import split_state_dict_into_shards_factory
from safetensors.torch import save_file
from torch import Tensor

from raysplit.base.errors import UserError
from raysplit.base.files import write_atomically
from raysplit.base.progress import progress_bar
from raysplit.model.checkpoint import HEAD
from raysplit.model.importing.gguf_config import ROPE_TENSORS, architecture_of
from raysplit.model.importing.gguf_file import GgufFile
from raysplit.model.tensor_files import INDEX_FILE

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_SHARD_BYTES = 1 << 30
_KEPT = {"F16": torch.float16, "BF16": torch.bfloat16}
"""Element types that are stored as they are; everything else becomes float32, which is exact."""


def tensor_sources(file: GgufFile, config: PreTrainedConfig) -> dict[str, str]:
    """Return the file's tensor for each of the model's parameters; all must be used up.

    Raises:
        UserError: A tensor is missing, of another shape, or one that the model does not have.
    """
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map
    from transformers import AutoModelForCausalLM

    arch = next(arch for arch, name in MODEL_ARCH_NAMES.items() if name == file.architecture)
    names = get_tensor_name_map(arch, int(config.num_hidden_layers))
    with torch.device("meta"):
        model = cast("Any", AutoModelForCausalLM).from_config(config, trust_remote_code=False)
    sources: dict[str, str] = {}
    for parameter, tensor in model.state_dict().items():
        if parameter == HEAD and config.tie_word_embeddings:
            continue
        source = names.get_name(parameter, (".weight", ".bias")) or parameter
        if source not in file.tensors:
            raise UserError(f"{file.path}: tensor {source!r} is missing: download it again")
        if file.shape(source) != tuple(tensor.shape):
            raise UserError(
                f"{file.path}: tensor {source!r} has shape {file.shape(source)}, the metadata "
                f"want {tuple(tensor.shape)}: convert it again"
            )
        sources[parameter] = source
    left = sorted(set(file.tensors) - set(sources.values()) - ROPE_TENSORS)
    if left:
        raise UserError(
            f"{file.path}: {len(left)} tensors such as {left[0]!r} have no place in a "
            f"{config.model_type} model, and without them it would give other numbers"
        )
    return sources


def stored_bytes(file: GgufFile, source: str) -> int:
    """Return the bytes of a tensor once it is written."""
    tensor = file.tensors[source]
    return int(tensor.n_elements) * _stored_dtype(file, source).itemsize


def read_tensor(file: GgufFile, parameter: str, source: str, config: PreTrainedConfig) -> Tensor:
    """Return one of the model's parameters, as exact as the file has it.

    Raises:
        UserError: It is quantised in a way that `gguf` cannot undo.
    """
    from gguf.quants import dequantize

    tensor, architecture = file.tensors[source], architecture_of(file)
    try:
        array = dequantize(tensor.data, tensor.tensor_type).reshape(file.shape(source))
    except NotImplementedError:
        raise UserError(
            f"{file.path}: tensor {source!r} is quantised as {tensor.tensor_type.name}, which the "
            "package gguf does not undo: take another quantisation"
        ) from None
    if architecture.interleaved and ".attn_q." in source:
        array = _halves(array, int(config.num_attention_heads))
    if architecture.interleaved and ".attn_k." in source:
        array = _halves(array, int(config.num_key_value_heads))
    if architecture.norms_plus_one and parameter.endswith("norm.weight"):
        array = array - np.float32(1.0)
    return torch.from_numpy(np.array(array)).to(_stored_dtype(file, source))  # out of the mapping


def write_shards(
    file: GgufFile, config: PreTrainedConfig, sources: Mapping[str, str], folder: Path
) -> torch.dtype:
    """Write all parameters into a folder, a shard of at most 1 GiB after the other.

    Returns:
        The element type of the matrices; norms may have a wider one.
    """
    sizes = {parameter: stored_bytes(file, source) for parameter, source in sources.items()}
    plan = split_state_dict_into_shards_factory(
        sizes,
        get_storage_size=int,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=_SHARD_BYTES,
    )
    with progress_bar("tensors", total=len(sources)) as advance:
        for shard, parameters in plan.filename_to_tensors.items():
            tensors: dict[str, Tensor] = {}
            for parameter in parameters:
                tensors[parameter] = read_tensor(file, parameter, sources[parameter], config)
                advance(1)
            save_file(tensors, folder / shard, metadata={"format": "pt"})
            (folder / shard).chmod(0o644)  # safetensors lets nobody else read it
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        write_atomically(folder / INDEX_FILE, json.dumps(index, indent=2) + "\n")
    return min(
        (_stored_dtype(file, source) for source in sources.values()), key=lambda t: t.itemsize
    )


def _stored_dtype(file: GgufFile, source: str) -> torch.dtype:
    return _KEPT.get(file.tensors[source].tensor_type.name, torch.float32)


def _halves(array: np.ndarray, heads: int) -> np.ndarray:
    """Put each head's rows, stored as 0, d/2, 1, d/2 + 1, ..., back in order: two halves."""
    pairs = array.reshape(heads, array.shape[0] // heads // 2, 2, *array.shape[1:])
    return pairs.swapaxes(1, 2).reshape(array.shape)
