"""The embedded model over the demo's link: the job that backends are compared on."""

from __future__ import annotations

import time

from raysplit.corpus.config import CorpusConfig
from raysplit.corpus.sequences import ProtocolConfig
from raysplit.link.config import LinkConfig
from raysplit.measure.config import MeasuringConfig
from raysplit.measure.plan import PlanConfig, make_plan
from raysplit.measure.prepare import prepare_job
from raysplit.measure.setting import Setting
from raysplit.measure.shards.job import Backend, Job
from raysplit.measure.shards.reference import CleanReference
from raysplit.model.config import ModelConfig

SPLIT_POINTS = (1, 10)
NOISE_STD = (0.0, 6.0)


def embedded_job(corpus: CorpusConfig, target_stderr: float) -> Job:
    """Return the embedded model on a corpus, over an AWGN link."""
    job, _ = prepare_job(
        model=ModelConfig(),
        corpus=corpus,
        protocol=ProtocolConfig(unit="sentence", context=256),
        link=LinkConfig(),
        measuring=MeasuringConfig(target_stderr=target_stderr),
        split_points=SPLIT_POINTS,
        device="cpu",
    )
    return job


def clean_reference(job: Job, backend: Backend) -> CleanReference:
    """Run a backend's clean pass, with the hidden states of every split point kept."""
    blocks = dict(backend.clean_blocks(keep=job.all_split_points))
    return CleanReference.gather(blocks, job.corpus.tokens_N, SPLIT_POINTS[0])


def some_settings(count: int, seed: int = 0) -> list[Setting]:
    """Return a plan over the demo's split points and noise."""
    config = PlanConfig(settings=count, seed=seed)
    return make_plan(config, SPLIT_POINTS, {"noise_std": NOISE_STD})


def seconds(backend: Backend, settings: list[Setting], reference: CleanReference) -> float:
    """Time the measuring of some settings."""
    start = time.perf_counter()
    done = sum(row.status == "done" for row in backend.run(settings, reference))
    assert done == len(settings)
    return time.perf_counter() - start
