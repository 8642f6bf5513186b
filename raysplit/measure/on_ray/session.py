"""The Ray that work runs on, joined or started here, and the cores that it may use."""

# Ray's own functions have no complete types:
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from pathlib import Path

import ray

from raysplit.base.errors import UserError
from raysplit.base.ray_folder import fault_of, ray_folder
from raysplit.measure.config import GB, BackendConfig
from raysplit.measure.on_ray.raylet import watch_raylet
from raysplit.measure.on_ray.token import give_token_without_home
from raysplit.measure.on_ray.waiting import PATIENCE_S, say_waiting

_ANSWER_S = 10.0
_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")  # cgroups of version 2: quota and period, or "max"


def start_ray(config: BackendConfig) -> bool:
    """Join the configured cluster or start a local Ray; True where this call started or joined.

    Raises:
        UserError: No cluster answers, or no Ray can be started here.
    """
    if ray.is_initialized():
        return False
    if config.address is None:
        if fault := fault_of(ray_folder()):
            raise UserError(fault)
        give_token_without_home()
    elif not _answers(config.address):
        raise _no_answer(config.address, f"nobody listens there within {_ANSWER_S:g} s")
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
        raise _no_answer(config.address, str(error)) from None
    except Exception as error:  # a process of Ray's that ended, a clock that ran out
        reason = (str(error).strip().splitlines() or [""])[0]
        where = "joined" if config.address else "started"
        raise UserError(
            f"Ray could not be {where} ({type(error).__name__}: {reason:.200}): its logs lie in "
            f"{ray_folder()}/session_latest/logs, and `raysplit doctor` says what may be missing"
        ) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray has put its own there
    if config.address is None:
        watch_raylet()
    return True


def _no_answer(address: str | None, reason: str) -> UserError:
    return UserError(
        f"no Ray cluster answers at backend.address={address} ({reason}): start it with `ray up` "
        "or `ray start --head`, or leave the address out"
    )


def _answers(address: str) -> bool:
    """Tell whether somebody listens at an address; of "auto" and the like Ray finds out itself.

    Ray would try for a quarter of an hour.
    """
    host, colon, port = address.partition("://")[2 if "://" in address else 0].rpartition(":")
    if not colon or not port.isdigit():
        return True
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S).close()
    except (OSError, OverflowError):
        return False
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
