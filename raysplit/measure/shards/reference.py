"""What the clean pass over a corpus leaves: every sequence's NLL and each split point's signal.

Shape suffixes: N sequences, P split points (index 0 is the first), D hidden size.
"""

# torch and safetensors type their NumPy bridges in part only:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
import torch
from safetensors.numpy import load, save

from raysplit.base.arrays import Float32Array, FloatArray, IntArray
from raysplit.link.signal import SignalSums
from raysplit.perplexity.estimate import CleanCorpus


@dataclass(frozen=True, slots=True, eq=False)
class CleanBlock:
    """One block's part: NLL of its sequences, and the signal's sums at every split point."""

    nll_N: FloatArray
    sums_P: Sequence[SignalSums]

    @property
    def is_sound(self) -> bool:
        """Whether every NLL is a number: a block that is not is run again, and named at the end."""
        return bool(np.isfinite(self.nll_N).all())

    def to_bytes(self) -> bytes:
        """Serialise (safetensors)."""
        return save(
            {
                "nll_N": self.nll_N,
                "positions_P": np.array([sums.positions for sums in self.sums_P]),
                "square_sum_P": np.array([sums.square_sum for sums in self.sums_P]),
                "sum_PD": np.stack([sums.sum_D.numpy() for sums in self.sums_P]),
            }
        )

    @classmethod
    def from_bytes(cls, content: bytes) -> CleanBlock:
        """Read what `to_bytes` wrote."""
        arrays = load(content)
        by_split_point = zip(
            arrays["positions_P"].tolist(),
            arrays["square_sum_P"].tolist(),
            arrays["sum_PD"],
            strict=True,
        )
        sums_P = [SignalSums(n, square, torch.from_numpy(s_D)) for n, square, s_D in by_split_point]
        return cls(arrays["nll_N"], sums_P)


@dataclass(frozen=True, slots=True, eq=False)
class CleanReference:
    """The corpus over a perfect link.

    Attributes:
        corpus: Clean NLL and scored tokens of every sequence.
        first_split_point: Split point of index 0.
        rms_P: Root mean square of the transmitted hidden states: the signal of `snr_db`.
        mean_PD: Their mean: what conceals a lost packet under `corpus_mean`.
    """

    corpus: CleanCorpus
    first_split_point: int
    rms_P: FloatArray
    mean_PD: Float32Array

    @classmethod
    def gather(
        cls, blocks: Mapping[int, CleanBlock], tokens_N: IntArray, first_split_point: int
    ) -> CleanReference:
        """Join the blocks, in drawing order."""
        ordered = [blocks[i] for i in range(len(blocks))]
        totals = [reduce(add, sums) for sums in zip(*(b.sums_P for b in ordered), strict=True)]
        return cls(
            CleanCorpus(np.concatenate([block.nll_N for block in ordered]), tokens_N),
            first_split_point,
            np.array([total.rms for total in totals]),
            np.stack([total.mean_D.numpy() for total in totals]),
        )

    def covers(self, split_points: tuple[int, int]) -> bool:
        """Tell whether the first and the last split point of a range lie within this one."""
        behind = self.first_split_point + len(self.rms_P)
        return self.first_split_point <= split_points[0] and split_points[1] < behind

    def rms(self, split_point: int) -> float:
        """Signal at a split point."""
        return float(self.rms_P[self._index(split_point)])

    def mean_D(self, split_point: int) -> torch.Tensor:
        """Mean hidden state at a split point."""
        return torch.from_numpy(self.mean_PD[self._index(split_point)].copy())

    def _index(self, split_point: int) -> int:
        assert self.covers((split_point, split_point)), f"no clean pass over p = {split_point}"
        return split_point - self.first_split_point

    def to_bytes(self) -> bytes:
        """Serialise (safetensors)."""
        return save(
            {
                "nll_N": self.corpus.nll_N,
                "tokens_N": self.corpus.tokens_N,
                "first_split_point": np.array([self.first_split_point]),
                "rms_P": self.rms_P,
                "mean_PD": self.mean_PD,
            }
        )

    @classmethod
    def from_bytes(cls, content: bytes) -> CleanReference:
        """Read what `to_bytes` wrote."""
        arrays = load(content)
        return cls(
            CleanCorpus(arrays["nll_N"], arrays["tokens_N"]),
            int(arrays["first_split_point"][0]),
            arrays["rms_P"],
            arrays["mean_PD"],
        )
