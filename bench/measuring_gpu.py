"""One GPU, LLaMA2-7B's shape in bfloat16: seconds per setting and how much of the GPU is used.

    python -m bench.measuring_gpu --wikitext2 wiki.test.raw                  # one H200
    python -m bench.measuring_gpu --hidden-size 128 --sentences 200          # a CPU: does it run?

Needs torch and transformers, but no Ray (backend `inprocess`), no tokenizer and no weights: values
are random, and a sentence of w words has round(1.39 w) random tokens, as many as LLaMA2's tokenizer
makes of WikiText-2 (341,469 tokens for 245,569 words). Without the text, words are drawn at random.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from bench.random_checkpoint import write_random_checkpoint
from bench.report import REPORTS, BenchReport
from raysplit.corpus.batches import TokenCorpus
from raysplit.corpus.config import CorpusConfig
from raysplit.corpus.sequences import TokenSequence
from raysplit.corpus.texts import draw_sentences
from raysplit.link.config import LinkConfig
from raysplit.link.state import LinkState
from raysplit.measure.config import BackendConfig
from raysplit.measure.rows import Row
from raysplit.measure.setting import Setting
from raysplit.measure.shards.job import Job
from raysplit.measure.shards.local import LocalBackend
from raysplit.measure.shards.reference import CleanReference
from raysplit.model.checkpoint import open_checkpoint
from raysplit.model.config import ModelConfig
from raysplit.model.flops import head_flops, layer_flops
from raysplit.model.zoo import PAPER_MODELS

T = TypeVar("T")

PEAK_FLOPS = 989e12  # H200 and H100 (SXM), bfloat16, dense
TOKENS_PER_WORD = 341_469 / 245_569
_SPLIT_POINTS = (1, 10)
_ASKED = (1, 5, 10)
_FULL = tuple(Setting(p, LinkState(noise_std=0.02), p) for p in _ASKED)
_TARGETS = {"model_flops_utilisation": (">=", 0.5), "full_corpus_s_per_setting": ("<=", 86.0)}


def main() -> None:
    """Measure and write the report; exit code 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wikitext2", type=Path, help="WikiText-2's raw test text")
    parser.add_argument("--sentences", type=int, help="at most this many")
    parser.add_argument("--hidden-size", type=int, help="a smaller model of the same shape")
    parser.add_argument("--model", default="LLaMA2-7B", choices=PAPER_MODELS)
    parser.add_argument("--reports", type=Path, help="default: bench/reports; reduced: runs")
    parser.add_argument("--name", default="measuring-h200", help="of the report")
    arguments = parser.parse_args()
    report = BenchReport(
        arguments.name, _TARGETS, {"dtype": "bfloat16", "split_points": _SPLIT_POINTS}
    )
    reduced = {"sentences": arguments.sentences, "hidden_size": arguments.hidden_size}
    report.config |= {"model": arguments.model, **reduced}
    kept = Path("runs") if any(reduced.values()) else REPORTS
    folder = Path(tempfile.mkdtemp(prefix="raysplit-gpu-"))
    try:
        shape = PAPER_MODELS[arguments.model].shape
        write_random_checkpoint(shape, folder, hidden_size=arguments.hidden_size)
        words = _words(arguments.wikitext2, arguments.sentences)
        _measure(report, folder, words)
    finally:
        shutil.rmtree(folder)
    print(f"-> {report.write(arguments.reports or kept)}")
    raise SystemExit(0 if report.met() else 1)


def _words(text: Path | None, sentences: int | None) -> list[int]:
    """Words of each sentence."""
    if text is None:
        return np.random.default_rng(0).integers(5, 41, sentences or 8000).tolist()
    config = CorpusConfig(source="file", path=text, max_sentences=sentences)
    return [len(sentence.split()) for sentence in draw_sentences(config).texts]


def _measure(report: BenchReport, folder: Path, words: list[int]) -> None:
    job = _job(folder, words)
    on_gpu = torch.cuda.is_available()
    config = BackendConfig(
        kind="inprocess", gpus_per_edge=float(on_gpu), device_cache_gb=90, host_cache_gb=60
    )
    seconds, backend = _timed(lambda: LocalBackend(job, config))
    report.add({"load_s": seconds, "corpus_tokens": float(job.corpus.tokens_N.sum())})
    seconds, blocks = _timed(lambda: dict(backend.clean_blocks(keep=_ASKED)))
    reference = CleanReference.gather(blocks, job.corpus.tokens_N, _SPLIT_POINTS[0])
    report.add({"clean_pass_s": seconds})
    _settings(backend, reference)  # hidden states now lie where they are nearest
    rows = _settings(backend, reference)
    suffix_s = [row.seconds for row in rows]
    flops = [_suffix_flops(job, row.setting.split_point) for row in rows]
    report.add(
        {
            "full_corpus_s_per_setting": float(np.mean(suffix_s)),
            "model_flops_utilisation": sum(flops) / sum(suffix_s) / PEAK_FLOPS,
            "tflops_per_s": sum(flops) / sum(suffix_s) / 1e12,
        }
    )
    backend.close()
    precise = LocalBackend(_job(folder, words, target_stderr=0.02), config)
    dict(precise.clean_blocks(keep=_ASKED))
    _settings(precise, reference)
    rows = _settings(precise, reference)
    report.add(
        {
            "s_per_setting_at_stderr_0.02": float(np.mean([row.seconds for row in rows])),
            "sequences_at_stderr_0.02": float(np.mean([row.sequences for row in rows])),
        }
    )
    precise.close()


def _settings(backend: LocalBackend, reference: CleanReference) -> list[Row]:
    rows = list(backend.run(_FULL, reference))
    assert all(row.status == "done" for row in rows), [row.reason for row in rows]
    return rows


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    start = time.perf_counter()
    result = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def _job(folder: Path, words: list[int], target_stderr: float = 0.0) -> Job:
    checkpoint = open_checkpoint(folder)
    rng = np.random.default_rng(0)
    lengths = [round(TOKENS_PER_WORD * count) + 1 for count in words]
    ids = [tuple(rng.integers(3, checkpoint.vocabulary, length).tolist()) for length in lengths]
    return Job(
        checkpoint=checkpoint,
        model=ModelConfig(name=str(folder), dtype="bfloat16"),
        corpus=TokenCorpus(tuple(TokenSequence(token_ids, 1) for token_ids in ids)),
        link=LinkConfig(),
        target_stderr=target_stderr,
        split_points=_SPLIT_POINTS,
    )


def _suffix_flops(job: Job, split_point: int) -> float:
    """FLOPs of layers [p, L) and the head for the real tokens alone; padding counts as waste."""
    config = job.checkpoint.config
    layers = job.checkpoint.layers - split_point
    inputs = [len(sequence.token_ids) - 1 for sequence in job.corpus.sequences]
    return float(sum(layers * layer_flops(config, n) + head_flops(config, n) for n in inputs))


if __name__ == "__main__":
    main()
