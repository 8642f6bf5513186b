"""A checkpoint's tokenizer: loaded, found to fit the model, and hashed."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Sequence
from typing import Any, Literal, cast

from raysplit.base.errors import UserError
from raysplit.model.checkpoint import Checkpoint


def load_tokenizer(checkpoint: Checkpoint) -> Any:  # noqa: ANN401 - transformers types it as Any
    """Return the tokenizer that lies beside the weights.

    Raises:
        UserError: There is none, its files are damaged, or it has no fast form (only that one can
            be written out as a whole, and so be part of the protocol card).
    """
    from transformers import AutoTokenizer

    folder = checkpoint.folder
    try:
        auto_tokenizer = cast("Any", AutoTokenizer)  # typed in part only
        tokenizer = auto_tokenizer.from_pretrained(folder, trust_remote_code=False)
        bos = tokenizer.bos_token_id
    except Exception as error:  # a damaged file shows as any kind of error
        first_line = (str(error).splitlines() or [""])[0]
        raise UserError(
            f"{folder} has no tokenizer that loads ({type(error).__name__}: {first_line}): put the "
            "tokenizer.json and tokenizer_config.json of this model beside the weights"
        ) from None
    if not getattr(tokenizer, "is_fast", False):
        raise UserError(
            f"{folder}: {type(tokenizer).__name__} has no fast form (tokenizer.json): put the "
            "tokenizer.json of this model beside the weights, or choose a model that has one"
        )
    if bos is not None and not isinstance(bos, int):
        raise UserError(
            f"{folder / 'tokenizer_config.json'}: bos_token {tokenizer.bos_token!r} is no token"
        )
    return tokenizer


def prefix_token_id(tokenizer: Any, rule: Literal["auto", "tokenizer", "none"]) -> int | None:  # noqa: ANN401
    """Return the token that a protocol puts before each sequence, if any.

    Args:
        tokenizer: A fast tokenizer.
        rule: See `ProtocolConfig.prefix`.

    Raises:
        UserError: `auto` finds no token, or the tokenizer itself adds several.
    """
    match rule:
        case "none":
            return None
        case "tokenizer":
            return _added_by_itself(tokenizer)
        case "auto":
            ids = (tokenizer.bos_token_id, tokenizer.eos_token_id)
            found = next((i for i in ids if i is not None), None)
            if found is None:
                raise UserError(
                    f"{tokenizer.name_or_path}: its tokenizer names neither a BOS nor an EOS "
                    "token: set protocol.prefix to none"
                )
            return int(found)


def _added_by_itself(tokenizer: Any) -> int | None:  # noqa: ANN401
    encoded = tokenizer("a b", return_special_tokens_mask=True)
    pairs = zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True)
    prefix = [token_id for token_id, _ in itertools.takewhile(lambda pair: pair[1], pairs)]
    if len(prefix) > 1:
        raise UserError(
            f"{tokenizer.name_or_path}: its tokenizer puts {len(prefix)} tokens before a text, and "
            "the link can exempt one: set protocol.prefix to auto or none"
        )
    return int(prefix[0]) if prefix else None


def tokenizer_sha256(tokenizer: Any) -> str:  # noqa: ANN401
    """Hash all that decides which tokens a text gets: the serialised form and special tokens."""
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    text = tokenizer.backend_tokenizer.to_str() + json.dumps(special, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def check_token_ids(checkpoint: Checkpoint, token_lists: Iterable[Sequence[int]]) -> None:
    """Refuse tokens that the model's embedding does not know.

    Raises:
        UserError: There is one.
    """
    largest = max((max(ids) for ids in token_lists if ids), default=0)
    if largest >= checkpoint.vocabulary:
        raise UserError(
            f"{checkpoint.folder}: its tokenizer gives token id {largest}, and the model's "
            f"embedding has {checkpoint.vocabulary} rows: tokenizer and weights are of different "
            "models; put this model's own tokenizer files beside the weights"
        )
