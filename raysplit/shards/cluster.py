"""Backend `ray`: any number of UE and edge actors, on this machine or on a cluster."""

# Ray's actors and references have no complete types:
# pyright: reportFunctionMemberAccess=false, reportArgumentType=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
# pyright: reportUnknownLambdaType=false, reportMissingTypeArgument=false

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from raysplit.errors import UserError
from raysplit.ledger import Row
from raysplit.measure.setting import Setting
from raysplit.shards.actors import EdgeActor, Shared, UEActor, ue_of
from raysplit.shards.config import GB, BackendConfig
from raysplit.shards.job import Job
from raysplit.shards.placement import edge_count, edge_options, ue_options
from raysplit.shards.reference import CleanBlock, CleanReference
from raysplit.shards.scheduler import NoWorkersLeftError, Outcome, Scheduler

_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")  # cgroups of version 2: quota and period, or "max"


class RayBackend:
    """Edge actors measure; UE actors compute the clean hidden states that those ask for."""

    def __init__(self, job: Job, config: BackendConfig) -> None:
        """Join or start Ray and create the actors.

        Raises:
            UserError: If the cluster cannot hold one UE and one edge actor.
        """
        self._started_ray = start_ray(config)
        self._job = job
        self._config = config
        try:
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            edges = edge_count(config, nodes)
        except UserError:
            if self._started_ray:
                ray.shutdown()
            raise
        ue = UEActor.options(**ue_options(config))
        edge = EdgeActor.options(**edge_options(config))
        self._ues = [ue.remote(config) for _ in range(config.ue_shards)]
        self._edges = [edge.remote(config) for _ in range(edges)]
        self._shared = Shared(ray.put(job), ray.put(self._ues))
        self._settings = self._scheduler(self._start_setting)
        self._reference: ray.ObjectRef | None = None

    @property
    def workers(self) -> int:
        """Edge actors that are ready now."""
        return self._settings.alive

    def clean_blocks(self) -> Iterator[tuple[int, CleanBlock]]:
        """Yield every block's part of the clean pass as it is done."""
        blocks = self._scheduler(self._start_block)
        for outcome in _or_user_error(blocks.run(range(len(self._job.corpus.blocks)))):
            if outcome.reason:
                raise UserError(
                    f"the clean pass failed at block {outcome.unit}: {outcome.reason}; start again "
                    "to go on, or use --backend inprocess to see where"
                )
            yield outcome.unit, outcome.result

    def run(self, settings: Iterable[Setting], reference: CleanReference) -> Iterator[Row]:
        """Yield one row a setting, in any order."""
        self._reference = ray.put(reference)
        for outcome in _or_user_error(self._settings.run(settings)):
            yield _row(outcome)

    def close(self) -> None:
        """End the actors, and Ray where this backend started it."""
        for actor in (*self._edges, *self._ues):
            ray.kill(actor)
        if self._started_ray:
            ray.shutdown()

    def _scheduler(self, submit: Callable[[Any, Any], ray.ObjectRef]) -> Scheduler[Any]:
        return Scheduler(
            self._edges,
            submit,
            self._config.attempts,
            ready=lambda actor: actor.ready.remote(self._shared),
        )

    def _start_block(self, actor: Any, block: int) -> ray.ObjectRef:  # noqa: ANN401
        # The UE begins while the edge may still be at another block.
        ue_of(block, self._ues).prefix.remote(self._shared, block)
        return actor.clean_block.remote(self._shared, block)

    def _start_setting(self, actor: Any, setting: Setting) -> ray.ObjectRef:  # noqa: ANN401
        return actor.measure.remote(self._shared, setting, self._reference)


def start_ray(config: BackendConfig) -> bool:
    """Join the configured cluster or start a local Ray; True where this call started or joined."""
    if ray.is_initialized():
        return False
    object_store = config.host_cache_gb if config.address is None else None
    # Ray says on every start that it made itself a token; that is as it should be.
    logging.getLogger("ray").setLevel(logging.ERROR)
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=config.address or "local",
            include_dashboard=False if config.address is None else None,
            object_store_memory=int(object_store * GB) if object_store else None,
            num_cpus=usable_cores() if config.address is None else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except ConnectionError as error:
        raise UserError(
            f"no Ray cluster answers at backend.address={config.address} ({error}): start it with "
            "`ray up` or `ray start --head`, or leave the address out"
        ) from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray has put its own there
    return True


def usable_cores() -> int:
    """Return the cores that this process may run on: a job's share of a machine may be smaller."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    allowed = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota = _cgroup_quota()
    return allowed if quota is None else max(1, min(allowed, int(quota)))


def _cgroup_quota() -> float | None:
    """Return the cores that a container's CPU quota comes to; None without one."""
    try:
        quota, period = _CPU_MAX.read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _or_user_error(outcomes: Iterator[Outcome[Any]]) -> Iterator[Outcome[Any]]:
    try:
        yield from outcomes
    except NoWorkersLeftError as error:
        raise UserError(
            f"no edge actor is left ({error}); what was measured is kept: start again to go on"
        ) from None


def _row(outcome: Outcome[Setting]) -> Row:
    if outcome.reason:
        return Row(
            setting=outcome.unit,
            status="quarantined",
            attempts=outcome.attempts,
            reason=outcome.reason,
        )
    return replace(outcome.result, attempts=outcome.attempts)
