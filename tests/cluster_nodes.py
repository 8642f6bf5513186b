"""Clusters of several Ray nodes on this machine, and what is done on them while a node is lost.

Each runs in a process of its own, because a process can be in one cluster only:
`python -m tests.cluster_nodes lose_the_only_node|exchange_a_node|sweep FOLDER [LEDGER]`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from raysplit.measure.config import BackendConfig
from tests.fault_driver import faulty_actors, measure, settings, when_rows

EXCHANGED = 24
"""Settings that are measured while a node is exchanged."""


@contextmanager
def nodes(count: int) -> Iterator[tuple[object, list]]:
    """A head without cores and `count` nodes of one core each, joined by this process."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    try:
        workers = [cluster.add_node(num_cpus=1) for _ in range(count)]
        ray.init(address=cluster.address, log_to_driver=False)
        yield cluster, workers
    finally:
        ray.shutdown()
        cluster.shutdown()


def used_nodes(folder: Path) -> list[str]:
    """The nodes on which edge actors have noted that they run, the newest note last."""
    notes = sorted(folder.glob("edge-*"), key=lambda path: path.stat().st_mtime)
    return [path.read_text().split()[1] for path in notes]


def lose_the_only_node(folder: Path, ledger: Path) -> None:
    """Measure on one of two equal nodes and remove that one after two rows."""
    with nodes(2) as (cluster, workers):
        _slow_actors(folder)

        def remove(_rows):
            (used,) = used_nodes(folder)
            _remove(cluster, workers, used)

        watcher = when_rows(ledger, 2, remove)
        measure(folder, ledger, settings(), BackendConfig(edge_shards=1))
        watcher.join()


def exchange_a_node(folder: Path, ledger: Path) -> None:
    """Measure on two nodes; after some rows one is removed, and the rest waits for another."""
    with nodes(2) as (cluster, workers):
        _slow_actors(folder)
        wanted = settings(EXCHANGED), BackendConfig(edge_shards=2)
        # Nodes are added in the main thread only.
        measuring = threading.Thread(target=measure, args=(folder, ledger, *wanted))
        measuring.start()
        when_rows(ledger, 5, lambda _rows: (folder / "hold").touch()).join()
        _remove(cluster, workers, used_nodes(folder)[0])
        cluster.add_node(num_cpus=1)
        while len(used_nodes(folder)) < 3:
            time.sleep(0.05)
        (folder / "hold").unlink()
        measuring.join()


def sweep(folder: Path) -> None:
    """Sweep on two nodes; once both train, remove one of them."""
    import ray

    from tests.test_sweep_resume import LONG, WIDE, job_in
    from tuning.sweep import run as room

    train = room.tune_trial

    def noted(config, job, seeds):
        node = ray.get_runtime_context().get_node_id()
        (folder / f"trial-{time.time_ns()}").write_text(node)
        train(config, job, seeds)

    room.tune_trial = noted
    with nodes(2) as (cluster, workers):

        def remove():
            while len({path.read_text() for path in folder.glob("trial-*")}) < 2:
                time.sleep(0.05)
            _remove(cluster, workers, min(folder.glob("trial-*")).read_text())

        watcher = threading.Thread(target=remove, daemon=True)
        watcher.start()
        room.run_sweep(job_in(folder, LONG), WIDE, BackendConfig(), lambda record: None)
        watcher.join()


def run(what: str, *paths: Path) -> None:
    """Run one of these in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.cluster_nodes", what, *map(str, paths)]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-4000:]


def _slow_actors(folder: Path) -> None:
    from raysplit.measure.on_ray import backend as room

    room.UEActor, room.EdgeActor = faulty_actors(folder)


def _remove(cluster, workers, node_id: str) -> None:
    (node,) = [node for node in workers if node.node_id == node_id]
    cluster.remove_node(node, allow_graceful=False)


def _end_with_any_thread(what) -> None:
    """An exception in a watching thread must not leave the others waiting."""
    threading.__excepthook__(what)
    os._exit(1)


if __name__ == "__main__":
    threading.excepthook = _end_with_any_thread
    globals()[sys.argv[1]](*map(Path, sys.argv[2:]))
