"""From configuration to a job: open the checkpoint, tokenise the corpus, fill in the card."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from raysplit.base.errors import UserError
from raysplit.corpus.batches import TokenCorpus
from raysplit.corpus.config import CorpusConfig
from raysplit.corpus.sequences import (
    ProtocolConfig,
    sentence_sequences,
    window_sequences,
)
from raysplit.corpus.texts import draw_sentences, read_paragraphs
from raysplit.link.codec import Codec
from raysplit.link.config import LinkConfig
from raysplit.measure.anchors import AnchorPlan
from raysplit.measure.card import protocol_card
from raysplit.measure.config import MeasuringConfig
from raysplit.measure.shards.job import Job
from raysplit.model import zoo
from raysplit.model.checkpoint import Checkpoint, open_checkpoint
from raysplit.model.config import ModelConfig
from raysplit.model.load import refuse_unbuildable
from raysplit.model.precision import resolve_dtype
from raysplit.model.rotary import known_positions
from raysplit.model.tokenizer import check_token_ids, load_tokenizer, prefix_token_id


def prepare_job(
    *,
    model: ModelConfig,
    corpus: CorpusConfig,
    protocol: ProtocolConfig,
    link: LinkConfig,
    measuring: MeasuringConfig,
    split_points: tuple[int, int],
    device: str,
    gpu: str | None = None,
    anchors: AnchorPlan | None = None,
    codecs: Iterable[Codec] = (),
) -> tuple[Job, dict[str, Any]]:
    """Return the job and its protocol card.

    Raises:
        UserError: If the checkpoint or the corpus cannot be used, a split point leaves the model,
            or one of the codecs cannot serve its hidden size.
    """
    model = model.model_copy(update={"dtype": resolve_dtype(model.dtype, device)})
    checkpoint = open_model(model)
    zoo.check_split_points(model.name, checkpoint.layers, split_points)
    refuse_unbuildable(checkpoint)
    for codec in codecs:
        codec.check_hidden_size(checkpoint.hidden_size)
    tokenizer = load_tokenizer(checkpoint)
    prefix_id = prefix_token_id(tokenizer, protocol.prefix)
    if prefix_id is None:
        link = link.model_copy(update={"exempt_prefix": False})  # there is nothing to exempt
    tokens = tokenise(tokenizer, prefix_id, corpus, protocol)
    check_token_ids(checkpoint, (sequence.token_ids for sequence in tokens.sequences))
    _check_lengths(checkpoint, tokens)
    card = protocol_card(
        checkpoint=checkpoint,
        model=model,
        corpus=corpus,
        tokens=tokens,
        protocol=protocol,
        link=link,
        tokenizer=tokenizer,
        prefix_id=prefix_id,
        target_stderr=measuring.target_stderr,
        anchors=anchors,
        device=device,
        gpu=gpu,
    )
    job = Job(
        checkpoint=checkpoint,
        model=model,
        corpus=tokens,
        link=link,
        target_stderr=measuring.target_stderr,
        split_points=split_points,
        anchors=anchors,
        gpu=gpu,
    )
    return job, card


def open_model(model: ModelConfig) -> Checkpoint:
    """Open the checkpoint that a model's configuration names."""
    entry = zoo.find(model.name)
    return open_checkpoint(entry.location, model.revision or entry.revision)


def tokenise(
    tokenizer: Any,  # noqa: ANN401 - transformers types it as Any
    prefix_id: int | None,
    corpus: CorpusConfig,
    protocol: ProtocolConfig,
) -> TokenCorpus:
    """Read a corpus and cut it into scored sequences, each after the prefix.

    Raises:
        UserError: If nothing can be scored.
    """
    cut = _sentences if protocol.unit == "sentence" else _windows
    tokens = cut(tokenizer, prefix_id, corpus, protocol)
    if not tokens.sequences:
        raise UserError(
            f"corpus {corpus.path or corpus.source} has no token to score by unit: "
            f"{protocol.unit}; give it longer text"
        )
    return tokens


def _sentences(
    tokenizer: Any,  # noqa: ANN401
    prefix_id: int | None,
    corpus: CorpusConfig,
    protocol: ProtocolConfig,
) -> TokenCorpus:
    drawn = draw_sentences(corpus)
    ids: list[list[int]] = tokenizer(drawn.texts, add_special_tokens=False)["input_ids"]
    sequences = sentence_sequences(ids, prefix_id, protocol.context)
    longest = protocol.context - (prefix_id is not None)
    use = replace(
        drawn.use,
        unscored=len(ids) - len(sequences),
        cut_at_context=sum(len(tokens) > longest for tokens in ids),
    )
    return TokenCorpus(tuple(sequences), use)


def _windows(
    tokenizer: Any,  # noqa: ANN401
    prefix_id: int | None,
    corpus: CorpusConfig,
    protocol: ProtocolConfig,
) -> TokenCorpus:
    text = "\n\n".join(read_paragraphs(corpus))
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    windows = window_sequences(ids, prefix_id, protocol.context, protocol.stride)
    random.Random(corpus.seed).shuffle(windows)  # an estimate draws them in this order
    return TokenCorpus(tuple(windows))


def _check_lengths(checkpoint: Checkpoint, tokens: TokenCorpus) -> None:
    """Refuse sequences that are longer than what the model was trained for.

    Raises:
        UserError: One is.
    """
    longest = max(len(sequence.token_ids) - 1 for sequence in tokens.sequences)
    positions = known_positions(checkpoint.config)
    if positions is not None and longest > positions:
        raise UserError(
            f"a sequence has {longest} tokens but the model knows {positions} positions: "
            f"set protocol.context to {positions} or less"
        )
