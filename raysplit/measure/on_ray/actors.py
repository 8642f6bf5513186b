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
from typing import Any

import numpy as np
import ray
import torch
from numpy.typing import NDArray
from ray.actor import ActorHandle
from ray.exceptions import ActorUnavailableError, ObjectLostError
from torch import Tensor

from raysplit.base.arrays import FloatArray
from raysplit.link.signal import SignalSums
from raysplit.measure.config import GB, BackendConfig
from raysplit.measure.on_ray.scheduler import is_restarting
from raysplit.measure.rows import AnchorBlock, Row
from raysplit.measure.setting import Setting
from raysplit.measure.shards.edge import EdgeShard
from raysplit.measure.shards.hidden import DeviceCache, Key
from raysplit.measure.shards.job import Job
from raysplit.measure.shards.reference import CleanBlock, CleanReference
from raysplit.measure.shards.ue import UEShard
from raysplit.model.chain import shard_devices

_UE_DEATHS = 3  # over one block: the block, or loading, is what kills it

Payload = list[NDArray[np.generic]]
"""A block's hidden states as NumPy arrays: Ray shares those between processes without a copy."""

BlockRefs = list[ray.ObjectRef]
"""A block in the object store: a payload for each split point, and last the signal's sums."""


@dataclass(frozen=True, slots=True)
class Shared:
    """Where the actors of a job find it in the object store.

    It comes with every call and not with the constructor: an actor that was restarted anywhere then
    has all that it needs, and Ray has no arguments to keep for a restart.
    """

    job: ray.ObjectRef
    ues: ray.ObjectRef


@ray.remote
class UEActor:
    """A `UEShard` in its own process."""

    def __init__(self, config: BackendConfig) -> None:
        self._config = config
        self._shard: UEShard | None = None
        self._kept: dict[int, BlockRefs] = {}

    def clean_hidden(self, shared: Shared, block: int) -> BlockRefs:
        """Where a block lies; it is computed, for all split points, when first asked for."""
        if block not in self._kept:
            states_P, sums_P = self._loaded(shared).clean_hidden(block, self._split_points)
            payloads_P = ([_pack(s) for s in states] for states in states_P)
            self._kept[block] = [*map(ray.put, payloads_P), ray.put(sums_P)]
        return self._kept[block]

    def _loaded(self, shared: Shared) -> UEShard:
        if self._shard is None:
            job: Job = ray.get(shared.job)
            devices = shard_devices(self._config.gpus_per_ue)[:1]
            part = job.ue_part(devices, self._config.cpus_per_shard)
            self._split_points = job.all_split_points
            self._shard = UEShard(part, job.corpus, job.link)
        return self._shard


class _Blocks:
    """An edge actor's way to the hidden states: it asks the UE actors, and remembers where."""

    def __init__(self, shared: Shared, split_points: range) -> None:
        self.split_points = split_points
        self._shared = shared
        self._ues: list[ActorHandle] = ray.get(shared.ues)
        self._known: dict[int, BlockRefs] = {}

    def payload(self, key: Key) -> Payload:
        """A block's hidden states at one split point."""
        block, split_point = key
        return self._get(block, self.split_points.index(split_point))

    def sums(self, block: int) -> list[SignalSums]:
        """The signal's sums at every split point."""
        return self._get(block, -1)

    def _get(self, block: int, index: int) -> Any:  # noqa: ANN401 - one type or the other
        known = self._known.get(block)
        if known is not None:
            try:
                return ray.get(known[index])
            except ObjectLostError:  # they die with their UE actor, which has come back by now
                del self._known[block]
        self._known[block] = self._ask(block)
        return ray.get(self._known[block][index])

    def _ask(self, block: int) -> BlockRefs:
        """Ask the block's UE actor, again where it dies and comes back."""
        deaths = 0
        while True:
            try:
                return ray.get(ue_of(block, self._ues).clean_hidden.remote(self._shared, block))
            except ActorUnavailableError as error:
                deaths += not is_restarting(error)
                if deaths == _UE_DEATHS:
                    raise


@ray.remote
class EdgeActor:
    """An `EdgeShard` in its own process."""

    def __init__(self, config: BackendConfig) -> None:
        self._config = config
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._shard: EdgeShard | None = None

    def ready(self, shared: Shared) -> str:
        """Load the layers and answer."""
        self._loaded(shared)
        return self._name

    def clean_block(self, shared: Shared, block: int) -> CleanBlock:
        """A block's part of the clean pass, behind the last split point: the least work."""
        shard = self._loaded(shared)
        split_point = self._blocks.split_points[-1]
        nll_N = shard.clean_nll(block, split_point, self._cache.get((block, split_point)))
        return CleanBlock(nll_N, self._blocks.sums(block))

    def anchor_block(
        self, shared: Shared, setting: Setting, block: int, reference: CleanReference
    ) -> AnchorBlock:
        """Measure a block of an anchor."""
        shard = self._loaded(shared)
        hidden = self._cache.get((block, setting.split_point))
        return shard.anchor_block(setting, block, hidden, reference)

    def measure(
        self,
        shared: Shared,
        setting: Setting,
        reference: CleanReference,
        anchor_damages_KM: FloatArray | None = None,
    ) -> Row:
        """Measure one setting."""
        shard = self._loaded(shared)
        row = shard.measure(
            setting,
            lambda block: self._cache.get((block, setting.split_point)),
            reference,
            anchor_damages_KM,
        )
        return replace(row, worker=self._name)

    def _loaded(self, shared: Shared) -> EdgeShard:
        if self._shard is None:
            job: Job = ray.get(shared.job)
            devices = shard_devices(self._config.gpus_per_edge)
            part = job.edge_part(devices, self._config.cpus_per_shard)
            self._blocks = _Blocks(shared, job.all_split_points)
            self._dtype = getattr(torch, job.model.dtype)
            self._cache = DeviceCache(
                torch.device(devices[0]), self._config.device_cache_gb * GB, self._fetch
            )
            self._shard = EdgeShard(part, job.corpus, job.link, job.target_stderr)
        return self._shard

    def _fetch(self, key: Key) -> list[Tensor]:
        return [_unpack(array, self._dtype) for array in self._blocks.payload(key)]


def ue_of(block: int, ues: Sequence[ActorHandle]) -> ActorHandle:
    """The UE actor that computes a block."""
    return ues[block % len(ues)]


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
