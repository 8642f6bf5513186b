"""A plan measured with its error bars against the plain way, on the same text in the same run."""

from __future__ import annotations

import itertools
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.embedded_job import NOISE_STD, SPLIT_POINTS, embedded_job, some_settings
from bench.plain import PlainWay
from raysplit.base.threads import threads
from raysplit.corpus.config import CorpusConfig
from raysplit.measure.anchors import choose_anchors
from raysplit.measure.config import BackendConfig
from raysplit.measure.ledger import Ledger
from raysplit.measure.on_ray.session import usable_cores
from raysplit.measure.service import MeasuringService, in_measuring_order

_AT_ONCE = 5  # settings between two looks at the plain way, whose speed drifts with the machine's
_PLAIN_SENTENCES = 16


def figures(wikitext2: Path, *, settings: int, sentences: int | None) -> dict[str, float]:
    """Time a plan of noise settings, clean pass and anchors included, and plain sentences between.

    Both compute with a thread for each core.

    Args:
        wikitext2: The text.
        settings: How many settings share the clean pass and the anchors.
        sentences: At most so many of the text's; None: all.
    """
    corpus = CorpusConfig(source="file", path=wikitext2, max_sentences=sentences)
    anchors = choose_anchors(SPLIT_POINTS, {"noise_std": NOISE_STD}, settings)
    job = replace(embedded_job(corpus, target_stderr=0.01), anchors=anchors)
    plain = PlainWay(job.checkpoint)
    text = itertools.cycle(job.corpus.sequences)
    plan = in_measuring_order(some_settings(settings))
    plain_s: list[float] = []
    cores = usable_cores()
    backend = BackendConfig(kind="inprocess", cpus_per_shard=cores)

    def time_plain() -> None:
        for setting in plan[:: max(1, settings // 4)]:
            some = list(itertools.islice(text, _PLAIN_SENTENCES))
            start = time.perf_counter()
            plain.nll(setting, some)
            plain_s.append((time.perf_counter() - start) / len(some))

    with (
        tempfile.TemporaryDirectory(prefix="raysplit-bench-") as folder,
        Ledger(Path(folder) / "ledger.sqlite") as ledger,
        MeasuringService(job, {"bench": "plain"}, ledger, backend) as ours,
        threads(cores),
    ):
        time_plain()
        start = time.perf_counter()
        ours.reference(keep=job.all_split_points)
        clean_s = time.perf_counter() - start
        settings_s = 0.0
        for first in range(0, settings, _AT_ONCE):
            time_plain()
            start = time.perf_counter()
            rows = ours.measure(plan[first : first + _AT_ONCE])
            settings_s += time.perf_counter() - start
            assert all(row.status == "done" and row.stderr <= 0.01 for row in rows.values())
    plain_setting_s = float(np.mean(plain_s)) * len(job.corpus.sequences)
    return {
        "speedup_vs_plain": plain_setting_s * settings / (clean_s + settings_s),
        "speedup_vs_plain_clean_pass_apart": plain_setting_s * settings / settings_s,
        "plain_s_per_setting": plain_setting_s,
        "setting_s_with_anchors": settings_s / settings,
        "clean_pass_s": clean_s,
    }
