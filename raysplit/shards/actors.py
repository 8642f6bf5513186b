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
    """What all actors of a job read from the object store.

    References inside a record, because an actor that restarts must find its arguments: Ray keeps
    what its owner still refers to, but not what it put aside for a constructor's arguments.
    """

    job: ray.ObjectRef
    directory: ray.ObjectRef | None = None

    def load(self) -> tuple[Job, dict[Key, ray.ObjectRef]]:
        """Fetch the job and where each (block, split point) lies."""
        return ray.get(self.job), ray.get(self.directory) if self.directory else {}


@ray.remote
class UEActor:
    """A `UEShard` in its own process."""

    def __init__(self, shared: Shared, gpus: float, threads: int) -> None:
        job = shared.load()[0]
        self._shard = UEShard(job.ue_part(shard_devices(gpus)[:1], threads), job.corpus, job.link)

    def prefix(self, block: int, split_points: Sequence[int]) -> list[Payload | list[SignalSums]]:
        """One payload a split point and the signal's sums; each becomes an object of its own."""
        states_P, sums_P = self._shard.prefix(block, split_points)
        return [*([_pack(s) for s in states] for states in states_P), sums_P]


@ray.remote
class EdgeActor:
    """An `EdgeShard` in its own process."""

    def __init__(
        self,
        shared: Shared,
        gpus: float,
        threads: int,
        device_cache_bytes: float,
    ) -> None:
        job, self._directory = shared.load()
        devices = shard_devices(gpus)
        self._shard = EdgeShard(
            job.edge_part(devices, threads), job.corpus, job.link, job.target_stderr
        )
        self._dtype = getattr(torch, job.model.dtype)
        self._cache = DeviceCache(torch.device(devices[0]), device_cache_bytes, self._fetch)
        self._name = f"{socket.gethostname()}:{os.getpid()}"

    def ready(self) -> str:
        """Answer once the layers are loaded."""
        return self._name

    def clean_nll(self, block: int, split_point: int) -> NDArray[np.float64]:
        """Clean NLL of a block's sequences."""
        return self._shard.clean_nll(block, split_point, self._cache.get((block, split_point)))

    def measure(self, setting: Setting, reference: CleanReference) -> Row:
        """Measure one setting."""
        row = self._shard.measure(
            setting, lambda block: self._cache.get((block, setting.split_point)), reference
        )
        return replace(row, worker=self._name)

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
