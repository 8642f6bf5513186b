"""One setting to measure: split point, link state, seed, codec; and the key that names it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from raysplit.base.files import sha256_of
from raysplit.link.codec import CODEC_FORMAT, IDENTITY, Codec
from raysplit.link.state import LinkState


@dataclass(frozen=True, slots=True)
class Setting:
    """A unit of measuring. Equal settings under an equal protocol card have equal results."""

    split_point: int
    link: LinkState
    seed: int = 0
    codec: Codec = IDENTITY

    def key(self, card_sha256: str) -> str:
        """Hash of everything that decides the result."""
        decides: dict[str, Any] = {
            "card": card_sha256,
            "split_point": self.split_point,
            "link": self.link.as_dict(),
            "seed": self.seed,
        }
        if self.codec != IDENTITY:  # what was measured before there were codecs keeps its key
            decides["codec"] = {"name": self.codec.name, "format": CODEC_FORMAT}
        return sha256_of(decides)


def with_each_codec(settings: Iterable[Setting], codecs: Iterable[Codec]) -> list[Setting]:
    """Return every setting with every codec, so that codecs differ by nothing else."""
    codecs = tuple(codecs)
    return [replace(setting, codec=codec) for setting in settings for codec in codecs]
