"""A part of a model as a chain of spans, one a device: what both shards run.

Shape suffixes: B sequences, T positions, D hidden size, N scored positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from raysplit.base.errors import UserError
from raysplit.base.memory import keep_freed_memory
from raysplit.model.checkpoint import Checkpoint
from raysplit.model.load import load_span
from raysplit.model.span import Span


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPart:
    """Which layers to load, in which form, and where.

    Attributes:
        checkpoint: The whole model on disk.
        start: First layer, counted from 0; 0 brings the embedding.
        stop: One past the last layer; the model's depth brings the norm and the head.
        devices: Layers are dealt out evenly over these.
        threads: Torch threads of the process that loads the part; None leaves them alone.
    """

    checkpoint: Checkpoint
    start: int
    stop: int
    dtype: str = "float32"
    attention: str = "auto"
    devices: tuple[str, ...] = ("cpu",)
    threads: int | None = None


def load_part(part: ModelPart) -> SpanChain:
    """Load exactly the tensors of a part; from then on the process keeps the memory it frees.

    Raises:
        UserError: If a tensor is missing or a file is damaged.
    """
    if part.threads:
        torch.set_num_threads(part.threads)
    # Whatever the environment or a caller says (TORCH_ALLOW_TF32_CUBLAS_OVERRIDE): float32 is it.
    torch.set_float32_matmul_precision("highest")
    layers = part.stop - part.start
    devices = part.devices[: max(1, layers)]
    edges = [part.start + layers * i // len(devices) for i in range(len(devices) + 1)]
    spans = [
        load_span(
            part.checkpoint,
            first,
            last,
            dtype=part.dtype,
            device=device,
            attention=part.attention,
        )
        for first, last, device in zip(edges[:-1], edges[1:], devices, strict=True)
    ]
    keep_freed_memory()
    return SpanChain(spans)


class SpanChain:
    """Consecutive spans, each on its device; a hidden state moves along when it crosses over."""

    def __init__(self, spans: Sequence[Span]) -> None:
        self.spans = tuple(spans)

    @property
    def device(self) -> torch.device:
        """Device of the first span: where hidden states enter."""
        return self.spans[0].device

    @property
    def hidden_size(self) -> int:
        """Width D of the hidden states."""
        return int(self.spans[0].config.hidden_size)

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the hidden states."""
        return self.spans[0].dtype

    def embed(self, ids_BT: Tensor) -> Tensor:
        """Token ids -> (B, T, D)."""
        return self.spans[0].embed(ids_BT.to(self.device))

    def run_keeping(
        self, hidden_BTD: Tensor, lengths_B: Tensor, keep: Sequence[int]
    ) -> list[Tensor]:
        """Run from the first layer and return the hidden state after each layer count in `keep`."""
        kept: dict[int, Tensor] = {}
        for span in self.spans:
            wanted = [p for p in keep if span.start < p <= span.stop]
            last = span.stop if max(keep) > span.stop else max(wanted, default=span.start)
            *states, hidden_BTD = span.run(
                hidden_BTD.to(span.device),
                span.start,
                last,
                lengths_B=lengths_B,
                keep=(*wanted, last),
            )
            kept |= zip(wanted, states, strict=True)
        return [kept[p] for p in keep]

    def run_from(self, hidden_BTD: Tensor, lengths_B: Tensor | None, first: int) -> Tensor:
        """Run layers [first, stop) and, in the last span, the final norm: (B, T, D).

        Args:
            hidden_BTD: What enters layer `first`.
            lengths_B: Real positions of each sequence; None where none is padded.
            first: First layer.
        """
        for span in self.spans:
            start = min(max(first, span.start), span.stop)
            hidden_BTD = span.run(hidden_BTD.to(span.device), start, span.stop, lengths_B=lengths_B)
        return self.spans[-1].finish(hidden_BTD)

    def logits(self, normed_ND: Tensor) -> Tensor:
        """Head: (N, D) -> (N, V)."""
        return self.spans[-1].logits(normed_ND)


def shard_devices(gpus: float, model: str | None = None) -> tuple[str, ...]:
    """The devices of a shard: the GPUs that it asks for, or the CPU.

    Args:
        gpus: How many, or a share of one.
        model: The model that they must be; None takes any.

    Raises:
        UserError: If it asks for a GPU and there is none, or only another model.
    """
    count = min(torch.cuda.device_count(), max(1, int(gpus))) if gpus else 0
    if gpus and not count:
        raise UserError(
            f"a shard asks for {gpus:g} GPUs and torch sees none here: set backend.gpus_per_ue and "
            "backend.gpus_per_edge to 0 to measure on the CPU"
        )
    others = {name for i in range(count) if (name := torch.cuda.get_device_name(i)) != model}
    if model is not None and others:
        raise UserError(
            f"the protocol card names the GPU {model}, and here is {', '.join(sorted(others))}, "
            "which draws other noise: measure on one model of GPU, or in a ledger for each"
        )
    return tuple(f"cuda:{i}" for i in range(count)) or ("cpu",)
