"""Measuring on two nodes of a Ray cluster against one, all on this machine, one core a node."""

from __future__ import annotations

import logging
from statistics import median

import ray
from ray.cluster_utils import Cluster

from bench.embedded_job import clean_reference, embedded_job, seconds, some_settings
from raysplit.corpus.config import CorpusConfig
from raysplit.measure.config import BackendConfig
from raysplit.measure.on_ray.backend import RayBackend


def two_node_speedup(quick: bool) -> dict[str, float]:
    """Return the time on one node over the time on two, of the same settings, round by round.

    The first backend takes the only node there is; the second gets two further ones. Both are
    warm: a round goes before those that count. Settings are many and short, so that the last one
    of a round, which only one node can work on, weighs little.
    """
    per_round, rounds = (8, 2) if quick else (80, 3)
    job = embedded_job(CorpusConfig(source="embedded", max_sentences=64), 0.01)
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    try:
        cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        one = RayBackend(job, BackendConfig(edge_shards=1))
        reference = clean_reference(job, one)
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        two = RayBackend(job, BackendConfig(edge_shards=2))
        clean_reference(job, two)
        for backend in (one, two):
            seconds(backend, some_settings(per_round, rounds), reference)
        plans = [some_settings(per_round, seed) for seed in range(rounds)]
        pairs = [[seconds(backend, plan, reference) for backend in (one, two)] for plan in plans]
        for backend in (one, two):
            backend.close()
    finally:
        ray.shutdown()
        cluster.shutdown()
    return {
        "two_node_speedup": median(one_s / two_s for one_s, two_s in pairs),
        "one_node_settings_per_s": per_round / median(one_s for one_s, _ in pairs),
        "two_nodes_settings_per_s": per_round / median(two_s for _, two_s in pairs),
    }
