"""Which text the perplexity is measured on."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from raysplit.base.config import Config, UserPath

Source = Literal["embedded", "wikitext-2", "file"]


class CorpusConfig(Config):
    """A source of text and the rule that cuts it into sentences.

    Attributes:
        source: `embedded` (held-out part of CPython's documentation), `wikitext-2` (through
            `datasets`, at a pinned revision) or `file` (a local UTF-8 text file).
        path: The text file of source `file`; with `wikitext-2` a local copy of its raw split, which
            is then not loaded from the hub.
        split: The split of `wikitext-2`.
        revision: The pinned commit of the `Salesforce/wikitext` data set.
        min_words: Shorter sentences are left out; see docs/models.md for scripts without spaces.
        max_words: Longer sentences are left out.
        max_sentences: At most this many, drawn by `seed`; None takes all.
        seed: Fixes the order in which sentences are drawn.
    """

    source: Source = "embedded"
    path: UserPath | None = None
    split: Literal["train", "validation", "test"] = "test"
    revision: str = "b08601e04326c79dfdd32d625aee71d232d685c3"
    min_words: int = Field(default=5, ge=1)
    max_words: int = Field(default=60, ge=1)
    max_sentences: int | None = Field(default=None, ge=2)
    seed: int = 0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.source == "file" and self.path is None:
            raise ValueError("corpus.source: file needs corpus.path, a UTF-8 text file")
        if self.source == "embedded" and self.path is not None:
            raise ValueError(
                "corpus.path goes with corpus.source: file, or wikitext-2 (a local copy of it)"
            )
        if self.min_words > self.max_words:
            raise ValueError(
                f"min_words {self.min_words} exceeds max_words {self.max_words}: no sentence fits"
            )
        return self

    def refuse_sentence_rules(self) -> None:
        """Refuse what chooses sentences where the text is not cut into any.

        Raises:
            ValueError: With the first such value that is not the default.
        """
        for name in ("min_words", "max_words", "max_sentences"):
            value, default = getattr(self, name), CorpusConfig.model_fields[name].default
            if value != default:
                raise ValueError(
                    f"corpus.{name}={value} chooses sentences, and protocol.unit: sliding_window "
                    "takes the whole text: leave it out, or set protocol.unit to sentence"
                )
