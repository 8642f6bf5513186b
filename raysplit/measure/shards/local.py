"""Backend `inprocess`: both halves in this process, without Ray; a breakpoint anywhere stops."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from raysplit.base.memory import free_memory_bytes
from raysplit.measure.config import GB, BackendConfig
from raysplit.measure.rows import AnchorBlock, Row
from raysplit.measure.setting import Setting
from raysplit.measure.shards.edge import EdgeShard
from raysplit.measure.shards.hidden import DeviceCache, HostStore, Key
from raysplit.measure.shards.job import AnchorDamages, Job
from raysplit.measure.shards.reference import CleanBlock, CleanReference
from raysplit.measure.shards.ue import UEShard
from raysplit.model.chain import shard_devices


class LocalBackend:
    """One UE shard and one edge shard, called in turn."""

    workers = 1

    def __init__(self, job: Job, config: BackendConfig) -> None:
        """Load both halves."""
        self._job = job
        devices = shard_devices(config.gpus_per_edge, job.gpu)
        # As many threads as an actor has: sums over more threads differ in the last bit.
        threads = config.cpus_per_shard
        self._ue = UEShard(job.ue_part(devices[:1], threads), job.corpus, job.link)
        self._edge = EdgeShard(
            job.edge_part(devices, threads), job.corpus, job.link, job.target_stderr
        )
        given = config.host_cache_gb
        self._store = HostStore(free_memory_bytes() / 2 if given is None else given * GB)
        self._asked: set[int] = set()  # split points of the settings at hand
        self._cache = DeviceCache(
            torch.device(devices[0]), config.device_cache_bytes, self._clean_hidden
        )

    def clean_blocks(
        self, blocks: Sequence[int] | None = None, keep: Collection[int] = ()
    ) -> Iterator[tuple[int, CleanBlock]]:
        """Yield these blocks' parts of the clean pass, or all of them, in order."""
        last = self._job.split_points[1]
        split_points = sorted({*keep, last})
        for block in self._job.all_blocks if blocks is None else blocks:
            states_P, sums_P = self._ue.clean_hidden(
                block, split_points, self._job.all_split_points
            )
            for p, states in zip(split_points, states_P, strict=True):
                if p in keep:
                    self._store.put((block, p), states)
            yield block, CleanBlock(self._edge.clean_nll(block, last, states_P[-1]), sums_P)

    def anchor_blocks(
        self, wanted: Iterable[tuple[Setting, int]], reference: CleanReference
    ) -> Iterator[AnchorBlock]:
        """Yield the blocks of the anchors, in order."""
        wanted = list(wanted)
        self._asked = {setting.split_point for setting, _ in wanted}
        for setting, block in wanted:
            hidden = self._cache.get((block, setting.split_point))
            yield self._edge.anchor_block(setting, block, hidden, reference)

    def run(
        self,
        settings: Iterable[Setting],
        reference: CleanReference,
        anchors: AnchorDamages | None = None,
    ) -> Iterator[Row]:
        """Yield one row a setting, in order."""
        settings = list(settings)
        self._asked = {setting.split_point for setting in settings}
        for setting in settings:
            yield self._edge.measure(
                setting,
                lambda block, p=setting.split_point: self._cache.get((block, p)),
                reference,
                None if anchors is None else anchors[setting.seed],
            )

    def close(self) -> None:
        """Drop the hidden states."""
        self._store.close()

    def _clean_hidden(self, key: Key) -> Sequence[Tensor]:
        block = key[0]
        if key not in self._store:
            missing = [p for p in sorted(self._asked) if (block, p) not in self._store]
            states_P, _ = self._ue.clean_hidden(block, missing)
            for p, states in zip(missing, states_P, strict=True):
                self._store.put((block, p), states)
        return self._store.get(key)
