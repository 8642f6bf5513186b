"""One setting to measure: a split point, a link state, a seed; and the key that names it."""

from __future__ import annotations

from dataclasses import dataclass

from raysplit.base.files import sha256_of
from raysplit.link.state import LinkState


@dataclass(frozen=True, slots=True)
class Setting:
    """A unit of measuring. Equal settings under an equal protocol card have equal results."""

    split_point: int
    link: LinkState
    seed: int = 0

    def key(self, card_sha256: str) -> str:
        """Hash of everything that decides the result."""
        return sha256_of(
            {
                "card": card_sha256,
                "split_point": self.split_point,
                "link": self.link.as_dict(),
                "seed": self.seed,
            }
        )
