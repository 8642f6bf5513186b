"""Ray actors: thin shells round `UEShard` and `EdgeShard`."""

# Ray's actors and references have no complete types:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
# pyright: reportUnknownLambdaType=false, reportMissingTypeArgument=false

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Callable, Sequence
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
from raysplit.measure.config import BackendConfig
from raysplit.measure.on_ray.deaths import is_away
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

BlockRefs = dict[int, ray.ObjectRef]
"""A block in the object store: split point -> where its payload lies."""


@dataclass(frozen=True, slots=True)
class Shared:
    """Where the actors of a job find it in the object store, and what the work at hand asks for.

    It comes with every call and not with the constructor: an actor that was restarted anywhere then
    has all that it needs, and Ray has no arguments to keep for a restart.

    Attributes:
        job: The job.
        ues: The UE actors.
        split_points: Those of the settings at hand, ascending: a block's hidden states are
            computed at all of them together, and kept there only.
    """

    job: ray.ObjectRef
    ues: ray.ObjectRef
    split_points: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class CleanHidden:
    """A block's way through the UE in the clean pass.

    Attributes:
        refs: Its hidden states at the split points at hand and at the last one.
        sums_P: The signal's sums at every split point of the job.
    """

    refs: BlockRefs
    sums_P: list[SignalSums]


@ray.remote
class UEActor:
    """A `UEShard` in its own process."""

    def __init__(self, config: BackendConfig) -> None:
        self._config = config
        self._shard: UEShard | None = None
        self._kept: dict[int, BlockRefs] = {}
        self._ahead: dict[int, CleanHidden] = {}

    def clean_hidden(self, shared: Shared, block: int) -> BlockRefs:
        """Where a block lies at the split points at hand; what is missing is computed in one go."""
        kept = self._kept.setdefault(block, {})
        missing = [p for p in shared.split_points if p not in kept]
        if missing:
            states_P, _ = self._loaded(shared).clean_hidden(block, missing)
            kept.update(zip(missing, map(_put, states_P), strict=True))
        return {p: kept[p] for p in shared.split_points}

    def begin_clean_pass(self, shared: Shared, block: int) -> None:
        """Run a block before the edge asks for it."""
        if block in self._ahead:
            return
        shard = self._loaded(shared)
        split_points = sorted({*shared.split_points, self._job.split_points[1]})
        states_P, sums_P = shard.clean_hidden(block, split_points, self._job.all_split_points)
        refs = dict(zip(split_points, map(_put, states_P), strict=True))
        self._ahead[block] = CleanHidden(refs, sums_P)
        self._kept.setdefault(block, {}).update((p, refs[p]) for p in shared.split_points)

    def clean_pass(self, shared: Shared, block: int) -> CleanHidden:
        """Hand a block over; what no setting will ask for ends with the edge that gets it."""
        self.begin_clean_pass(shared, block)
        return self._ahead.pop(block)

    def _loaded(self, shared: Shared) -> UEShard:
        if self._shard is None:
            self._job: Job = ray.get(shared.job)
            devices = shard_devices(self._config.gpus_per_ue)[:1]
            part = self._job.ue_part(devices, self._config.cpus_per_shard)
            self._shard = UEShard(part, self._job.corpus, self._job.link)
        return self._shard


class _Blocks:
    """An edge actor's way to the hidden states: it asks the UE actors, and remembers where."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self._ues: list[ActorHandle] = ray.get(shared.ues)
        self._known: dict[int, BlockRefs] = {}

    def payload(self, key: Key) -> Payload:
        """A block's hidden states at one split point."""
        block, split_point = key
        ref = self._known.get(block, {}).get(split_point)
        if ref is not None:
            try:
                return ray.get(ref)
            except ObjectLostError:  # they die with their UE actor, which has come back by now
                del self._known[block]
        refs = self._ask(block, lambda ue: ue.clean_hidden.remote(self.shared, block))
        self._known.setdefault(block, {}).update(refs)
        return ray.get(refs[split_point])

    def clean_pass(self, block: int, last: int) -> tuple[Payload, list[SignalSums]]:
        """A block's hidden states at the last split point, and the signal's sums at every one."""
        found = self._ask(block, lambda ue: ue.clean_pass.remote(self.shared, block))
        kept = {p: ref for p, ref in found.refs.items() if p in self.shared.split_points}
        self._known.setdefault(block, {}).update(kept)
        return ray.get(found.refs[last]), found.sums_P

    def _ask(self, block: int, call: Callable[[ActorHandle], ray.ObjectRef]) -> Any:  # noqa: ANN401
        """Ask the block's UE actor, again where it dies and comes back."""
        deaths = 0
        while True:
            try:
                return ray.get(call(ue_of(block, self._ues)))
            except ActorUnavailableError as error:
                deaths += not is_away(error)
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
        """Load the layers and answer with the id of the node."""
        self._loaded(shared)
        return ray.get_runtime_context().get_node_id()

    def clean_block(self, shared: Shared, block: int) -> CleanBlock:
        """A block's part of the clean pass, behind the last split point: the least work."""
        shard = self._loaded(shared)
        payload, sums_P = self._blocks.clean_pass(block, self._last_split_point)
        nll_N = shard.clean_nll(block, self._last_split_point, self._unpacked(payload))
        return CleanBlock(nll_N, sums_P)

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
            devices = shard_devices(self._config.gpus_per_edge, job.gpu)
            part = job.edge_part(devices, self._config.cpus_per_shard)
            self._blocks = _Blocks(shared)
            self._last_split_point = job.split_points[1]
            self._dtype = getattr(torch, job.model.dtype)
            self._cache = DeviceCache(
                torch.device(devices[0]), self._config.device_cache_bytes, self._fetch
            )
            self._shard = EdgeShard(part, job.corpus, job.link, job.target_stderr)
        self._blocks.shared = shared
        return self._shard

    def _fetch(self, key: Key) -> list[Tensor]:
        return self._unpacked(self._blocks.payload(key))

    def _unpacked(self, payload: Payload) -> list[Tensor]:
        return [_unpack(array, self._dtype) for array in payload]


def ue_of(block: int, ues: Sequence[ActorHandle]) -> ActorHandle:
    """The UE actor that computes a block."""
    return ues[block % len(ues)]


def _put(states: Sequence[Tensor]) -> ray.ObjectRef:
    """Put a block's hidden states at one split point into the object store."""
    return ray.put([_pack(state) for state in states])


def _pack(hidden: Tensor) -> NDArray[np.generic]:
    hidden = hidden.contiguous()
    # NumPy knows no bfloat16: two bytes are two bytes.
    return hidden.view(torch.int16).numpy() if hidden.dtype == torch.bfloat16 else hidden.numpy()


def _unpack(array: NDArray[np.generic], dtype: torch.dtype) -> Tensor:
    with warnings.catch_warnings():
        # The array is read-only shared memory; nothing writes to it (`padded` makes a copy).
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        tensor = torch.from_numpy(array)
    return tensor.view(dtype) if tensor.dtype == torch.int16 else tensor
