"""The transformers config that a GGUF file's metadata stands for.

llama.cpp's architectures "llama" (with Mistral), "qwen2", "qwen3", "phi3", "gemma2", "gemma3".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from raysplit.base.errors import UserError, suggest
from raysplit.model.importing.gguf_file import GgufFile

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

Settings = dict[str, Any]

EMBEDDING, HEAD = "token_embd.weight", "output.weight"
_ROPE_FREQS, _ROPE_LONG, _ROPE_SHORT = (
    f"rope_{name}.weight" for name in ("freqs", "factors_long", "factors_short")
)
ROPE_TENSORS = frozenset({_ROPE_FREQS, _ROPE_LONG, _ROPE_SHORT})
"""Tensors that become part of the config: factors of the rotary frequencies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """How llama.cpp stores one architecture.

    Attributes:
        model_type: transformers' name.
        settings: What its config holds beyond `_common`.
        interleaved: Whether the rows of query and key are stored pair by pair, as llama.cpp
            rotates neighbours where transformers rotates halves.
        norms_plus_one: Whether norm weights are stored as 1 + w.
    """

    model_type: str
    settings: Callable[[GgufFile], Settings]
    interleaved: bool = False
    norms_plus_one: bool = False


def architecture_of(file: GgufFile) -> Architecture:
    """Return how a file is stored.

    Raises:
        UserError: Its architecture is not one of those known here.
    """
    name = file.architecture
    if name not in ARCHITECTURES:
        near = suggest(name, ARCHITECTURES)
        raise UserError(
            f"{file.path}: architecture {name!r} cannot be imported{near}; "
            f"known: {', '.join(ARCHITECTURES)}"
        )
    return ARCHITECTURES[name]


def config_of(file: GgufFile) -> PreTrainedConfig:
    """Return a file's config.

    Raises:
        UserError: Its architecture is unknown, or it says something that is not understood here.
    """
    architecture = architecture_of(file)
    settings = _common(file) | architecture.settings(file)
    if left := file.never_asked():
        raise UserError(
            f"{file.path}: {', '.join(left)} is not understood here, and a model without it "
            "would give other numbers"
        )
    from transformers import AutoConfig

    return cast("Any", AutoConfig).for_model(
        settings.pop("model_type", architecture.model_type), **settings
    )


def _common(file: GgufFile) -> Settings:
    """What all architectures share; asks for the keys that say nothing more, too."""
    if EMBEDDING not in file.tensors:
        raise UserError(f"{file.path}: tensor {EMBEDDING!r} is missing: it holds no whole model")
    _refuse_unlike(file, "attention.causal", True, "its attention is not causal")
    _refuse_unlike(file, "expert_count", 0, "it is a mixture of experts, which cannot be cut here")
    for key in ("vocab_size", "expert_used_count", "tensor_data_layout", "rope.scaling.finetuned"):
        file.own(key)
    heads = file.needed("attention.head_count")
    head_size = file.own("attention.key_length", file.needed("embedding_length") // heads)
    _refuse_unlike(file, "attention.value_length", head_size, "keys and values differ in width")
    return {
        "num_hidden_layers": file.needed("block_count"),
        "hidden_size": file.needed("embedding_length"),
        "intermediate_size": file.needed("feed_forward_length"),
        "num_attention_heads": heads,
        "num_key_value_heads": file.own("attention.head_count_kv", heads),
        "head_dim": head_size,
        "rms_norm_eps": file.needed("attention.layer_norm_rms_epsilon"),
        "max_position_embeddings": file.needed("context_length"),
        "rope_parameters": _rope(file, head_size),
        "vocab_size": file.shape(EMBEDDING)[0],
        "tie_word_embeddings": HEAD not in file.tensors,
        "bos_token_id": file.value("tokenizer.ggml.bos_token_id"),
        "eos_token_id": file.value("tokenizer.ggml.eos_token_id"),
        "pad_token_id": file.value("tokenizer.ggml.padding_token_id"),
    }


def _refuse_unlike(file: GgufFile, key: str, expected: object, reason: str) -> None:
    found = file.own(key, expected)
    if found != expected:
        key = f"{file.architecture}.{key}"
        raise UserError(f"{file.path} cannot be imported: {reason} ({key} = {found})")


def _rope(file: GgufFile, head_size: int) -> Settings:
    """Rotary frequencies: as the base gives them, all scaled, or each by a factor of its own."""
    rotated = file.own("rope.dimension_count", head_size)
    partial = {} if rotated == head_size else {"partial_rotary_factor": rotated / head_size}
    rope: Settings = {"rope_theta": file.own("rope.freq_base", 1e4), **partial}
    trained = file.own("rope.scaling.original_context_length", file.needed("context_length"))
    attention = file.own("rope.scaling.attn_factor", 1.0)
    scaling, factor = file.own("rope.scaling.type", "none"), file.own("rope.scaling.factor", 1.0)
    if factors := set(ROPE_TENSORS) & set(file.tensors):
        short, long = (_ROPE_FREQS,) * 2 if _ROPE_FREQS in factors else (_ROPE_SHORT, _ROPE_LONG)
        if factors != {short, long} or scaling not in ("none", "longrope"):
            raise UserError(
                f"{file.path} cannot be imported: {', '.join(sorted(factors))} with rotary scaling "
                f"{scaling!r} is not known"
            )
        # Llama 3's smooth scaling is stored as its result, one factor a frequency, which is what
        # transformers' LongRoPE takes, there for short and for long texts.
        return rope | {
            "rope_type": "longrope",
            "short_factor": _floats(file, short),
            "long_factor": _floats(file, long),
            "factor": file.needed("context_length") / trained,
            "attention_factor": attention,
            "original_max_position_embeddings": trained,
        }
    if scaling == "linear":
        return rope | {"rope_type": "linear", "factor": factor}
    if scaling != "none":
        raise UserError(f"{file.path} cannot be imported: rotary scaling {scaling!r} is not known")
    return rope | {"rope_type": "default"}


def _floats(file: GgufFile, tensor: str) -> list[float]:
    return [float(value) for value in file.tensors[tensor].data]


def _llama(file: GgufFile) -> Settings:
    """Also Mistral, which llama.cpp's converter calls llama, mostly without its window."""
    window = file.own("attention.sliding_window", 0)
    biases = {
        "attention_bias": "blk.0.attn_q.bias" in file.tensors,
        "mlp_bias": "blk.0.ffn_gate.bias" in file.tensors,
    }
    return {"model_type": "mistral", "sliding_window": window} if window else biases


def _qwen(file: GgufFile) -> Settings:
    del file
    return {"use_sliding_window": False}


def _phi3(file: GgufFile) -> Settings:
    trained = file.own("rope.scaling.original_context_length", file.needed("context_length"))
    return {
        "sliding_window": file.own("attention.sliding_window", 0) or None,
        "original_max_position_embeddings": trained,
    }


def _gemma2(file: GgufFile) -> Settings:
    return {
        "sliding_window": file.needed("attention.sliding_window"),
        "attn_logit_softcapping": file.own("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": file.own("final_logit_softcapping", 30.0),
        "query_pre_attn_scalar": _query_scale(file, layers_of_27b=46),
    }


def _gemma3(file: GgufFile) -> Settings:
    layers = file.needed("block_count")
    local = {"rope_type": "default", "rope_theta": file.own("rope.freq_base_swa", 1e4)}
    head_size = file.needed("attention.key_length")
    return {
        "sliding_window": file.needed("attention.sliding_window"),
        "layer_types": _layer_types(file.own("attention.sliding_window_pattern", 6), layers),
        "final_logit_softcapping": file.own("final_logit_softcapping"),
        "query_pre_attn_scalar": _query_scale(file, layers_of_27b=62),
        "rope_parameters": {
            "sliding_attention": local,
            "full_attention": _rope(file, head_size),
        },
    }


def _layer_types(pattern: int | list[bool], layers: int) -> list[str]:
    """Every n-th layer attends to everything, or a list says which do not."""
    windowed = (
        pattern if isinstance(pattern, list) else [bool((i + 1) % pattern) for i in range(layers)]
    )
    return ["sliding_attention" if window else "full_attention" for window in windowed]


def _query_scale(file: GgufFile, layers_of_27b: int) -> int:
    """Scores are divided by this number's root: the head's width, but not in the 27B models.

    No GGUF file states it. The published configs have hidden size over heads there (144 in
    Gemma 2 27B, 168 in Gemma 3 27B), and llama.cpp tells that model by its number of layers too.
    """
    if file.needed("block_count") == layers_of_27b:
        return file.needed("embedding_length") // file.needed("attention.head_count")
    return file.needed("attention.key_length")


ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": Architecture(model_type="llama", settings=_llama, interleaved=True),
    "qwen2": Architecture(model_type="qwen2", settings=_qwen),
    "qwen3": Architecture(model_type="qwen3", settings=_qwen),
    "phi3": Architecture(model_type="phi3", settings=_phi3),
    "gemma2": Architecture(model_type="gemma2", settings=_gemma2, norms_plus_one=True),
    "gemma3": Architecture(model_type="gemma3_text", settings=_gemma3, norms_plus_one=True),
}
"""Known architectures by llama.cpp's name."""
