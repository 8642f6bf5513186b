"""What a backend is asked to measure, and what it answers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from raysplit.base.arrays import FloatArray
from raysplit.corpus.batches import TokenCorpus
from raysplit.link.config import LinkConfig
from raysplit.measure.anchors import AnchorPlan
from raysplit.measure.rows import AnchorBlock, Row
from raysplit.measure.setting import Setting
from raysplit.measure.shards.reference import CleanBlock, CleanReference
from raysplit.model.chain import ModelPart
from raysplit.model.checkpoint import Checkpoint
from raysplit.model.config import ModelConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A model cut anywhere between two split points, a corpus, a kind of link and a precision.

    `gpu` is the model of GPU that the protocol card names; None where it names none.
    """

    checkpoint: Checkpoint
    model: ModelConfig
    corpus: TokenCorpus
    link: LinkConfig
    target_stderr: float
    split_points: tuple[int, int]
    anchors: AnchorPlan | None = None
    gpu: str | None = None

    @property
    def all_split_points(self) -> range:
        """Every split point from the first to the last."""
        first, last = self.split_points
        return range(first, last + 1)

    @property
    def all_blocks(self) -> range:
        """Numbers of the corpus' blocks."""
        return range(len(self.corpus.blocks))

    def ue_part(self, devices: tuple[str, ...], threads: int | None = None) -> ModelPart:
        """The embedding and the layers that any split point puts on the UE."""
        return self._part(0, self.split_points[1], devices, threads)

    def edge_part(self, devices: tuple[str, ...], threads: int | None = None) -> ModelPart:
        """The layers that any split point leaves to the edge, the norm and the head."""
        return self._part(self.split_points[0], self.checkpoint.layers, devices, threads)

    def _part(
        self, start: int, stop: int, devices: tuple[str, ...], threads: int | None
    ) -> ModelPart:
        return ModelPart(
            checkpoint=self.checkpoint,
            start=start,
            stop=stop,
            dtype=self.model.dtype,
            attention=self.model.attention,
            devices=devices,
            threads=threads,
        )


AnchorDamages = Mapping[int, FloatArray]
"""The link's seed -> what each anchor under it did to the first sequences, (K, M), in nats."""


class Backend(Protocol):
    """Runs a job's settings somewhere."""

    @property
    def workers(self) -> int:
        """Edge workers that are ready now."""
        ...

    def clean_blocks(
        self, blocks: Sequence[int] | None = None, keep: Collection[int] = ()
    ) -> Iterator[tuple[int, CleanBlock]]:
        """Yield these blocks' parts of the clean pass, or all of them, in any order.

        Hidden states are kept at the split points of `keep`: those that will be asked for.
        """
        ...

    def anchor_blocks(
        self, wanted: Iterable[tuple[Setting, int]], reference: CleanReference
    ) -> Iterator[AnchorBlock]:
        """Yield the blocks of the anchors, in any order."""
        ...

    def run(
        self,
        settings: Iterable[Setting],
        reference: CleanReference,
        anchors: AnchorDamages | None = None,
    ) -> Iterator[Row]:
        """Yield one row a setting, in any order; with anchors, by those of its seed."""
        ...

    def close(self) -> None:
        """Give back everything the backend holds."""
        ...
