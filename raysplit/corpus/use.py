"""What of a corpus is measured on: how many sentences are used, left out, and cut."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SentenceUse:
    """What became of the sentences of a text; all but `cut_at_context` add up to `found`.

    Attributes:
        found: Sentences of the text.
        outside_length: Left out: fewer words than `corpus.min_words`, or more than `max_words`.
        duplicates: Left out: another one reads the same.
        not_drawn: Left out: beyond `corpus.max_sentences`.
        unscored: Left out: a single token, and no prefix to predict it from.
        cut_at_context: Used, but only the first `protocol.context` tokens of each.
    """

    found: int
    outside_length: int = 0
    duplicates: int = 0
    not_drawn: int = 0
    unscored: int = 0
    cut_at_context: int = 0

    @property
    def used(self) -> int:
        """Sentences of which at least one token is scored."""
        left_out = self.outside_length + self.duplicates + self.not_drawn + self.unscored
        return self.found - left_out

    def as_dict(self) -> dict[str, int]:
        """Return all the numbers by name, for the protocol card."""
        return {"used": self.used, **asdict(self)}

    def describe(self) -> str:
        """Return a line such as "used 18 of 20 sentences, 2 left out by length"."""
        parts = {
            "left out by length": self.outside_length,
            "duplicates": self.duplicates,
            "not drawn": self.not_drawn,
            "of a single token": self.unscored,
            "cut at the context": self.cut_at_context,
        }
        told = [f"{count:,} {name}" for name, count in parts.items() if count]
        return ", ".join([f"used {self.used:,} of {self.found:,} sentences", *told])
