"""What measuring answers: the row of a setting, and a block of an anchor.

Shape suffix: B sequences of the block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

from raysplit.base.arrays import FloatArray
from raysplit.measure.setting import Setting
from raysplit.perplexity.estimate import Estimate

Status = Literal["done", "invalid", "quarantined"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What became of one setting.

    Attributes:
        setting: The setting.
        status: `done`; `invalid` (NaN or inf, see reason); `quarantined` (gave up after attempts).
        log_ppl: Natural logarithm of the perplexity (Eq. 6), or None.
        stderr: Standard error of log_ppl against the full corpus.
        sequences: Sequences that entered the estimate.
        tokens: Scored tokens that entered the estimate.
        recomputed: Sequences that the link touched, so that their suffix was run.
        seconds: Wall time on its worker.
        anchor_sequences: Sequences of the anchors that the estimate rests on besides; 0 without.
        attempts: How often the setting was started.
        reason: Why it is not `done`; for a done row, a note such as a halved batch.
        worker: Who measured it.
        finished: Unix time.
    """

    setting: Setting
    status: Status
    log_ppl: float | None = None
    stderr: float | None = None
    sequences: int = 0
    tokens: int = 0
    recomputed: int = 0
    seconds: float = 0.0
    anchor_sequences: int = 0
    attempts: int = 1
    reason: str | None = None
    worker: str = ""
    finished: float = 0.0

    @classmethod
    def of_estimate(
        cls,
        setting: Setting,
        estimate: Estimate,
        *,
        recomputed: int,
        seconds: float,
        anchor_sequences: int = 0,
        note: str | None = None,
    ) -> Self:
        """Return the row of a setting that was measured."""
        return cls(
            setting=setting,
            status="done",
            log_ppl=estimate.log_ppl,
            stderr=estimate.stderr,
            sequences=estimate.sequences,
            tokens=estimate.tokens,
            recomputed=recomputed,
            seconds=seconds,
            anchor_sequences=anchor_sequences,
            reason=note,
        )


@dataclass(frozen=True, slots=True, eq=False)
class AnchorBlock:
    """What an anchor did to one block of the corpus.

    Attributes:
        setting: The anchor.
        block: The block's number.
        damages_B: NLL under the link less the clean NLL of its sequences, in drawing order, nats.
        recomputed: Sequences whose suffix was run.
        seconds: Wall time on its worker.
    """

    setting: Setting
    block: int
    damages_B: FloatArray
    recomputed: int
    seconds: float

    def key(self, card_sha256: str) -> str:
        """Name it among all blocks of all anchors."""
        return anchor_block_key(card_sha256, self.setting, self.block)


def anchor_block_key(card_sha256: str, setting: Setting, block: int) -> str:
    """Name a block of an anchor."""
    return f"{setting.key(card_sha256)}:{block}"
