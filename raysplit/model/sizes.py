"""The sizes that decide what a decoder costs, from a name, folder or config.json: without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raysplit.base.errors import UserError
from raysplit.base.files import at_home
from raysplit.model.families import family_of
from raysplit.model.location import local_folder
from raysplit.model.tensor_files import CONFIG_FILE, read_json
from raysplit.model.zoo import MODELS, Model, find

# What transformers takes where a config.json is silent: these heads read the embedding, heads of
# these widths (elsewhere d / heads), and as many key and value heads as query heads.
_TIED_BY_DEFAULT = frozenset({"cohere", "gemma2", "gemma3_text"})
_HEAD_SIZE_BY_DEFAULT = {"gemma2": 256, "gemma3_text": 256, "qwen3": 128}
_KV_HEADS_BY_DEFAULT = frozenset({"llama", "cohere", "phi3"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What of a decoder's config counts FLOPs and bytes, under transformers' own names.

    `raysplit.model.flops` takes it in the place of a config.

    Attributes:
        name: What the model is called.
        num_hidden_layers: Decoder layers L.
        hidden_size: Width d of the hidden state.
        num_attention_heads: Query heads.
        num_key_value_heads: Key and value heads.
        head_dim: Width of a head.
        intermediate_size: Inner width of the gated feed-forward block.
        vocab_size: Rows of the embedding.
        tie_word_embeddings: Whether the head reads the embedding matrix.
    """

    name: str
    num_hidden_layers: int
    hidden_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    tie_word_embeddings: bool

    @property
    def layer_weights(self) -> int:
        """Elements of a layer's matrices: query, output, key, value, and three of the gated block.

        Norms and biases are not counted (below 0.1 %).
        """
        attention = 2 * (self.num_attention_heads + self.num_key_value_heads) * self.head_dim
        return self.hidden_size * (attention + 3 * self.intermediate_size)

    @property
    def embedding_weights(self) -> int:
        """Elements of the embedding matrix, and as many of the head's, tied or not."""
        return self.vocab_size * self.hidden_size

    @property
    def kv_elements(self) -> int:
        """Keys and values that one layer keeps of one token."""
        return 2 * self.num_key_value_heads * self.head_dim


def sizes_of(name: str) -> Sizes:
    """Return the sizes of a model that has a name here, of a folder or of a config.json.

    Nothing is imported, fetched or loaded: a model of the zoo need not be on this machine.

    Raises:
        UserError: Nothing of that name, or a config that cannot be cut or is incomplete.
    """
    path = at_home(Path(name))
    if path.suffix == ".json":
        return sizes_from_config(read_json(path), str(path))
    model = next((known for known in MODELS.values() if _is_called(known, name)), None) or find(
        name
    )
    if model.shape is not None:
        return _sizes_of_shape(model)
    folder = local_folder(model.location)
    if folder is None:
        raise UserError(
            f"the sizes of {name!r} are not known here, and nothing is fetched for a budget: name "
            f"its folder or its {CONFIG_FILE}"
        )
    return sizes_from_config(read_json(folder / CONFIG_FILE), model.name)


def sizes_from_config(config: Mapping[str, Any], name: str) -> Sizes:
    """Return the sizes in a raw `config.json`, with transformers' defaults where it is silent.

    Raises:
        UserError: Its structure cannot be cut, or a size is missing or no positive whole number.
    """
    family_of(config, name)
    kind = str(config["model_type"])

    def size(key: str, default: int | None = None) -> int:
        value = default if config.get(key) is None else config[key]
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(
                f"{name}: {key} of its {CONFIG_FILE} is {value!r}; it must be a whole number of at "
                "least 1: download it again"
            )
        return value

    heads, width = size("num_attention_heads"), size("hidden_size")
    tied = config.get("tie_word_embeddings")
    return Sizes(
        name=name,
        num_hidden_layers=size("num_hidden_layers"),
        hidden_size=width,
        num_attention_heads=heads,
        num_key_value_heads=size(
            "num_key_value_heads", heads if kind in _KV_HEADS_BY_DEFAULT else None
        ),
        head_dim=size("head_dim", _HEAD_SIZE_BY_DEFAULT.get(kind, width // heads)),
        intermediate_size=size("intermediate_size"),
        vocab_size=size("vocab_size"),
        tie_word_embeddings=kind in _TIED_BY_DEFAULT if tied is None else bool(tied),
    )


def _is_called(model: Model, name: str) -> bool:
    return name.lower() in (model.name.lower(), model.location.lower())


def _sizes_of_shape(model: Model) -> Sizes:
    shape = model.shape
    assert shape is not None
    return Sizes(
        name=model.name,
        num_hidden_layers=shape.layers,
        hidden_size=shape.hidden_size,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.hidden_size // shape.heads,
        intermediate_size=shape.ffn_size,
        vocab_size=shape.vocabulary,
        tie_word_embeddings=shape.tied,
    )
