"""The protocol card: everything that two perplexities must share before they may be compared."""

from __future__ import annotations

import importlib.metadata
from typing import Any

from raysplit.corpus.batches import BATCH_SEQUENCES, BLOCK_SEQUENCES, TokenCorpus
from raysplit.corpus.config import CorpusConfig
from raysplit.corpus.sequences import ProtocolConfig
from raysplit.link.config import LinkConfig
from raysplit.model.checkpoint import Checkpoint
from raysplit.model.config import ModelConfig

MEASURING_FORMAT = 1
"""Raised by hand when link, engine or estimator give other values than before for the same rest."""
_LIBRARIES = ("torch", "transformers", "tokenizers")


def protocol_card(
    *,
    checkpoint: Checkpoint,
    model: ModelConfig,
    corpus: CorpusConfig,
    tokens: TokenCorpus,
    protocol: ProtocolConfig,
    link: LinkConfig,
    bos: str | None,
    tokenizer_sha256: str,
    target_stderr: float,
    device: str,
) -> dict[str, Any]:
    """Return the card as a JSON value; its hash is part of every setting's key."""
    return {
        "model": {
            "name": model.name,
            "architecture": checkpoint.architecture,
            "layers": checkpoint.layers,
            "weights_sha256": checkpoint.weights_sha256(),
            "dtype": model.dtype,
            "attention": checkpoint.family.attention(model.attention),
        },
        "tokenizer": {"sha256": tokenizer_sha256, "bos": bos},
        "corpus": {
            "source": corpus.source,
            "sha256": tokens.sha256,
            "sequences": len(tokens.sequences),
            "scored_tokens": int(tokens.tokens_N.sum()),
        },
        "protocol": protocol.model_dump(mode="json"),
        "link": link.model_dump(mode="json"),
        "estimate": {
            "format": MEASURING_FORMAT,
            "target_stderr": target_stderr,
            "block_sequences": BLOCK_SEQUENCES,
            "batch_sequences": BATCH_SEQUENCES,
        },
        "device": device,
        "libraries": {name: importlib.metadata.version(name) for name in _LIBRARIES},
    }
