"""What measuring is compared with: the plain way, and the bare matrix products.

Shape suffixes: B sequences, T positions, D hidden size, V vocabulary, N scored positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM

from raysplit.corpus.batches import Batch
from raysplit.corpus.sequences import TokenSequence as TokenSequence
from raysplit.measure.setting import Setting
from raysplit.model.checkpoint import Checkpoint


class PlainWay:
    """The whole model by transformers, one sentence at a time, AWGN added after layer p."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        """Load the model in float32 on the CPU."""
        self._model: Any = AutoModelForCausalLM.from_pretrained(
            checkpoint.folder, dtype=torch.float32
        ).eval()

    @torch.inference_mode()
    def nll(self, setting: Setting, sentences: Sequence[TokenSequence]) -> float:
        """Return the summed NLL of the sentences under the link."""
        generator = torch.Generator().manual_seed(setting.seed)

        def add_noise(module: object, inputs: object, hidden_BTD: Tensor) -> Tensor:
            noise_BTD = torch.randn(hidden_BTD.shape, generator=generator)
            noise_BTD[:, 0] = 0.0  # BOS is not transmitted
            return hidden_BTD + setting.link.noise_std * noise_BTD

        layer = self._model.model.layers[setting.split_point - 1]
        hook = layer.register_forward_hook(add_noise)
        try:
            return sum(self._nll(sentence) for sentence in sentences)
        finally:
            hook.remove()

    def _nll(self, sentence: TokenSequence) -> float:
        ids_T = torch.tensor(sentence.token_ids)
        logits_TV = self._model(ids_T[None, :-1], use_cache=False).logits[0]
        first = sentence.first_scored
        nll = functional.cross_entropy(logits_TV[first - 1 :], ids_T[first:], reduction="sum")
        return float(nll)


class MatrixProducts:
    """The matrix products of layers [p, L) and of the head, and nothing else.

    Projections of query, key, value and output, scores and their product with the values (all
    T x T of them, all heads, as in the plain form), the three products of the gated feed-forward
    block, the head on the scored positions; on random numbers, with the batch's own padded shape.
    """

    def __init__(self, config: Any, dtype: torch.dtype = torch.float32) -> None:  # noqa: ANN401
        """Make one layer's weights and a head from a transformers config."""
        width, inner, self._heads = (
            config.hidden_size,
            config.intermediate_size,
            config.num_attention_heads,
        )
        self._head_size = getattr(config, "head_dim", None) or width // self._heads
        query, kv = self._heads * self._head_size, config.num_key_value_heads * self._head_size
        shapes = [(query, width), (kv, width), (kv, width), (inner, width), (inner, width)]
        self._from_width = [torch.randn(shape, dtype=dtype) for shape in shapes]
        self._output = torch.randn(width, query, dtype=dtype)
        self._down = torch.randn(width, inner, dtype=dtype)
        self._head = torch.randn(config.vocab_size, width, dtype=dtype)
        self._layers = config.num_hidden_layers
        self._width, self._inner, self._dtype = width, inner, dtype

    @torch.inference_mode()
    def run(self, batch: Batch, split_point: int) -> None:
        """Multiply everything that one batch needs."""
        sequences, positions = batch.inputs_BT.shape
        rows = sequences * positions
        x_RD = torch.randn(rows, self._width, dtype=self._dtype)
        attended = torch.randn(rows, self._output.shape[1], dtype=self._dtype)
        inner = torch.randn(rows, self._inner, dtype=self._dtype)
        split = (sequences * self._heads, positions, self._head_size)
        q, k, v = (torch.randn(split, dtype=self._dtype) for _ in range(3))
        for _ in range(split_point, self._layers):
            for weight in self._from_width:
                functional.linear(x_RD, weight)
            torch.bmm(torch.bmm(q, k.transpose(1, 2)), v)
            functional.linear(attended, self._output)
            functional.linear(inner, self._down)
        functional.linear(x_RD[: int(batch.scored_BT.sum())], self._head)
