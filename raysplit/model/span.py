"""A span of consecutive layers of a causal language model, run by transformers' own layers.

Shape suffixes: B batch, T tokens, D hidden, V vocabulary, L layers, N scored positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast, overload

import torch
from torch import Tensor, nn
from transformers import masking_utils

from raysplit.base.errors import UserError
from raysplit.model.checkpoint import check_range
from raysplit.model.families import FAMILIES, Family, family_of
from raysplit.model.rotary import rotary_table

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


class Span:
    """Layers [start, stop) of a model, with the embedding if start = 0 and the head if stop = L.

    Inputs are right-padded: under causal attention no real position ever sees the padding after
    it, so no padding mask is needed and torch's fused causal kernels are used where they exist.
    On the CPU in float32 two spans give the whole model's logits to the last bit.

    Attributes:
        start: First layer held.
        stop: One past the last layer held.
        config: The transformers config of the whole model.
        module: The tensors under the whole model's own names (`model.layers.3.mlp...`).
    """

    def __init__(self, module: nn.Module, config: PreTrainedConfig, start: int, stop: int) -> None:
        self.module = module
        self.config = config
        self.start = start
        self.stop = stop
        self._backbone = cast("Any", module.model)
        self._layers = cast("dict[str, nn.Module]", self._backbone.layers)

    @property
    def family(self) -> Family:
        """The model's known structure."""
        return FAMILIES[self.config.model_type]

    @property
    def layers(self) -> int:
        """Number of layers L of the whole model."""
        return int(self.config.num_hidden_layers)

    @property
    def dtype(self) -> torch.dtype:
        """Element type of the weights and hidden states."""
        return next(self.module.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.module.parameters()).device

    @torch.inference_mode()
    def embed(self, ids_BT: Tensor) -> Tensor:
        """Return the hidden states (B, T, D) that enter layer 0; needs start = 0."""
        assert self.start == 0, "only a span from layer 0 holds the embedding"
        return self._backbone.embed_tokens(ids_BT.to(self.device))

    @overload
    def run(
        self, hidden_BTD: Tensor, first: int, last: int, *, lengths_B: Tensor | None = None
    ) -> Tensor: ...
    @overload
    def run(
        self,
        hidden_BTD: Tensor,
        first: int,
        last: int,
        *,
        lengths_B: Tensor | None = None,
        keep: Sequence[int],
    ) -> tuple[Tensor, ...]: ...
    @torch.inference_mode()
    def run(
        self,
        hidden_BTD: Tensor,
        first: int,
        last: int,
        *,
        lengths_B: Tensor | None = None,
        keep: Sequence[int] | None = None,
    ) -> Tensor | tuple[Tensor, ...]:
        """Run layers [first, last), without the final norm.

        Args:
            hidden_BTD: What enters layer `first`; it is not modified.
            first: First layer, at least `start`; first = last runs nothing.
            last: One past the last layer, at most `stop`.
            lengths_B: Real positions of each sequence; None where none is padded.
            keep: Split points p in [first, last] whose hidden states (what p layers have made)
                are wanted.

        Returns:
            The hidden states (B, T, D) after layer `last` - 1 or, with `keep`, a tuple with the
            hidden states at each split point in the order of `keep`.
        """
        assert self.start <= first <= last <= self.stop, (first, last, self.start, self.stop)
        kept: dict[int, Tensor] = {first: hidden_BTD}
        wanted = set(keep or ())
        shared = self._shared_inputs(hidden_BTD, lengths_B, first, last)
        for index in range(first, last):
            mask, rotary = shared[self._windowed(index)]
            hidden_BTD = self._layers[str(index)](
                hidden_BTD, attention_mask=mask, position_embeddings=rotary, use_cache=False
            )
            if index + 1 in wanted:
                kept[index + 1] = hidden_BTD
        return hidden_BTD if keep is None else tuple(kept[split_point] for split_point in keep)

    @torch.inference_mode()
    def finish(self, hidden_BTD: Tensor) -> Tensor:
        """Return the final norm of the last layer's output; needs stop = L."""
        assert self.stop == self.layers, "only a span up to the last layer holds the final norm"
        return self._backbone.norm(hidden_BTD)

    @torch.inference_mode()
    def logits(self, normed_ND: Tensor) -> Tensor:
        """Return logits (..., V) of normed hidden states (..., D); needs stop = L."""
        assert self.stop == self.layers, "only a span up to the last layer holds the head"
        logits_NV = cast("Any", self.module).lm_head(normed_ND)
        settings = cast("Any", self.config)
        if self.family.head == "scaled":
            return logits_NV * settings.logit_scale
        cap = settings.final_logit_softcapping if self.family.head == "softcapped" else None
        return logits_NV if cap is None else torch.tanh(logits_NV / cap) * cap

    def _windowed(self, index: int) -> bool:
        """Whether layer `index` attends within a sliding window only."""
        if self.family.windows == "by_layer":
            return cast("list[str]", self.config.layer_types)[index] == "sliding_attention"
        return self.family.windows == "always" and self.config.sliding_window is not None

    def _shared_inputs(
        self, hidden_BTD: Tensor, lengths_B: Tensor | None, first: int, last: int
    ) -> dict[bool, tuple[Tensor | None, tuple[Tensor, Tensor]]]:
        """What the layers of a pass share, by `_windowed`: mask (None: plain causal), rotary table.

        transformers makes both once for all layers of a kind.
        """
        maker = cast("Any", masking_utils)  # typed in part only
        makers = {False: maker.create_causal_mask, True: maker.create_sliding_window_causal_mask}
        kinds = {self._windowed(index) for index in range(first, last)}
        masks = {
            windowed: makers[windowed](
                config=self.config,
                inputs_embeds=hidden_BTD,
                attention_mask=None,
                past_key_values=None,
            )
            for windowed in kinds
        }
        by_layer = self.family.rotary == "by_layer"
        names = {False: "full_attention", True: "sliding_attention"} if by_layer else {}
        tables = {
            name: rotary_table(self._backbone.rotary_emb, self.config, hidden_BTD, lengths_B, name)
            for name in {names.get(windowed) for windowed in kinds}
        }
        return {windowed: (masks[windowed], tables[names.get(windowed)]) for windowed in kinds}


def span_of(model: PreTrainedModel, start: int, stop: int) -> Span:
    """Return a span of a model that is already in memory; it shares the model's modules.

    Raises:
        UserError: Unknown structure, a range outside the model, or a model in training mode
            (dropout would make every number random).
    """
    config = model.config
    architecture = type(model).__name__
    family_of({**config.to_dict(), "architectures": [architecture]}, architecture)
    check_range(start, stop, int(config.num_hidden_layers))
    if model.training:
        raise UserError("the model is in training mode; call model.eval() before splitting it")
    return Span(cut(model, start, stop), config, start, stop)


def cut(model: PreTrainedModel, start: int, stop: int) -> nn.Module:
    """Return a shell that keeps only a span's modules of a model, under the model's own names."""
    whole = cast("Any", model)
    shell, backbone = nn.Module(), nn.Module()
    backbone.layers = nn.ModuleDict({str(i): whole.model.layers[i] for i in range(start, stop)})
    backbone.rotary_emb = whole.model.rotary_emb
    shell.model = backbone
    if start == 0:
        backbone.embed_tokens = whole.model.embed_tokens
    if stop == int(model.config.num_hidden_layers):
        backbone.norm = whole.model.norm
        shell.lm_head = whole.lm_head
    return shell
