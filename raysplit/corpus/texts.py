"""Read a corpus: paragraphs from its source, and sentences drawn from them."""

# datasets is typed in part only:
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import codecs
import random
import shlex
from dataclasses import dataclass
from pathlib import Path

from raysplit.base.errors import UserError
from raysplit.base.hub_requests import limit_hub_requests
from raysplit.base.proxies import network_remedy
from raysplit.corpus import cpython_docs
from raysplit.corpus.config import CorpusConfig
from raysplit.corpus.sentences import split_into_sentences, words_in
from raysplit.corpus.use import SentenceUse

_BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True, slots=True)
class DrawnSentences:
    """Sentences in the seeded order in which they are drawn, and what was left out."""

    texts: list[str]
    use: SentenceUse


def draw_sentences(config: CorpusConfig) -> DrawnSentences:
    """Read the corpus' sentences, and say what was left out.

    Raises:
        UserError: If the source cannot be read or holds no usable sentence.
    """
    found = [
        sentence
        for paragraph in read_paragraphs(config)
        for sentence in split_into_sentences(paragraph, config.source)
    ]
    low, high = config.min_words, config.max_words
    fitting = [s for s in found if low <= words_in(s, config.source) <= high]
    sentences = list(dict.fromkeys(fitting))
    if len(sentences) < 2:
        raise UserError(
            f"corpus {_name(config)} holds {len(sentences)} sentences of {low}-{high} words "
            f"(and {len(found) - len(fitting)} of other lengths); at least 2 are needed: "
            "widen corpus.min_words/max_words or choose another text"
        )
    random.Random(config.seed).shuffle(sentences)
    drawn = sentences[: config.max_sentences]
    use = SentenceUse(
        found=len(found),
        outside_length=len(found) - len(fitting),
        duplicates=len(fitting) - len(sentences),
        not_drawn=len(sentences) - len(drawn),
    )
    return DrawnSentences(drawn, use)


def read_paragraphs(config: CorpusConfig) -> list[str]:
    """Return the source's paragraphs in their own order.

    Raises:
        UserError: If the file is missing or not UTF-8, or the data set cannot be loaded.
    """
    match config.source:
        case "embedded":
            return list(cpython_docs.held_out_paragraphs())
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

    limit_hub_requests()
    try:
        loaded = load_dataset(
            "Salesforce/wikitext", "wikitext-2-raw-v1", revision=config.revision, split=config.split
        )
    except Exception as error:  # datasets raises many kinds; each means "not to be had here"
        raise UserError(
            f"WikiText-2 could not be loaded ({type(error).__name__}): {network_remedy()}, or give "
            f"a local copy of its {config.split} split with --set corpus.path=FILE"
        ) from None
    return [str(line) for line in loaded["text"]]


def _name(config: CorpusConfig) -> str:
    return str(config.path) if config.path else config.source
