"""Tiny randomly initialised models of every known architecture, for any test that needs one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

ARCHITECTURES = (
    "llama", "mistral", "cohere", "qwen2", "qwen3", "phi3", "gemma2", "gemma3_text",
)  # fmt: skip
LAYERS = 5
VOCABULARY = 97
WINDOW = 5

_SHARED: dict[str, Any] = {
    "num_hidden_layers": LAYERS,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 56,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 64,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_OWN: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": WINDOW},
    "cohere": {"use_qk_norm": True, "tie_word_embeddings": True},
    # The first two layers attend to everything, the others within the window.
    "qwen2": {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 2},
    "qwen3": {
        "head_dim": 8,
        "use_sliding_window": True,
        "sliding_window": WINDOW,
        "max_window_layers": 2,
    },
    "phi3": {"sliding_window": WINDOW},
    "gemma2": {"head_dim": 16, "sliding_window": WINDOW, "query_pre_attn_scalar": 16},
    # Every third layer attends to everything, by another rotary table.
    "gemma3_text": {
        "head_dim": 16,
        "sliding_window": WINDOW,
        "sliding_window_pattern": 3,
        "query_pre_attn_scalar": 16,
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            "full_attention": {"rope_type": "linear", "rope_theta": 1e4, "factor": 8.0},
        },
    },
}


def tiny_config(architecture: str, **changes: Any) -> PreTrainedConfig:
    """A config with a sliding window and grouped-query attention where there is such a thing."""
    return AutoConfig.for_model(architecture, **{**_SHARED, **_OWN[architecture], **changes})


def tiny_model(architecture: str, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A float32 model whose every tensor, the norms' too, is far from its trivial value."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(tiny_config(architecture, **changes))
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape), alpha=0.2)
    return model.eval()


def save_tiny(folder: Path, architecture: str, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """Save a tiny model as a safetensors folder and return it."""
    model = tiny_model(architecture, seed, **changes)
    model.save_pretrained(folder)
    return model


def random_ids(batch: int, tokens: int, seed: int = 0) -> torch.Tensor:
    """Token ids (batch, tokens)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, VOCABULARY, (batch, tokens), generator=generator)
