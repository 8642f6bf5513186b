"""The Ray that work runs on, joined or started here, and the cores that it may use."""

# Ray's own functions have no complete types:
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import logging
import os
import signal
import threading
from pathlib import Path

import ray

from raysplit.base.errors import UserError
from raysplit.measure.config import GB, BackendConfig
from raysplit.measure.on_ray.waiting import PATIENCE_S, say_waiting

_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")  # cgroups of version 2: quota and period, or "max"


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


def gpu_model_of_cluster(config: BackendConfig) -> str:
    """Ask an edge's share of some GPU of the cluster for its model; waits until there is one."""
    start_ray(config)
    name = ray.remote(_gpu_model).options(num_cpus=0, num_gpus=config.gpus_per_edge).remote()
    if not ray.wait([name], timeout=PATIENCE_S)[0]:
        say_waiting(f"a look at the model of GPU ({config.gpus_per_edge:g} GPUs)")
    return ray.get(name)


def _gpu_model() -> str:
    import torch

    return torch.cuda.get_device_name()


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
