"""Backend `ray`: any number of UE and edge actors, on this machine or on a cluster."""

# Ray's actors and references have no complete types:
# pyright: reportFunctionMemberAccess=false, reportArgumentType=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
# pyright: reportUnknownLambdaType=false, reportMissingTypeArgument=false

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import ray

from raysplit.errors import UserError
from raysplit.ledger import Row
from raysplit.measure.setting import Setting
from raysplit.shards.actors import EdgeActor, Shared, UEActor
from raysplit.shards.config import BackendConfig
from raysplit.shards.hidden import Key
from raysplit.shards.job import Job
from raysplit.shards.reference import CleanBlock, CleanReference
from raysplit.shards.scheduler import NoWorkersLeftError, Outcome, Scheduler

_GB = 1e9
_UE_RESTARTS = 20  # enough for any number of lost nodes, and an end where loading itself kills it


class RayBackend:
    """UE actors fill the object store with clean hidden states; edge actors measure from it."""

    def __init__(self, job: Job, config: BackendConfig) -> None:
        """Join or start Ray and create the actors.

        Raises:
            UserError: If the cluster cannot hold one UE and one edge actor.
        """
        self._started_ray = start_ray(config)
        self._job = job
        self._config = config
        edges = self._edge_count()
        self._shared = Shared(ray.put(job))
        self._ues = [
            UEActor.options(
                # UE shards work at the start only, so they ask for no core of their own.
                num_cpus=0,
                num_gpus=config.gpus_per_ue,
                max_restarts=_UE_RESTARTS,
                max_task_retries=_UE_RESTARTS,
            ).remote(config.gpus_per_ue, config.cpus_per_shard)
            for _ in range(config.ue_shards)
        ]
        directory, self._sums = self._start_prefix()
        self._refs = list(directory.values())  # this process owns them; without it they are gone
        self._shared = Shared(self._shared.job, ray.put(directory))
        self._edges = [self._edge_actor() for _ in range(edges)]
        self._settings = self._scheduler(self._start_setting)
        self._reference: ray.ObjectRef | None = None

    @property
    def workers(self) -> int:
        """Edge actors that are ready now."""
        return self._settings.alive

    def clean_blocks(self) -> Iterator[tuple[int, CleanBlock]]:
        """Yield every block's part of the clean pass as it is done."""
        split_point = self._job.split_points[1]
        blocks = self._scheduler(
            lambda actor, block: actor.clean_nll.remote(self._shared, block, split_point)
        )
        for outcome in _or_user_error(blocks.run(range(len(self._job.corpus.blocks)))):
            if outcome.reason:
                raise UserError(
                    f"the clean pass failed at block {outcome.unit}: {outcome.reason}; start again "
                    "to go on, or use --backend inprocess to see where"
                )
            yield outcome.unit, CleanBlock(outcome.result, ray.get(self._sums[outcome.unit]))

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

    def _start_setting(self, actor: Any, setting: Setting) -> ray.ObjectRef:  # noqa: ANN401
        return actor.measure.remote(self._shared, setting, self._reference)

    def _edge_actor(self) -> Any:  # noqa: ANN401 - Ray's handles are untyped
        config = self._config
        return EdgeActor.options(
            num_cpus=config.cpus_per_shard, num_gpus=config.gpus_per_edge, max_restarts=-1
        ).remote(
            config.gpus_per_edge,
            config.cpus_per_shard,
            config.device_cache_gb * _GB,
        )

    def _start_prefix(self) -> tuple[dict[Key, ray.ObjectRef], dict[int, ray.ObjectRef]]:
        """Where each (block, split point) and each block's sums will lie.

        The UE actors fill it in the background, in the order in which settings draw the blocks.
        """
        first, last = self._job.split_points
        split_points = list(range(first, last + 1))
        directory: dict[Key, ray.ObjectRef] = {}
        sums: dict[int, ray.ObjectRef] = {}
        for block in range(len(self._job.corpus.blocks)):
            ue = self._ues[block % len(self._ues)]
            prefix = ue.prefix.options(num_returns=len(split_points) + 1)
            *refs, sums[block] = prefix.remote(self._shared, block, split_points)
            directory |= {(block, p): ref for p, ref in zip(split_points, refs, strict=True)}
        return directory, sums

    def _edge_count(self) -> int:
        """Edge actors to create; refuses what would stay pending for ever."""
        config = self._config
        total = ray.cluster_resources()
        by_cpu = int(total.get("CPU", 0.0) // config.cpus_per_shard)
        gpus_left = total.get("GPU", 0.0) - config.ue_shards * config.gpus_per_ue
        by_gpu = int((gpus_left + 1e-9) // config.gpus_per_edge) if config.gpus_per_edge else by_cpu
        fit = min(by_cpu, by_gpu)
        if (fit < 1 or gpus_left < -1e-9) and config.address is None:
            raise UserError(
                f"the shards do not fit: an edge asks for {config.cpus_per_shard} cores and "
                f"{config.gpus_per_edge:g} GPUs, the UEs for "
                f"{config.ue_shards * config.gpus_per_ue:g} GPUs; there are "
                f"{total.get('CPU', 0):g} and {total.get('GPU', 0):g}: lower "
                "backend.cpus_per_shard, gpus_per_edge or gpus_per_ue"
            )
        # On an autoscaled cluster more nodes may come; actors that wait do not hold any work.
        return config.edge_shards or max(1, fit)


def start_ray(config: BackendConfig) -> bool:
    """Join the configured cluster or start a local Ray; True where this call started or joined."""
    if ray.is_initialized():
        return False
    object_store = config.host_cache_gb if config.address is None else None
    # Ray says on every start that it made itself a token; that is as it should be.
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        ray.init(
            address=config.address or "local",
            include_dashboard=False if config.address is None else None,
            object_store_memory=int(object_store * _GB) if object_store else None,
            num_cpus=os.cpu_count() if config.address is None else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except ConnectionError as error:
        raise UserError(
            f"no Ray cluster answers at backend.address={config.address} ({error}): start it with "
            "`ray up` or `ray start --head`, or leave the address out"
        ) from None
    return True


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
