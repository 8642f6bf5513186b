"""Where the halves of a model run, and how precisely a setting is measured."""

from __future__ import annotations

import re
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from raysplit.base.config import Config

GB = 1e9


class BackendConfig(Config):
    """Where the halves run.

    Of all this only the kind of device (a GPU or none, `gpus_per_edge`) is in the protocol card, as
    it draws other noise; threads may change the last bit of a value.

    Attributes:
        kind: `ray` (actors) or `inprocess` (same classes in this process: breakpoints work).
        address: Ray cluster to join ("auto"), or None to start a local one.
        ue_shards: Number of UE actors.
        edge_shards: Number of edge actors; None takes one per core or GPU left.
        gpus_per_ue: GPUs of a UE actor; a fraction shares one.
        gpus_per_edge: GPUs of an edge actor; above 1, the edge's layers are a chain over its GPUs.
        cpus_per_shard: Cores of each actor; also its number of torch threads.
        device_cache_gb: The most device memory that an edge shard fills with clean hidden states;
            None: what is free while it measures, but for an eighth of the device.
        host_cache_gb: Main memory for clean hidden states before they go to disk; with Ray, the
            size of the object store. None: half of what is free at the start, in process; Ray's
            default (30 % of the memory).
        attempts: Starts of a setting before it is quarantined.
    """

    kind: Literal["ray", "inprocess"] = "ray"
    address: str | None = None
    ue_shards: int = Field(default=1, ge=1)
    edge_shards: int | None = Field(default=None, ge=1)
    gpus_per_ue: float = Field(default=0.0, ge=0.0)
    gpus_per_edge: float = Field(default=0.0, ge=0.0)
    cpus_per_shard: int = Field(default=1, ge=1)
    device_cache_gb: float | None = Field(default=None, ge=0.0)
    host_cache_gb: float | None = Field(default=None, gt=0.0)
    attempts: int = Field(default=3, ge=1)

    @property
    def device_cache_bytes(self) -> float | None:
        """`device_cache_gb` in bytes."""
        return None if self.device_cache_gb is None else self.device_cache_gb * GB

    @field_validator("address")
    @classmethod
    def _an_address_of_ray(cls, address: str | None) -> str | None:
        if address is None or re.fullmatch(r"auto|local|(ray://)?[^\s/]+:\d+", address):
            return address
        raise ValueError("must be auto (the cluster of this machine) or HOST:PORT of its head")

    @field_validator("gpus_per_ue", "gpus_per_edge")
    @classmethod
    def _a_share_or_whole_ones(cls, gpus: float) -> float:
        if gpus > 1 and gpus % 1:
            raise ValueError("must be a share of one GPU (up to 1) or a whole number of GPUs")
        return gpus


class MeasuringConfig(Config):
    """How precisely a setting is measured.

    Attributes:
        target_stderr: A setting's estimate grows until the standard error of its log PPL is at
            most this; 0 always takes the whole corpus.
        anchors: Estimate settings from fewer sentences (32 at the least, else 192), by what a few
            anchor settings with the same randomness did to more of them
            (`raysplit.perplexity.anchored`). It is another estimator, and so another protocol card.
            It needs `plan.paired` and a `target_stderr` above 0; `auto` takes anchors where both
            are so and the plan has at least 32 settings, from which on they pay.
        ledger: A ledger shared with other experiments; None keeps one in the run folder.
        reward_grid_points: Agents that are trained on measured rewards have each link coordinate
            rounded to one of so many values over the problem's range.
    """

    target_stderr: float = Field(default=0.01, ge=0.0)
    anchors: bool | Literal["auto"] = "auto"
    ledger: str | None = None
    reward_grid_points: int = Field(default=33, ge=2)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.anchors is True and self.target_stderr == 0:
            raise ValueError(
                "anchors: true has nothing to save at target_stderr: 0, which takes the whole "
                "corpus: set target_stderr above 0, or leave anchors out"
            )
        return self
