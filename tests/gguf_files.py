"""Write tiny models as GGUF files, by llama.cpp's conventions spelt out here a second time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from transformers import PreTrainedModel
from transformers.convert_slow_tokenizer import bytes_to_unicode

VOCABULARY = 320
_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
_GEMMA_NAMES = {
    **_NAMES,
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
ARCHITECTURES = {
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "phi3": "phi3",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
}
"""llama.cpp's name of each of transformers' model types."""


def write_gguf(
    path: Path,
    model: PreTrainedModel,
    *,
    quantise: str = "F32",
    split: str = "smollm",
    sentencepiece: bool = False,
    space_prefix: bool | None = None,
    merge: str = "1 2",
    tensors: dict[str, np.ndarray] | None = None,
    drop: str = "",
    raw: dict[str, tuple[np.ndarray, gguf.GGMLQuantizationType]] | None = None,
    keys: dict[str, Any] | None = None,
) -> Path:
    """Write a model and a tokenizer.

    Args:
        path: The file.
        model: Its every tensor is written.
        quantise: Type of the matrices; vectors stay F32.
        split: Name of the rule by which the byte-level tokenizer splits text.
        sentencepiece: A SentencePiece tokenizer instead.
        space_prefix: Whether the tokenizer puts a space before a text; None leaves it open.
        merge: The byte-level tokenizer's last merge.
        tensors: More tensors, by llama.cpp's name.
        drop: Name of a tensor that is left out.
        raw: Tensors that are written as these bytes instead.
        keys: More metadata of the architecture (without its name), or other values; None drops.
    """
    config = model.config
    architecture = ARCHITECTURES[config.model_type]
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name(f"Tiny {config.model_type}")
    writer.add_license("mit")
    for key, value in {**_metadata(config), **(keys or {})}.items():
        if value is not None:
            _add(writer, f"{architecture}.{key}", value)
    _add_tokenizer(writer, split, sentencepiece, merge)
    if space_prefix is not None:
        writer.add_add_space_prefix(space_prefix)
    arrays = {
        _name(name, config.model_type): _stored(name, tensor.numpy(), config)
        for name, tensor in model.state_dict().items()
        if not (name == "lm_head.weight" and config.tie_word_embeddings)
    }
    for name, array in {**arrays, **(tensors or {})}.items():
        kind = getattr(gguf.GGMLQuantizationType, quantise if array.ndim > 1 else "F32")
        data, kind = (raw or {}).get(name, (gguf.quants.quantize(array, kind), kind))
        if name != drop:
            writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _metadata(config: Any) -> dict[str, Any]:
    gemma = config.model_type.startswith("gemma")
    keys: dict[str, Any] = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "vocab_size": config.vocab_size,
    }
    rope = config.rope_parameters
    keys["rope.freq_base"] = float(rope.get("full_attention", rope)["rope_theta"])
    if gemma or config.model_type == "qwen3":
        keys["attention.key_length"] = keys["attention.value_length"] = config.head_dim
    if gemma or config.model_type == "phi3":
        keys["attention.sliding_window"] = config.sliding_window or 0
    if config.model_type == "gemma2":
        keys["attn_logit_softcapping"] = float(config.attn_logit_softcapping)
        keys["final_logit_softcapping"] = float(config.final_logit_softcapping)
    return keys


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def _name(name: str, model_type: str) -> str:
    names = _GEMMA_NAMES if model_type.startswith("gemma") else _NAMES
    module, _, kind = name.rpartition(".")
    if module.startswith("model.layers."):
        _, _, index, part = module.split(".", maxsplit=3)
        return f"blk.{index}.{names[part]}.{kind}"
    return f"{names[module]}.{kind}"


def _stored(name: str, array: np.ndarray, config: Any) -> np.ndarray:
    """A tensor as llama.cpp keeps it: neighbours rotated in llama, norms as 1 + w in Gemma."""
    if ARCHITECTURES[config.model_type] == "llama":
        for part, heads in (
            (".q_proj.", config.num_attention_heads),
            (".k_proj.", config.num_key_value_heads),
        ):
            if part in name:
                size = array.shape[0] // heads
                order = [
                    head * size + half * (size // 2) + i
                    for head in range(heads)
                    for i in range(size // 2)
                    for half in range(2)
                ]
                array = array[order]
    if config.model_type.startswith("gemma") and name.endswith("norm.weight"):
        array = array + np.float32(1.0)
    return np.ascontiguousarray(array)


def _add_tokenizer(writer: gguf.GGUFWriter, split: str, sentencepiece: bool, merge: str) -> None:
    if sentencepiece:
        tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
        kinds = [2, 3, 3] + [6] * 256
        words = ["▁", "a", "b", "c", "ab", "▁ab", "▁abc"]
        scores = [0.0] * len(tokens) + [float(-i) for i in range(len(words))]
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        tokens, kinds = tokens + words, kinds + [1] * len(words)
        scores += [-100.0] * (VOCABULARY - len(tokens))
        writer.add_token_scores(scores)
    else:
        merges = ["a b", "ab c", "Ġ abc", merge]
        tokens = ["<|end|>", "<|start|>", *bytes_to_unicode().values()]
        kinds = [3, 3] + [1] * 256
        tokens += [merge.replace(" ", "") for merge in merges]
        kinds += [1] * len(merges)
        writer.add_tokenizer_model("gpt2")
        if split:
            writer.add_tokenizer_pre(split)
        writer.add_token_merges(merges)
    unused = [f"<unused{i}>" for i in range(VOCABULARY - len(tokens))]
    writer.add_token_list([*tokens, *unused])
    writer.add_token_types(kinds + [5] * len(unused))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2 if sentencepiece else 0)
    writer.add_pad_token_id(0)  # transformers takes 32000 in Phi-3 otherwise
