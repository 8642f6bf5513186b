"""How fast measuring is: ratios, each taken side by side in one run on single-threaded work.

`ray_overhead` and `two_actor_speedup` are about the steady state: the start of Ray and of its
actors, the loading of weights and the clean pass lie before what is timed, on both sides. Both
sides measure the same settings right after one another, in turns of who comes first, and the median
over such pairs counts, as a machine's speed drifts by more than the difference that is looked for.
Ray would give its workers a lower priority (nice 15) than the process that stands beside them; here
they have the same, so that whatever else runs on the machine weighs on both alike.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median, quantiles

import numpy as np
import ray
import torch

from bench.embedded_job import (
    NOISE_STD,
    SPLIT_POINTS,
    clean_reference,
    embedded_job,
    seconds,
    some_settings,
)
from bench.memory import resident_bytes
from bench.plain import MatrixProducts
from bench.random_checkpoint import write_random_checkpoint
from bench.report import NEEDS_WIKITEXT2, BenchReport, Options
from bench.scheduling import service_times, simulated_efficiency, units_per_second
from raysplit.corpus.batches import TokenCorpus
from raysplit.corpus.config import CorpusConfig
from raysplit.corpus.sequences import TokenSequence
from raysplit.link.config import LinkConfig
from raysplit.link.state import LinkState
from raysplit.measure.config import BackendConfig
from raysplit.measure.on_ray.backend import RayBackend
from raysplit.measure.service import in_measuring_order
from raysplit.measure.setting import Setting
from raysplit.measure.shards.edge import EdgeShard
from raysplit.measure.shards.job import Backend, Job
from raysplit.measure.shards.local import LocalBackend
from raysplit.measure.shards.reference import CleanReference
from raysplit.measure.shards.ue import UEShard
from raysplit.model.checkpoint import open_checkpoint
from raysplit.model.config import ModelConfig
from raysplit.model.zoo import PAPER_MODELS

_TARGETS = {
    "suffix_vs_matmul": ("<=", 1.5),
    "ray_overhead": ("<=", 0.10),
    "two_actor_speedup": (">=", 1.8),
    "edge_memory_ratio": ("<=", 1.3),
    "scheduler_units_per_s": (">=", 500.0),
    "simulated_efficiency_64": (">=", 0.95),
}
_MATMUL_SPLIT_POINT = 5
_ROUNDS = 3
_INPROCESS = BackendConfig(kind="inprocess")


def run(options: Options) -> BenchReport:
    """Measure every figure."""
    torch.set_num_threads(1)
    plan = {"split_points": SPLIT_POINTS, "noise_std": NOISE_STD, "target_stderr": 0.01}
    report = BenchReport("measuring", _TARGETS, {"quick": options.quick, **plan})
    _compare_in_process(report, options)
    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        _system_config={"worker_niceness": 0},
    )
    try:
        _compare_with_ray(report, options)
        _weigh_edge_actor(report, options)
        _schedule(report, options)
    finally:
        ray.shutdown()
    return report


def _compare_in_process(report: BenchReport, options: Options) -> None:
    """Against bare matrix products, on WikiText-2."""
    if options.wikitext2 is None:
        report.skip("suffix_vs_matmul", NEEDS_WIKITEXT2)
        return
    corpus = CorpusConfig(
        source="file", path=options.wikitext2, max_sentences=640 if options.quick else None
    )
    job = embedded_job(corpus, target_stderr=0.01)
    backend = LocalBackend(job, _INPROCESS)
    try:
        _compare_with_matmul(report, job, clean_reference(job, backend))
    finally:
        backend.close()


def _compare_with_matmul(report: BenchReport, job: Job, reference: CleanReference) -> None:
    """One setting on the full corpus; a block's matrix products follow upon its hidden states."""
    p = _MATMUL_SPLIT_POINT
    job = replace(job, split_points=(p, p))
    ue = UEShard(job.ue_part(("cpu",)), job.corpus, job.link)
    edge = EdgeShard(job.edge_part(("cpu",)), job.corpus, job.link, target_stderr=0.0)
    products = MatrixProducts(job.checkpoint.config)
    matmul_s, elsewhere_s = 0.0, 0.0

    def hidden_of(block: int) -> list[torch.Tensor]:
        nonlocal matmul_s, elsewhere_s
        entered = time.perf_counter()
        (hidden,), _ = ue.clean_hidden(block, [p])
        started = time.perf_counter()
        for batch in job.corpus.blocks[block]:
            products.run(batch, p)
        left = time.perf_counter()
        matmul_s += left - started
        elsewhere_s += left - entered
        return hidden

    start = time.perf_counter()
    edge.measure(Setting(p, LinkState(noise_std=1.0)), hidden_of, reference)
    suffix_s = time.perf_counter() - start - elsewhere_s
    report.add(
        {
            "suffix_vs_matmul": suffix_s / matmul_s,
            "suffix_full_corpus_s": suffix_s,
            "matmul_full_corpus_s": matmul_s,
        }
    )


def _compare_with_ray(report: BenchReport, options: Options) -> None:
    """One actor against one process, two actors against one."""
    corpus = CorpusConfig(source="embedded", max_sentences=256 if options.quick else 1000)
    job = embedded_job(corpus, target_stderr=0.01)
    local = LocalBackend(job, _INPROCESS)
    one, two = (RayBackend(job, BackendConfig(edge_shards=n)) for n in (1, 2))
    backends: list[Backend] = [local, one, two]
    try:
        # Each runs its own clean pass and some settings, so that all is loaded and at hand.
        reference = [clean_reference(job, backend) for backend in backends].pop()
        for backend in backends:
            seconds(backend, some_settings(10), reference)
        count = 8 if options.quick else 50
        ratios = _ratios(one, local, some_settings(_ROUNDS * count), count, reference)
        report.add(
            {"ray_overhead": median(ratios) - 1, "ray_overhead_middle_half": _spread(ratios)}
        )
        # All of a round at once: only one of two actors can work on the last setting of a round.
        at_once = 2 * count
        ratios = _ratios(one, two, some_settings(_ROUNDS * at_once), at_once, reference)
        report.add({"two_actor_speedup": median(ratios), "two_actor_middle_half": _spread(ratios)})
    finally:
        for backend in backends:
            backend.close()


def _ratios(
    first: Backend, second: Backend, plan: list[Setting], at_once: int, reference: CleanReference
) -> list[float]:
    """Time of `first` over time of `second`, for each part of a plan."""
    ratios: list[float] = []
    for start in range(0, len(plan), at_once):
        settings = in_measuring_order(plan[start : start + at_once])
        turn = [first, second] if len(ratios) % 2 else [second, first]
        taken = {backend: seconds(backend, settings, reference) for backend in turn}
        ratios.append(taken[first] / taken[second])
    return ratios


def _spread(ratios: list[float]) -> float:
    """Width of the middle half."""
    low, _, high = quantiles(ratios, n=4)
    return high - low


def _weigh_edge_actor(report: BenchReport, options: Options) -> None:
    """Peak memory of an edge actor with Prem-1B's shape in bfloat16, above a bare actor's."""
    folder = Path(tempfile.mkdtemp(prefix="raysplit-memory-"))
    try:
        write_random_checkpoint(
            PAPER_MODELS["Prem-1B"].shape, folder, hidden_size=512 if options.quick else None
        )
        job = _random_job(folder)
        bare_bytes = ray.get(_bare_process_bytes.remote())
        backend = RayBackend(job, BackendConfig(edge_shards=1))
        try:
            reference = clean_reference(job, backend)
            (row,) = backend.run([Setting(1, LinkState(noise_std=0.01))], reference)
            peak_bytes = resident_bytes(int(row.worker.rpartition(":")[2]), peak=True)
        finally:
            backend.close()
    finally:
        shutil.rmtree(folder)
    tensors = job.checkpoint.tensor_bytes(SPLIT_POINTS[0], job.checkpoint.layers, "bfloat16")
    needed_bytes = tensors + _activation_bytes(job)
    report.add(
        {
            "edge_memory_ratio": (peak_bytes - bare_bytes) / needed_bytes,
            "edge_tensors_gb": tensors / 1e9,
            "edge_activations_gb": (needed_bytes - tensors) / 1e9,
        }
    )


def _schedule(report: BenchReport, options: Options) -> None:
    units, per_actor = (400, 4) if options.quick else (4000, 60)
    actors = 8 if options.quick else 64
    report.add({"scheduler_units_per_s": units_per_second(4, units)})
    service_s = service_times(actors * per_actor, whole_model_s=0.4)
    report.add({"simulated_efficiency_64": simulated_efficiency(actors, service_s)})


def _random_job(folder: Path) -> Job:
    """A checkpoint without a tokenizer, on one batch of 16 random sequences of 32 tokens."""
    checkpoint = open_checkpoint(folder)
    ids = np.random.default_rng(0).integers(3, checkpoint.vocabulary, (16, 33))
    return Job(
        checkpoint=checkpoint,
        model=ModelConfig(name=str(folder), dtype="bfloat16"),
        corpus=TokenCorpus(tuple(TokenSequence(tuple(row), 1) for row in ids.tolist())),
        link=LinkConfig(),
        target_stderr=0.0,
        split_points=SPLIT_POINTS,
    )


def _activation_bytes(job: Job) -> int:
    """What one batch holds at the least: two hidden states, gate, up and their product; logits."""
    config, batch = job.checkpoint.config, job.corpus.blocks[0][0]
    tokens = batch.inputs_BT.size
    layer = 2 * tokens * (2 * config.hidden_size + 3 * config.intermediate_size)
    logits = (2 + 4) * min(tokens, 256) * config.vocab_size
    return layer + logits


@ray.remote(num_cpus=0)
def _bare_process_bytes() -> int:
    """Memory of an actor's process that has only imported torch and transformers."""
    import transformers  # noqa: F401
    from transformers.models.llama import modeling_llama  # noqa: F401

    return resident_bytes(peak=True)
