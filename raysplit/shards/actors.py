"""Ray actors: thin shells round `UEShard` and `EdgeShard`."""

# Ray's actors and references have no complete types:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
# pyright: reportUnknownLambdaType=false, reportMissingTypeArgument=false

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import ray
import torch
from numpy.typing import NDArray
from torch import Tensor

from raysplit.ledger import Row
from raysplit.link.signal import SignalSums
from raysplit.measure.setting import Setting
from raysplit.shards.edge import EdgeShard
from raysplit.shards.hidden import DeviceCache, Key
from raysplit.shards.job import Job
from raysplit.shards.model import shard_devices
from raysplit.shards.reference import CleanReference
from raysplit.shards.ue import UEShard

Payload = list[NDArray[np.generic]]
"""A block's hidden states as NumPy arrays: Ray shares those between processes without a copy."""


@dataclass(frozen=True, slots=True)
class Shared:
    """Where the actors of a job find it in the object store.

    It comes with every call and not with the constructor: an actor that was restarted anywhere then
    has all that it needs, and Ray has no arguments to keep for a restart.
    """

    job: ray.ObjectRef
    directory: ray.ObjectRef | None = None


@ray.remote
class UEActor:
    """A `UEShard` in its own process."""

    def __init__(self, gpus: float, threads: int) -> None:
        self._gpus = gpus
        self._threads = threads
        self._shard: UEShard | None = None

    def prefix(
        self, shared: Shared, block: int, split_points: Sequence[int]
    ) -> list[Payload | list[SignalSums]]:
        """One payload a split point and the signal's sums; each becomes an object of its own."""
        if self._shard is None:
            job: Job = ray.get(shared.job)
            part = job.ue_part(shard_devices(self._gpus)[:1], self._threads)
            self._shard = UEShard(part, job.corpus, job.link)
        states_P, sums_P = self._shard.prefix(block, split_points)
        return [*([_pack(s) for s in states] for states in states_P), sums_P]


@ray.remote
class EdgeActor:
    """An `EdgeShard` in its own process."""

    def __init__(self, gpus: float, threads: int, device_cache_bytes: float) -> None:
        self._gpus = gpus
        self._threads = threads
        self._device_cache_bytes = device_cache_bytes
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._shard: EdgeShard | None = None

    def ready(self, shared: Shared) -> str:
        """Load the layers and answer."""
        self._loaded(shared)
        return self._name

    def clean_nll(self, shared: Shared, block: int, split_point: int) -> NDArray[np.float64]:
        """Clean NLL of a block's sequences."""
        shard = self._loaded(shared)
        return shard.clean_nll(block, split_point, self._cache.get((block, split_point)))

    def measure(self, shared: Shared, setting: Setting, reference: CleanReference) -> Row:
        """Measure one setting."""
        shard = self._loaded(shared)
        row = shard.measure(
            setting, lambda block: self._cache.get((block, setting.split_point)), reference
        )
        return replace(row, worker=self._name)

    def _loaded(self, shared: Shared) -> EdgeShard:
        if self._shard is None:
            job: Job = ray.get(shared.job)
            devices = shard_devices(self._gpus)
            part = job.edge_part(devices, self._threads)
            assert shared.directory is not None, "edge actors come after the prefix was started"
            self._directory: dict[Key, ray.ObjectRef] = ray.get(shared.directory)
            self._dtype = getattr(torch, job.model.dtype)
            self._cache = DeviceCache(
                torch.device(devices[0]), self._device_cache_bytes, self._fetch
            )
            self._shard = EdgeShard(part, job.corpus, job.link, job.target_stderr)
        return self._shard

    def _fetch(self, key: Key) -> list[Tensor]:
        return [_unpack(array, self._dtype) for array in ray.get(self._directory[key])]


def _pack(hidden: Tensor) -> NDArray[np.generic]:
    hidden = hidden.cpu().contiguous()
    # NumPy knows no bfloat16: two bytes are two bytes.
    return hidden.view(torch.int16).numpy() if hidden.dtype == torch.bfloat16 else hidden.numpy()


def _unpack(array: NDArray[np.generic], dtype: torch.dtype) -> Tensor:
    with warnings.catch_warnings():
        # The array is read-only shared memory; nothing writes to it (`transmit` makes its own
        # copy).
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        tensor = torch.from_numpy(array)
    return tensor.view(dtype) if tensor.dtype == torch.int16 else tensor
