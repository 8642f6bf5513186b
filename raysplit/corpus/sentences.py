"""Where sentences end, and how many words they have: one rule for each kind of source.

English texts of a known form (`embedded`, `wikitext-2`) end where their own rule says. Any other
text (`file`) ends where Unicode says (Standard Annex #29, rules SB5 to SB11), whatever its script.
"""

from __future__ import annotations

import itertools
import re

import regex

from raysplit.corpus.config import Source

SENTENCE_RULES = {"embedded": 1, "wikitext-2": 1, "file": 2}
"""A number raised by hand when a source's text is cut into other sentences than before."""

# A sentence ends at . ! or ? before white space and something that may open the next one. This also
# cuts WikiText's " . " (a token of its own there). "e.g. the" goes on, because "t" opens nothing.
_ENGLISH_END = re.compile(r"(?<=[.!?])\s+(?=[\"'(\[]?\s?[A-Z0-9])")

# Classes of the standard: ST ends sentences (! ? 。 ؟ ।), AT is the full stop, which abbreviates
# too; CL closes brackets and quotes, SP are spaces, SC goes on (a comma), NU are digits; UP, LO
# and LE are capital, small and other letters. Marks (EX, FO) belong to the letter before (SB5).
_MARKS = r"[\p{SB=EX}\p{SB=FO}]*+"
# For the standard any bracket or quote closes; one that stands before a letter opens the next
# sentence, as it does in Chinese, where no space tells.
_OPENING = r"[\p{Ps}\p{Pi}]{1,4}[\p{L}\p{N}]"
_CLOSING = rf"(?:(?!{_OPENING})\p{{SB=CL}}{_MARKS})*+"
_SPACES = rf"(?:\p{{SB=SP}}{_MARKS})*+"
_NO_LETTER = r"[^\p{SB=LE}\p{SB=UP}\p{SB=LO}\p{SB=SE}\p{SB=CR}\p{SB=LF}\p{SB=ST}\p{SB=AT}]*+"
_SENTENCE_END = regex.compile(
    rf"""(?: \p{{SB=ST}}{_MARKS}
           | \p{{SB=AT}}{_MARKS} (?!\p{{SB=NU}})  # SB6: 3.5
             (?!(?<=[\p{{SB=UP}}\p{{SB=LO}}]{_MARKS}\p{{SB=AT}}{_MARKS})\p{{SB=UP}})  # SB7: U.S.
             (?!{_CLOSING}{_SPACES}{_NO_LETTER}\p{{SB=LO}})  # SB8: e.g. the
         )
         {_CLOSING}{_SPACES}
         (?![\p{{SB=SC}}\p{{SB=ST}}\p{{SB=AT}}])  # SB8a: ...,
    """,
    regex.VERBOSE,
)

# Scripts without spaces between words. Each character of Chinese or Japanese counts as a word, as
# word processors have it; of Thai, Lao, Khmer and Burmese four do (about a word's mean length).
_CHINESE_OR_JAPANESE = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}]")
_THAI_AND_ALIKE = regex.compile(r"\p{Line_Break=Complex_Context}{1,4}")
_LETTER_OR_DIGIT = regex.compile(r"[\p{L}\p{N}]")


def split_into_sentences(paragraph: str, source: Source) -> list[str]:
    """Return all sentences of a paragraph (text without line ends), in order and stripped."""
    pieces = _ENGLISH_END.split(paragraph) if source != "file" else _unicode_pieces(paragraph)
    return [sentence for piece in pieces if (sentence := piece.strip())]


def _unicode_pieces(paragraph: str) -> list[str]:
    ends = [match.end() for match in _SENTENCE_END.finditer(paragraph)]
    return [paragraph[i:j] for i, j in itertools.pairwise([0, *ends, len(paragraph)])]


def words_in(sentence: str, source: Source) -> int:
    """Return how many words a sentence has: what stands between spaces, where there are any."""
    if source != "file":
        return len(sentence.split())
    rest, characters = _CHINESE_OR_JAPANESE.subn(" ", sentence)
    rest, fours = _THAI_AND_ALIKE.subn(" ", rest)
    groups = rest.split()
    if characters or fours:  # what they leave between them may be a mark alone
        groups = [group for group in groups if _LETTER_OR_DIGIT.search(group)]
    return characters + fours + len(groups)
