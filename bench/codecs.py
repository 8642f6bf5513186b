"""What codecs cost a pretrained LLaMA: perplexity over a link that loses nothing, and time.

Clean hidden states of the same sentences are sent through each codec once, so codecs differ by
nothing else, and a loss has the standard error of its mean over the sentences.

Shape suffixes: B sequences, T positions, D hidden size, N sentences, P split points.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.pretrained import what_is_missing
from bench.report import BenchReport, Options
from raysplit.base.arrays import FloatArray
from raysplit.corpus.batches import TokenCorpus
from raysplit.link.channel import batch_generator, transmit
from raysplit.link.codec import Codec
from raysplit.link.codec.entropy import EntropyCoder, code_frequencies
from raysplit.link.codec.roundtrip import roundtrip
from raysplit.link.state import LinkState
from raysplit.measure.prepare import prepare_job
from raysplit.measure.shards.edge import EdgeShard
from raysplit.measure.shards.hidden import padded, without_padding
from raysplit.measure.shards.job import Job
from raysplit.measure.shards.ue import UEShard
from raysplit.pipeline.experiment import load_experiment

TARGETS = {"int4_rotated_loss": ("<=", 0.015), "codec_share": ("<=", 0.05)}
_CODECS = {"int4_rotated": Codec("int4-rotated/64"), "int4_plain": Codec("int4")}
_ENTROPY_CODED = {"int8": Codec("int8"), "int4_rotated": Codec("int4-rotated/64")}
_SPLIT_POINTS = (5, 10, 20)
_SENTENCES, _QUICK_SENTENCES = 1024, 16  # with 256 a standard error is .003
_REPETITIONS = 3

Hidden = list[list[Tensor]]
"""Block -> its batches' hidden states at one split point, each (R, D) without the padding."""


def add(report: BenchReport, options: Options) -> None:
    """Measure on smollm2-135m, where it and the text are at hand."""
    reason = what_is_missing(options)
    if reason or options.wikitext2 is None:
        for name in (*(f"{name}_loss" for name in _CODECS), "codec_share"):
            report.skip(name, reason)
        return
    report.add(fields(options.wikitext2, _QUICK_SENTENCES if options.quick else _SENTENCES))


def fields(wikitext2: Path, sentences: int = _SENTENCES) -> dict[str, float]:
    """Return every figure: losses PPL / clean PPL - 1 with standard errors, shares, sizes."""
    job = _job(wikitext2, sentences)
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    ue = UEShard(job.ue_part((device,), 1), job.corpus, job.link)
    edge = EdgeShard(job.edge_part((device,), 1), job.corpus, job.link, job.target_stderr)
    hidden_P = _hidden(ue, job.corpus)
    last = _SPLIT_POINTS[-1]
    clean_N = _nll(edge, job, hidden_P[last], last)
    found: dict[str, float] = {}
    for name, codec in _CODECS.items():
        losses = {
            p: _loss(_nll(edge, job, hidden, p, codec), clean_N, job.corpus)
            for p, hidden in hidden_P.items()
        }
        for p, (loss, stderr) in losses.items():
            found |= {f"{name}_loss_p{p}": loss, f"{name}_loss_p{p}_se": stderr}
        found[f"{name}_loss"] = max(loss for loss, _ in losses.values())
    share = "codec_share" if device == "cpu" else "codec_share_gpu"
    found[share] = _codec_share(edge, job, hidden_P[last], _CODECS["int4_rotated"])
    for name, codec in _ENTROPY_CODED.items():
        found[f"{name}_entropy_coded_bits"] = _entropy_coded_bits(job, hidden_P[last], codec)
    return found


def _job(wikitext2: Path, sentences: int) -> Job:
    experiment = load_experiment(
        "smollm2", [f"corpus.path={wikitext2}", f"corpus.max_sentences={sentences}"]
    )
    job, _ = prepare_job(
        model=experiment.model,
        corpus=experiment.corpus,
        protocol=experiment.protocol,
        link=experiment.link,
        measuring=experiment.measuring,
        split_points=(_SPLIT_POINTS[0], _SPLIT_POINTS[-1]),
        device="cuda" if torch.cuda.is_available() else "cpu",
        codecs=_CODECS.values(),
    )
    return job


def _hidden(ue: UEShard, corpus: TokenCorpus) -> dict[int, Hidden]:
    """Return the clean hidden states by split point."""
    blocks = [ue.clean_hidden(block, _SPLIT_POINTS)[0] for block in range(len(corpus.blocks))]
    return {p: [states_P[i] for states_P in blocks] for i, p in enumerate(_SPLIT_POINTS)}


def _nll(
    edge: EdgeShard, job: Job, hidden: Hidden, split_point: int, codec: Codec | None = None
) -> FloatArray:
    """Return the NLL of every sentence, in nats, (N,)."""
    return np.concatenate(
        [
            edge.clean_nll(block, split_point, _sent(job, block, states, codec))
            for block, states in enumerate(hidden)
        ]
    )


def _sent(job: Job, block: int, states: Sequence[Tensor], codec: Codec | None) -> Sequence[Tensor]:
    """Send a block over a link that loses nothing."""
    if codec is None:
        return states
    received: list[Tensor] = []
    for batch, state in zip(job.corpus.blocks[block], states, strict=True):
        lengths_B = torch.from_numpy(batch.lengths_B).to(state.device)
        chance = batch_generator(0, batch.index, state.device)
        hidden_BTD = padded(state, batch.lengths_B)
        sent = transmit(hidden_BTD, lengths_B, LinkState(), job.link, chance, codec=codec)
        received.append(without_padding(sent.hidden_BTD, lengths_B))
    return received


def _loss(nll_N: FloatArray, clean_N: FloatArray, corpus: TokenCorpus) -> tuple[float, float]:
    """Return PPL / clean PPL - 1 and its standard error: a ratio over sentences as drawn."""
    tokens_N = corpus.tokens_N.astype(np.float64)
    damage_N = nll_N - clean_N
    nats = damage_N.sum() / tokens_N.sum()
    residual_N = damage_N - nats * tokens_N
    stderr = math.sqrt(len(tokens_N) * residual_N.var(ddof=1)) / tokens_N.sum()
    return math.expm1(nats), math.exp(nats) * stderr


def _codec_share(edge: EdgeShard, job: Job, hidden: Hidden, codec: Codec) -> float:
    """Return the codec's time over that of the shortest suffix, on the same batches, in turn."""
    coding = suffix = math.inf
    batches = zip(job.corpus.blocks[0], hidden[0], strict=True)
    states = [padded(state, batch.lengths_B) for batch, state in batches]
    for _ in range(_REPETITIONS):
        coding = min(coding, _seconds(lambda: [roundtrip(state, codec) for state in states]))
        suffix = min(
            suffix,
            _seconds(lambda: edge.clean_nll(0, _SPLIT_POINTS[-1], _sent(job, 0, hidden[0], None))),
        )
    return coding / suffix


def _seconds(work: Callable[[], object]) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _entropy_coded_bits(job: Job, hidden: Hidden, codec: Codec) -> float:
    """Return the bits an element takes, scales included; half of the blocks give the table."""
    tokens = [
        sequence_TD[1:]  # the first is exempt
        for batches, states in zip(job.corpus.blocks, hidden, strict=True)
        for batch, state in zip(batches, states, strict=True)
        for sequence_TD in state.split(batch.lengths_B.tolist())
    ]
    middle = len(tokens) // 2
    table_ND, measured_ND = torch.cat(tokens[:middle]), torch.cat(tokens[middle:])
    coder = EntropyCoder(codec, code_frequencies(table_ND, codec))
    return coder.bits_per_token(measured_ND) / measured_ND.shape[1]
