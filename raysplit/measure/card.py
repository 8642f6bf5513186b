"""The protocol card: everything that two perplexities must share before they may be compared."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Any

from raysplit.base.files import sha256_of
from raysplit.corpus.batches import BATCH_SEQUENCES, BLOCK_SEQUENCES, TokenCorpus
from raysplit.corpus.config import CorpusConfig
from raysplit.corpus.sentences import SENTENCE_RULES
from raysplit.corpus.sequences import ProtocolConfig
from raysplit.link.config import LinkConfig
from raysplit.measure.anchors import AnchorPlan
from raysplit.model.checkpoint import Checkpoint
from raysplit.model.config import ModelConfig
from raysplit.model.tokenizer import tokenizer_sha256
from raysplit.perplexity.anchored import FIRST_SEQUENCES

ANCHORED_FORMAT = 1
"""Raised by hand when anchored estimates give other values than before for the same rest."""
MEASURING_FORMAT = 2
"""Raised by hand when link, engine or estimator give other values than before for the same rest."""
_LIBRARIES = ("torch", "transformers", "tokenizers")

# Names and notes of a config, or what the card holds elsewhere; everything else may decide a value.
_NO_VALUE = frozenset(
    {
        "_name_or_path", "transformers_version", "architectures", "dtype", "id2label", "label2id",
        "problem_type", "use_cache", "initializer_range",
    }
)  # fmt: skip
# What people look for; the hash holds the rest too.
_READ_BY_PEOPLE = (
    "hidden_size", "max_position_embeddings", "rope_parameters", "sliding_window", "rms_norm_eps",
    "layer_norm_eps", "hidden_act", "hidden_activation", "tie_word_embeddings", "logit_scale",
    "final_logit_softcapping", "attn_logit_softcapping",
)  # fmt: skip


def protocol_card(
    *,
    checkpoint: Checkpoint,
    model: ModelConfig,
    corpus: CorpusConfig,
    tokens: TokenCorpus,
    protocol: ProtocolConfig,
    link: LinkConfig,
    tokenizer: Any,  # noqa: ANN401 - transformers types it as Any
    prefix_id: int | None,
    target_stderr: float,
    anchors: AnchorPlan | None,
    device: str,
    gpu: str | None = None,
) -> dict[str, Any]:
    """Return the card as a JSON value; its hash is part of every setting's key.

    CUDA's random numbers depend on how many cores a GPU has, so its model is in the card.
    """
    prefix = None if prefix_id is None else tokenizer.convert_ids_to_tokens(prefix_id)
    return {
        "model": described_model(checkpoint, model),
        "tokenizer": {"sha256": tokenizer_sha256(tokenizer), "prefix": prefix},
        "corpus": {
            **_text(corpus, protocol),
            "sha256": tokens.sha256,
            "sequences": len(tokens.sequences),
            "scored_tokens": int(tokens.tokens_N.sum()),
            **_use(corpus, tokens),
        },
        "protocol": protocol.model_dump(mode="json"),
        # A packet that is lost is lost, in whichever mode.
        "link": link.model_dump(mode="json", exclude={"mode"}),
        "estimate": {
            "format": MEASURING_FORMAT,
            "target_stderr": target_stderr,
            "block_sequences": BLOCK_SEQUENCES,
            "batch_sequences": BATCH_SEQUENCES,
            **_anchored(anchors),
        },
        "device": device if gpu is None else f"{device} ({gpu})",
        "libraries": {name: importlib.metadata.version(name) for name in _LIBRARIES},
    }


def described_model(checkpoint: Checkpoint, model: ModelConfig) -> dict[str, Any]:
    """Return all of a model that decides a value, its tokenizer apart."""
    return {
        "name": model.name,
        "architecture": checkpoint.architecture,
        "layers": checkpoint.layers,
        **_config(checkpoint),
        "weights_sha256": checkpoint.weights_sha256(),
        "dtype": model.dtype,
        "attention": checkpoint.family.attention(model.attention),
    }


def _config(checkpoint: Checkpoint) -> dict[str, Any]:
    """The resolved transformers config: its hash, and what people look for by name."""
    whole: dict[str, Any] = checkpoint.config.to_dict()
    deciding = {key: value for key, value in whole.items() if key not in _NO_VALUE}
    shown = {key: deciding[key] for key in _READ_BY_PEOPLE if key in deciding}
    return {"config": shown, "config_sha256": sha256_of(deciding)}


def _text(corpus: CorpusConfig, protocol: ProtocolConfig) -> dict[str, Any]:
    """Where the text is from and how it is cut; a file's place says nothing, its tokens do."""
    unused = {"path"}
    if corpus.source != "wikitext-2":
        unused |= {"split", "revision"}
    if protocol.unit != "sentence":
        unused |= {"min_words", "max_words", "max_sentences"}
    described = corpus.model_dump(mode="json", exclude=unused)
    if protocol.unit == "sentence":
        described["sentence_rule"] = SENTENCE_RULES[corpus.source]
    if corpus.source == "embedded":  # the text is Python's own, and changes with it
        described["python"] = platform.python_version()
    return described


def _use(corpus: CorpusConfig, tokens: TokenCorpus) -> dict[str, Any]:
    """What of a user's text is used, left out and cut; a pinned text's rules say it already."""
    if corpus.source != "file" or tokens.use is None:
        return {}
    return {"sentences": tokens.use.as_dict()}


def _anchored(anchors: AnchorPlan | None) -> dict[str, Any]:
    """What an anchored estimate rests on; without anchors the card is silent about them."""
    if anchors is None:
        return {}
    return {
        "anchors": {
            "format": ANCHORED_FORMAT,
            "settings": "; ".join(anchors.describe()),
            "for_settings": anchors.settings,
            "first_sequences": FIRST_SEQUENCES,
        }
    }
