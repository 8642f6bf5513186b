"""Which tokens are predicted from which: the two perplexity protocols.

`sentence` scores every sentence on its own, a prefix token (BOS, say) first:

    inputs    <s> The phone sends its
    targets   The phone sends its layers
    scored     x    x    x    x    x

`sliding_window` walks over one long text. Each window starts with the prefix again (the position
that the edge computes itself) and scores only what no window before it has scored, here with
context 6 and stride 2:

    text          a b c d e f g h i
    window 1  <s>|a b c d e|                scores a b c d e
    window 2  <s>    |c d e[f g]            scores f g
    window 3  <s>        |e f g[h i]        scores h i

Every token of the text is predicted exactly once. All but those of the first window see at least
`context - 1 - stride` tokens before them; the last window, too, is a full one and scores what is
left.

Without a prefix nothing predicts the first token of a sentence or text, so it is not scored.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import model_validator

from raysplit.base.config import Config


class ProtocolConfig(Config):
    """How a corpus becomes scored sequences.

    Attributes:
        unit: `sentence` (each on its own) or `sliding_window` (over the joined text).
        context: Most tokens in a sequence, the prefix included.
        stride: Tokens by which a window moves, and scores, at a time.
        prefix: The token before each sequence: `auto` (BOS, else EOS, as lm-evaluation-harness has
            it), `tokenizer` (what the tokenizer itself puts there) or `none`. Models keep huge
            activations at their first position, whatever the token: without a prefix those cross
            the link.
    """

    unit: Literal["sentence", "sliding_window"] = "sentence"
    context: int = 512
    stride: int = 256
    prefix: Literal["auto", "tokenizer", "none"] = "auto"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.context < 2:
            raise ValueError(
                f"context={self.context} predicts nothing: it must be at least 2 tokens"
            )
        if self.unit == "sliding_window" and not 1 <= self.stride < self.context:
            raise ValueError(
                f"stride={self.stride} with context={self.context} leaves tokens without anything "
                f"before them: it must be from 1 to {self.context - 1}"
            )
        return self


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """Tokens of one forward pass; the last one is only a target and is never fed.

    Attributes:
        token_ids: All tokens, the prefix included where there is one.
        first_scored: Tokens from this position to the end are predicted and scored; at least 1.
    """

    token_ids: tuple[int, ...]
    first_scored: int


def sentence_sequences(
    token_lists: Iterable[Sequence[int]], prefix_id: int | None, context: int
) -> list[TokenSequence]:
    """Return one sequence per sentence, in order; a sentence with nothing to predict is left out.

    Args:
        token_lists: Each sentence's tokens, without special tokens.
        prefix_id: Token put before each sentence, if any.
        context: Most tokens of a sequence, prefix included; what exceeds it is cut off, unscored.
    """
    prefix = () if prefix_id is None else (prefix_id,)
    cut = ((*prefix, *tokens)[:context] for tokens in token_lists)
    return [TokenSequence(token_ids, 1) for token_ids in cut if len(token_ids) > 1]


def window_sequences(
    token_ids: Sequence[int], prefix_id: int | None, context: int, stride: int
) -> list[TokenSequence]:
    """Return the windows over one text, in order; see the drawing above.

    Args:
        token_ids: The text's tokens, without special tokens.
        prefix_id: Token put before each window, if any.
        context: Most tokens of a window, prefix included.
        stride: Tokens scored by each window after the first, from 1 to context - 1.
    """
    assert 1 <= stride < context, "ProtocolConfig refuses other strides"
    prefix = () if prefix_id is None else (prefix_id,)
    width = context - len(prefix)
    windows: list[TokenSequence] = []
    scored = 0 if prefix else 1  # tokens of the text that are done with
    end = min(width, len(token_ids))
    while scored < end:
        start = max(0, end - width)
        window = (*prefix, *token_ids[start:end])
        windows.append(TokenSequence(window, len(prefix) + scored - start))
        scored, end = end, min(end + stride, len(token_ids))
    return windows
