"""Peak memory of a UE actor that keeps the hidden states of a plan: SmolLM2-135M's shape.

The weights are random and so are the words, as many as 1,000 sentences of WikiText-2's test split
have (31,140 tokens); neither matters to memory.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import ray

from bench.random_checkpoint import write_random_checkpoint
from bench.report import BenchReport, Options
from raysplit.base.memory import peak_memory_bytes
from raysplit.corpus.batches import TokenCorpus
from raysplit.corpus.sequences import TokenSequence
from raysplit.link.config import LinkConfig
from raysplit.measure.config import GB, BackendConfig
from raysplit.measure.on_ray.backend import RayBackend
from raysplit.measure.shards.job import Job
from raysplit.model.checkpoint import open_checkpoint
from raysplit.model.config import ModelConfig
from raysplit.model.precision import resolve_dtype
from raysplit.model.zoo import SMOLLM2

_SHAPE = SMOLLM2.shape
_SPLIT_POINTS = (1, 29)
_ASKED = tuple(range(2, 30, 3))  # ten of them
_WORDS = (5, 57)  # a sentence's fewest and most, 31 in the mean


def add(report: BenchReport, options: Options) -> None:
    """Weigh the actor in both number formats; `ue_gb` is that of the one this CPU measures in."""
    sentences = 64 if options.quick else 1000
    with tempfile.TemporaryDirectory(prefix="raysplit-bench-") as folder:
        assert _SHAPE is not None
        write_random_checkpoint(_SHAPE, Path(folder))
        for dtype in ("float32", "bfloat16"):
            peak_bytes, kept_bytes = _weigh(_job(Path(folder), dtype, sentences))
            found = {"gb": peak_bytes / GB, "kept_gb": kept_bytes / GB}
            report.add({f"ue_{dtype}_{name}": value for name, value in found.items()})
            if dtype == resolve_dtype("auto", "cpu"):
                report.add({f"ue_{name}": value for name, value in found.items()})


def _weigh(job: Job) -> tuple[int, int]:
    """Run the clean pass on Ray, with the hidden states of ten split points kept.

    Returns:
        The UE actor's peak resident memory, pages of Ray's object store that it wrote included; and
        the hidden states among it.
    """

    def weigh(actor: Any) -> tuple[int, int]:  # noqa: ANN401 - within the actor
        peak_bytes = peak_memory_bytes()
        payloads = (ray.get(ref) for refs in actor._kept.values() for ref in refs.values())
        return peak_bytes, sum(array.nbytes for payload in payloads for array in payload)

    backend = RayBackend(job, BackendConfig(edge_shards=1))
    try:
        for _ in backend.clean_blocks(keep=_ASKED):
            pass
        (ue,) = backend._ues
        return ray.get(ue.__ray_call__.remote(weigh))
    finally:
        backend.close()


def _job(folder: Path, dtype: str, sentences: int) -> Job:
    checkpoint = open_checkpoint(folder)
    rng = np.random.default_rng(0)
    lengths = rng.integers(*_WORDS, endpoint=True, size=sentences) + 1  # behind BOS
    ids = [tuple(rng.integers(3, checkpoint.vocabulary, length).tolist()) for length in lengths]
    return Job(
        checkpoint=checkpoint,
        model=ModelConfig(name=str(folder), dtype=dtype),
        corpus=TokenCorpus(tuple(TokenSequence(token_ids, 1) for token_ids in ids)),
        link=LinkConfig(),
        target_stderr=0.0,
        split_points=_SPLIT_POINTS,
    )
