"""One setting to measure: a split point, a link state, a seed; and the key that names it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

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


def sha256_of(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """Hash a JSON value in its canonical form (sorted keys, no white space)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
