"""Read a corpus: paragraphs from its source, cut into sentences."""

# datasets is typed in part only:
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import codecs
import random
import re
import shlex
from pathlib import Path

from raysplit.base.errors import UserError
from raysplit.corpus import cpython_docs
from raysplit.corpus.config import CorpusConfig

SENTENCE_RULE = 1
"""Raised by hand when text is cut into other sentences than before."""
# A sentence ends at . ! or ? before white space and something that may open the next one. This also
# cuts WikiText's " . " (a token of its own there). "e.g. the" goes on, because "t" opens nothing.
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[\"'(\[]?\s?[A-Z0-9])")
_BYTE_ORDER_MARK = "\ufeff"


def cut_sentences(paragraph: str, min_words: int, max_words: int) -> list[str]:
    """Cut one paragraph at sentence ends and keep the sentences of min_words to max_words."""
    sentences = (s.strip() for s in _SENTENCE_END.split(paragraph))
    return [s for s in sentences if min_words <= len(s.split()) <= max_words]


def read_sentences(config: CorpusConfig) -> list[str]:
    """Return the corpus' sentences in the seeded order in which they are drawn.

    Raises:
        UserError: If the source cannot be read or holds no usable sentence.
    """
    sentences = [
        sentence
        for paragraph in read_paragraphs(config)
        for sentence in cut_sentences(paragraph, config.min_words, config.max_words)
    ]
    sentences = list(dict.fromkeys(sentences))
    if len(sentences) < 2:
        raise UserError(
            f"corpus {_name(config)} holds {len(sentences)} sentences of "
            f"{config.min_words}-{config.max_words} words; at least 2 are needed: "
            "widen corpus.min_words/max_words or choose another text"
        )
    random.Random(config.seed).shuffle(sentences)
    return sentences[: config.max_sentences]


def read_paragraphs(config: CorpusConfig) -> list[str]:
    """Return the source's paragraphs in their own order.

    Raises:
        UserError: If the file is missing or not UTF-8, or the data set cannot be loaded.
    """
    match config.source:
        case "embedded":
            return [p for p in cpython_docs.paragraphs() if cpython_docs.is_held_out(p)]
        case "wikitext-2":
            if config.path is None:
                return _lines(_download_wikitext(config))
            return _lines(_read_file(config.path).split("\n"))  # as the data set has them
        case "file":
            assert config.path is not None
            return _lines(_read_file(config.path).splitlines())


def _lines(lines: list[str]) -> list[str]:
    stripped = (line.strip() for line in lines)
    return [line for line in stripped if line and not _is_heading(line)]


def _is_heading(line: str) -> bool:
    """Tell a heading of WikiText, such as "= = Life = =", from a line of text."""
    # Lines of thousands of "= " occur, so no pattern that could try every way to cut them.
    return len(line) >= 4 and line.startswith("= ") and line.endswith(" =")


def _read_file(path: Path) -> str:
    """Return a text file's characters without byte order marks, wherever files were joined."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"corpus.path {path} cannot be read ({error.strerror})") from None
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)):
        raise UserError(
            f"corpus.path {path} is UTF-16 or UTF-32 text: convert it, for UTF-16 with "
            f"`{shlex.join(['iconv', '-f', 'UTF-16', '-t', 'UTF-8', str(path)])} > utf8.txt`"
        )
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"corpus.path {path} is not UTF-8 text: convert it first") from None
    if "\0" in text:
        raise UserError(
            f"corpus.path {path} holds NUL bytes: it is no UTF-8 text (UTF-16?); convert it first"
        )
    return text.replace(_BYTE_ORDER_MARK, "")


def _download_wikitext(config: CorpusConfig) -> list[str]:
    from datasets import load_dataset

    try:
        loaded = load_dataset(
            "Salesforce/wikitext", "wikitext-2-raw-v1", revision=config.revision, split=config.split
        )
    except Exception as error:  # datasets raises many kinds; each means "not to be had here"
        raise UserError(
            f"WikiText-2 could not be loaded ({type(error).__name__}): check the network, or give "
            f"a local copy of its {config.split} split with --set corpus.path=FILE"
        ) from None
    return [str(line) for line in loaded["text"]]


def _name(config: CorpusConfig) -> str:
    return str(config.path) if config.path else config.source
