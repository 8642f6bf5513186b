"""Anchored estimates: are their intervals honest, and how many sequences do they spare?

What each of some settings does to every sequence of the embedded corpus is measured once, over
noise and over erasures. Drawing the corpus in other orders then tells how often a 95 % interval
holds the value of the whole corpus, and how many sequences each estimator takes: counts, so the
machine's load does not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.embedded_job import SPLIT_POINTS, clean_reference, embedded_job
from bench.report import BenchReport, Options
from raysplit.base.arrays import FloatArray
from raysplit.corpus.batches import BLOCK_SEQUENCES
from raysplit.corpus.config import CorpusConfig
from raysplit.measure.anchors import choose_anchors
from raysplit.measure.config import BackendConfig
from raysplit.measure.plan import PlanConfig, make_plan
from raysplit.measure.setting import Setting
from raysplit.measure.shards.edge import next_sample_blocks
from raysplit.measure.shards.local import LocalBackend
from raysplit.measure.shards.reference import CleanReference
from raysplit.perplexity.anchored import (
    MIN_EFFECTIVE_ANCHORED,
    best_anchor_sequences,
    estimate_anchored,
    next_sample_sequences,
)
from raysplit.perplexity.estimate import CleanCorpus, Estimate, estimate, should_stop

_RANGES = {"noise": {"noise_std": (0.0, 6.0)}, "erasures": {"loss_probability": (0.0, 0.3)}}
_TARGET_STDERR = {"noise": 0.01, "erasures": 0.03}
_SAMPLES = ((32, 256), (64, 256), (128, 512))  # sequences of a setting and of the anchors
_PLAN, _DEMO_SETTINGS, _DEMO_SEEDS = 96, 186, 2


@dataclass(frozen=True, slots=True, eq=False)
class Damages:
    """What settings do to the whole corpus: NLL over the link less the clean NLL, nats."""

    clean: CleanCorpus
    anchors_KN: FloatArray
    settings_SN: FloatArray


def config(options: Options) -> dict[str, Any]:
    """Say what `add` measures."""
    settings, repetitions = _sizes(options)
    return {"settings": settings, "repetitions": repetitions, "target_stderr": _TARGET_STDERR}


def _sizes(options: Options) -> tuple[int, int]:
    return (3, 20) if options.quick else (12, 400)


def add(report: BenchReport, options: Options) -> None:
    """Measure what settings do to every sequence, and draw the corpus again and again."""
    settings, repetitions = _sizes(options)
    job = embedded_job(CorpusConfig(max_sentences=256 if options.quick else None), 0.01)
    backend = LocalBackend(job, BackendConfig(kind="inprocess"))
    try:
        reference = clean_reference(job, backend)
        found = {
            kind: _damages(backend, reference, ranges, settings) for kind, ranges in _RANGES.items()
        }
    finally:
        backend.close()
    _study(report, found, repetitions)


def _study(report: BenchReport, found: dict[str, Damages], repetitions: int) -> None:
    coverage: dict[str, FloatArray] = {}
    for kind, damages in found.items():
        for n, m in _SAMPLES:
            coverage[f"coverage_{kind}_{n}_of_{m}"] = _coverage_of(damages, (n, m), repetitions)
        target = _TARGET_STDERR[kind]
        grown, counts = _grown(damages, target, repetitions)
        coverage[f"coverage_{kind}_grown"] = grown
        report.add({f"{kind}_{name}": value for name, value in counts.items()})
        with_anchors = counts["anchored"] * _DEMO_SETTINGS + counts["of_anchors"] * _DEMO_SEEDS
        saving = counts["plain"] * _DEMO_SETTINGS / with_anchors
        report.add({"anchor_saving" if kind == "noise" else f"anchor_saving_{kind}": saving})
    pooled = {name: float(each.mean()) for name, each in coverage.items()}
    report.add(pooled)
    report.add(
        {
            "coverage_min": min(pooled.values()),
            "coverage_max": max(pooled.values()),
            # Of one setting: with 400 repetitions chance alone makes it .93 to .97.
            "coverage_setting_min": min(float(c.min()) for n, c in coverage.items() if "of" in n),
        }
    )


def _damages(
    backend: LocalBackend,
    reference: CleanReference,
    ranges: dict[str, tuple[float, float]],
    settings: int,
) -> Damages:
    plan = make_plan(PlanConfig(settings=_PLAN), SPLIT_POINTS, ranges)[:settings]
    anchors = choose_anchors(SPLIT_POINTS, ranges, _PLAN).with_seed(0)
    blocks = -(-len(reference.corpus.nll_N) // BLOCK_SEQUENCES)

    def over_corpus(some: Sequence[Setting]) -> FloatArray:
        units = [(setting, block) for setting in some for block in range(blocks)]
        parts = [found.damages_B for found in backend.anchor_blocks(units, reference)]
        return np.concatenate(parts).reshape(len(some), -1)

    return Damages(reference.corpus, over_corpus(anchors), over_corpus(plan))


def _coverage_of(damages: Damages, sizes: tuple[int, int], repetitions: int) -> FloatArray:
    """Return each setting's share of intervals that hold the value of the whole corpus."""
    n, m = sizes
    hits_S = np.zeros(len(damages.settings_SN))
    for order in _orders(damages, repetitions):
        clean, anchors_KN, nll_SN = _drawn(damages, order)
        for s, nll_N in enumerate(nll_SN):
            hits_S[s] += _holds(damages, s, estimate_anchored(nll_N[:n], clean, anchors_KN[:, :m]))
    return hits_S / repetitions


def _grown(
    damages: Damages, target: float, repetitions: int
) -> tuple[FloatArray, dict[str, float]]:
    """Grow samples to a target; also return the mean numbers of sequences."""
    hits_S = np.zeros(len(damages.settings_SN))
    plain: list[int] = []
    anchored: list[int] = []
    of_anchors: list[int] = []
    for order in _orders(damages, repetitions):
        clean, anchors_KN, nll_SN = _drawn(damages, order)
        m = _anchor_sequences(anchors_KN, clean, target)
        of_anchors.append(m * len(anchors_KN))
        for s, nll_N in enumerate(nll_SN):
            result = _anchored_to(target, nll_N, clean, anchors_KN[:, :m])
            hits_S[s] += _holds(damages, s, result)
            anchored.append(result.sequences)
            plain.append(_plain_to(target, nll_N, clean).sequences)
    counts = {"plain": plain, "anchored": anchored, "of_anchors": of_anchors}
    return hits_S / repetitions, {name: float(np.mean(count)) for name, count in counts.items()}


def _anchor_sequences(anchors_KN: FloatArray, clean: CleanCorpus, target: float) -> int:
    """Return how many sequences the measuring service would take, as it does from two blocks on."""
    m, wanted = 0, 2 * BLOCK_SEQUENCES
    while wanted > m:
        m = min(-(-wanted // BLOCK_SEQUENCES) * BLOCK_SEQUENCES, len(clean.nll_N))
        wanted = best_anchor_sequences(
            anchors_KN[:, :m], clean, settings=_PLAN, target_stderr=target, step=BLOCK_SEQUENCES
        )
    return m


def _anchored_to(
    target: float, nll_N: FloatArray, clean: CleanCorpus, anchors_KM: FloatArray
) -> Estimate:
    n = 0
    while True:
        n = min(next_sample_sequences(n), len(nll_N))
        result = estimate_anchored(nll_N[:n], clean, anchors_KM)
        if n == len(nll_N) or should_stop(result, target, MIN_EFFECTIVE_ANCHORED):
            return result


def _plain_to(target: float, nll_N: FloatArray, clean: CleanCorpus) -> Estimate:
    blocks = 0.0
    while True:
        blocks = next_sample_blocks(blocks, target)
        n = int(min(blocks * BLOCK_SEQUENCES, len(nll_N)))
        result = estimate(nll_N[:n], np.arange(n), clean)
        if n == len(nll_N) or should_stop(result, target):
            return result


def _orders(damages: Damages, repetitions: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.permutation(len(damages.clean.nll_N)) for _ in range(repetitions)]


def _drawn(damages: Damages, order: np.ndarray) -> tuple[CleanCorpus, FloatArray, FloatArray]:
    clean = CleanCorpus(damages.clean.nll_N[order], damages.clean.tokens_N[order])
    return clean, damages.anchors_KN[:, order], clean.nll_N + damages.settings_SN[:, order]


def _holds(damages: Damages, s: int, result: Estimate) -> bool:
    whole = damages.clean.nll_N + damages.settings_SN[s]
    error = result.log_ppl - float(whole.sum() / damages.clean.tokens_N.sum())
    return abs(error) <= 1.96 * result.stderr
