"""Which language model is cut."""

from __future__ import annotations

from typing import Literal

from raysplit.base.config import Config


class ModelConfig(Config):
    """The language model.

    Attributes:
        name: A name of `raysplit.model.zoo` ("embedded", "llama2-7b", ...), a Hugging Face id or
            a folder.
        revision: Commit of a Hugging Face id; None takes the zoo's.
        dtype: Number format of weights and hidden states; `auto` is bfloat16 where the device
            multiplies it faster, else float32.
        attention: transformers' attention; `auto` is sdpa where the architecture has it.
    """

    name: str = "embedded"
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    attention: Literal["auto", "sdpa", "eager"] = "auto"
