"""Load a span: only its own tensors, straight from the safetensors files into their final place."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from io import RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from raysplit.base.errors import UserError, suggest
from raysplit.model.checkpoint import DTYPE_BYTES, Checkpoint, check_range
from raysplit.model.rotary import ROPE_TYPES, unknown_rope_types
from raysplit.model.span import Span, cut
from raysplit.model.tensor_files import CONFIG_FILE, StoredTensor

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

_STORED_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
_BLOCK_BYTES = 4 << 20


def load_span(
    checkpoint: Checkpoint,
    start: int,
    stop: int,
    *,
    dtype: str = "float32",
    device: str | torch.device = "cpu",
    attention: str = "auto",
) -> Span:
    """Load layers [start, stop) of a checkpoint, with the embedding and the head where they belong.

    Memory grows by the span's tensors in `dtype` and one small read buffer, nothing else.

    Args:
        checkpoint: What `open_checkpoint` returned.
        start: First layer; 0 brings the embedding along.
        stop: One past the last layer; L brings the final norm and the head along.
        dtype: "float32", "bfloat16" or "float16".
        device: Where the tensors go.
        attention: "sdpa", "eager", or "auto" (sdpa where the architecture has it).

    Raises:
        UserError: A range outside the model, an unknown dtype or attention, a tensor that is
            missing, of another shape or not the one that was hashed, or a file that ends early.
    """
    check_range(start, stop, checkpoint.layers)
    if dtype not in DTYPE_BYTES:
        near = suggest(dtype, DTYPE_BYTES)
        raise UserError(f"dtype {dtype!r} is not one of {', '.join(DTYPE_BYTES)}{near}")
    config = copy.deepcopy(checkpoint.config)
    model = _empty_model(config, checkpoint.family.attention(attention))
    module = cut(model, start, stop)
    _restore_computed_buffers(module, config)
    _fill(module, checkpoint, getattr(torch, dtype), torch.device(device))
    module.eval().requires_grad_(False)
    return Span(module, model.config, start, stop)


def refuse_unbuildable(checkpoint: Checkpoint) -> None:
    """Refuse a config that transformers reads and cannot make a model of.

    An actor that meets it at its start would only be started again.

    Raises:
        UserError: It is one, such as one with a kind of rotary embedding that is not known.
    """
    config = copy.deepcopy(checkpoint.config)
    try:
        model = _empty_model(config, checkpoint.family.attention("auto"))
        _restore_computed_buffers(cut(model, 0, checkpoint.layers), config)
    except Exception as error:  # a wrong value shows as any kind of error
        path, reason = checkpoint.folder / CONFIG_FILE, f"{type(error).__name__}: {error}"
        unknown = sorted(unknown_rope_types(config))
        if unknown:
            raise UserError(
                f"{path}: rope type {unknown[0]!r} is none that transformers knows "
                f"({', '.join(ROPE_TYPES)}): write its newer name, such as longrope for su"
            ) from None
        raise UserError(
            f"{path}: transformers can make no model of it ({' '.join(reason.split())})"
        ) from None


def _empty_model(config: PreTrainedConfig, attention: str) -> PreTrainedModel:
    """The whole model without any memory for its tensors."""
    from transformers import AutoModelForCausalLM

    auto_model = cast("Any", AutoModelForCausalLM)  # typed in part only
    with torch.device("meta"):
        return auto_model.from_config(
            config, attn_implementation=attention, trust_remote_code=False
        )


def _restore_computed_buffers(module: nn.Module, config: PreTrainedConfig) -> None:
    """Compute the buffers that no checkpoint stores (rotary frequencies, an embedding scale)."""
    backbone = cast("Any", module.model)
    backbone.rotary_emb = type(backbone.rotary_emb)(config)
    embedding = cast("Any", getattr(backbone, "embed_tokens", None))
    if hasattr(embedding, "scalar_embed_scale"):  # Gemma
        embedding.embed_scale = torch.tensor(embedding.scalar_embed_scale)


def _fill(
    module: nn.Module, checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device
) -> None:
    """Put every stored tensor in its place; nothing may stay empty."""
    reader = _Reader(dtype, device)
    tensors: dict[str, Tensor] = {}
    for name, parameter in module.state_dict().items():
        stored_name = checkpoint.stored_name(name)
        stored = checkpoint.tensors[stored_name]
        if stored.shape != tuple(parameter.shape):
            raise UserError(
                f"{stored.file}: tensor {stored_name!r} has shape {stored.shape}, the config "
                f"wants {tuple(parameter.shape)}; config and weights are of different models"
            )
        if not stored.is_loaded:
            raise UserError(
                f"{stored.file}: tensor {stored_name!r} has element type {stored.dtype}, which no "
                "weight of this model has; use the unquantised checkpoint"
            )
        tensors[name] = reader.read(stored_name, stored, checkpoint.tensor_sha256(stored_name))
    module.load_state_dict(tensors, assign=True)
    for buffer_owner in module.modules():
        for name, buffer in buffer_owner.named_buffers(recurse=False):
            buffer_owner.register_buffer(name, buffer.to(device), persistent=False)
    left = [name for name, t in (*module.named_parameters(), *module.named_buffers()) if t.is_meta]
    assert not left, f"tensors without a value: {left}"


def _opened(path: Path) -> RawIOBase:
    try:
        return path.open("rb", buffering=0)
    except OSError as error:
        raise UserError(
            f"{path} cannot be read any more ({error.strerror}): the checkpoint changed; download "
            "it again"
        ) from None


class _Reader:
    """Reads stored tensors block by block, so that no tensor is ever in memory twice.

    `safetensors.safe_open` maps the file, and the pages read count as this process' memory: loading
    200 MB of float32 as 100 MB of bfloat16 by its `get_slice` takes 302 MB at the peak, and so 106.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self._dtype = dtype
        self._device = device
        self._block = bytearray(_BLOCK_BYTES)
        self._done: dict[StoredTensor, Tensor] = {}

    def read(self, name: str, stored: StoredTensor, sha256: str | None) -> Tensor:
        """Return a tensor in the wanted dtype; a tied one is read once and shared.

        Raises:
            UserError: The file ends early, or `sha256` is given and not that of the bytes read.
        """
        if stored not in self._done:
            digest = hashlib.sha256()
            self._done[stored] = self._read(stored, digest.update if sha256 else None)
            if sha256 and digest.hexdigest() != sha256:
                raise UserError(
                    f"{stored.file}: tensor {name!r} is not the one that the run's protocol card "
                    "names: the file was changed since then, or differs on this machine; start "
                    "again, with the same files everywhere"
                )
        return self._done[stored]

    def _read(self, stored: StoredTensor, seen: Callable[[memoryview], None] | None) -> Tensor:
        source_dtype = _STORED_DTYPES[stored.dtype]
        target = torch.empty(stored.shape, dtype=self._dtype, device=self._device)
        flat = target.view(-1)
        per_block = _BLOCK_BYTES // source_dtype.itemsize
        with _opened(stored.file) as file:
            file.seek(stored.offset)
            for begin in range(0, stored.elements, per_block):
                count = min(per_block, stored.elements - begin)
                block = self._next_block(file, count * source_dtype.itemsize, stored)
                if seen is not None:
                    seen(block)
                source = torch.frombuffer(self._block, dtype=source_dtype, count=count)
                flat[begin : begin + count].copy_(source)
        return target

    def _next_block(self, file: RawIOBase, size: int, stored: StoredTensor) -> memoryview:
        block = left = memoryview(self._block)[:size]
        while left:
            got = file.readinto(left)
            if not got:
                raise UserError(f"{stored.file}: ends before its tensors do; download it again")
            left = left[got:]
        return block
