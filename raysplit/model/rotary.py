"""Rotary tables that depend on a sequence's own length alone, whatever it shares a batch with.

Two kinds of scaled rotary embedding take other frequencies for long sequences: `longrope` (Phi-3)
has a second set beyond the length of the first training, `dynamic` recomputes them for each longer
length. transformers asks the length of the padded batch and, for `dynamic`, remembers the longest
one so far; so a sentence's perplexity would depend on its neighbours.

Shape suffixes: B sequences, T positions, D hidden size, H size of a head's rotated part.
"""

# torch types some methods in part only:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from transformers import modeling_rope_utils

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

ROPE_TYPES = ("default", *sorted(modeling_rope_utils.ROPE_INIT_FUNCTIONS))
"""transformers' kinds of rotary embedding."""
_SCALED_BEYOND_TRAINING = ("linear", "dynamic", "yarn")


def rotary_table(
    rotary: nn.Module,
    config: PreTrainedConfig,
    hidden_BTD: Tensor,
    lengths_B: Tensor | None,
    layer_type: str | None,
) -> tuple[Tensor, Tensor]:
    """Return cosine and sine, (1, T, H) where all sequences share them, else (B, T, H).

    Args:
        rotary: transformers' rotary embedding, as it was made.
        config: The model's.
        hidden_BTD: Right-padded hidden states, for their shape, dtype and device.
        lengths_B: Real positions of each; None where none is padded.
        layer_type: The kind of layer, where each kind has a table of its own.
    """
    positions_T = torch.arange(hidden_BTD.shape[1], device=hidden_BTD.device)
    border = _border(config, layer_type)
    if border is None or len(positions_T) <= border:
        return _computed(rotary, hidden_BTD, positions_T, layer_type)
    lengths_B = _own_lengths(hidden_BTD, lengths_B).clamp(min=border)
    lengths_C, class_B = lengths_B.unique(return_inverse=True)
    tables = [
        # A copy: the table of a longer sequence stays behind in the module.
        _computed(copy.deepcopy(rotary), hidden_BTD, positions_T.clamp(max=n - 1), layer_type)
        for n in lengths_C.tolist()
    ]
    cosine, sine = (torch.cat(parts)[class_B] for parts in zip(*tables, strict=True))
    return cosine, sine


def known_positions(config: PreTrainedConfig) -> int | None:
    """Return the longest sequence that a model is made for, scaling included.

    Some configs give the length before the scaling as `max_position_embeddings`.
    """
    trained = getattr(config, "max_position_embeddings", None)
    if trained is None:
        return None
    scaled = [
        int(parameters["factor"] * (parameters.get("original_max_position_embeddings") or trained))
        for parameters in _all_parameters(config)
        if parameters.get("rope_type") in _SCALED_BEYOND_TRAINING and "factor" in parameters
    ]
    return max([int(trained), *scaled])


def unknown_rope_types(config: PreTrainedConfig) -> set[str]:
    """Return the kinds of rotary embedding that a config names and transformers lacks."""
    named = {str(parameters.get("rope_type")) for parameters in _all_parameters(config)}
    return named - set(ROPE_TYPES)


def _own_lengths(hidden_BTD: Tensor, lengths_B: Tensor | None) -> Tensor:
    sequences, positions, _ = hidden_BTD.shape
    if lengths_B is None:
        return torch.full((sequences,), positions, device=hidden_BTD.device)
    return lengths_B.to(hidden_BTD.device)


def _computed(
    rotary: nn.Module, hidden_BTD: Tensor, positions_T: Tensor, layer_type: str | None
) -> tuple[Tensor, Tensor]:
    kind = () if layer_type is None else (layer_type,)
    return rotary(hidden_BTD, positions_T[None], *kind)


def _border(config: PreTrainedConfig, layer_type: str | None) -> int | None:
    """Length beyond which a table depends on the length; None for a table that never does."""
    rope = cast("Any", config).rope_parameters
    parameters = rope if layer_type is None else rope[layer_type]
    match parameters.get("rope_type"):
        case "longrope":
            return int(parameters["original_max_position_embeddings"])
        case "dynamic":
            return int(cast("Any", config).max_position_embeddings)
        case _:
            return None


def _all_parameters(config: PreTrainedConfig) -> Iterator[Mapping[str, Any]]:
    """The rope parameters of the model, or of each kind of layer."""
    rope: Mapping[str, Any] = getattr(config, "rope_parameters", None) or {}
    nested = [value for value in rope.values() if isinstance(value, dict)]
    yield from cast("list[Mapping[str, Any]]", nested) if "rope_type" not in rope else [rope]
