"""What each actor asks of Ray, and how many edge actors there is room for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raysplit.base.errors import UserError
from raysplit.measure.config import BackendConfig

_ROUNDING = 1e-9
_ANY = 10**9


def ue_options(config: BackendConfig) -> dict[str, Any]:
    """Ray's options of a UE actor: it works while edges wait for it, so it asks for no core."""
    return {"num_cpus": 0, "num_gpus": config.gpus_per_ue, "max_restarts": -1}


def edge_options(config: BackendConfig) -> dict[str, Any]:
    """Ray's options of an edge actor."""
    return {
        "num_cpus": config.cpus_per_shard,
        "num_gpus": config.gpus_per_edge,
        "max_restarts": -1,
    }


def edge_count(config: BackendConfig, nodes: Sequence[Mapping[str, float]]) -> int:
    """Edge actors to create on a cluster whose nodes have these resources; none spans two nodes.

    Raises:
        UserError: If a local Ray cannot hold the UEs and one edge, which would wait for ever; or a
            cluster cannot hold them yet and nothing says how many there shall be.
    """
    cpus, gpus = (sum(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU"))
    fit = min(
        _that_fit(nodes, "CPU", config.cpus_per_shard),
        _that_fit(nodes, "GPU", config.gpus_per_edge) if config.gpus_per_edge > 1 else _ANY,
        _edges_on_gpus(config, int(gpus)),
    )
    if fit < 1 and config.address is not None and config.edge_shards is None:
        raise UserError(
            f"no node of the cluster has room for an edge yet ({cpus:g} cores, {gpus:g} GPUs in "
            f"all, {config.cpus_per_shard} and {config.gpus_per_edge:g} asked of one node): say "
            "how many edges shall wait for the nodes that come, e.g. --set backend.edge_shards=4"
        )
    if fit < 1 and config.address is None:
        raise UserError(
            f"the shards do not fit: an edge asks for {config.cpus_per_shard} cores and "
            f"{config.gpus_per_edge:g} GPUs, the UEs for {config.ue_shards} x "
            f"{config.gpus_per_ue:g} GPUs; there are {cpus:g} and {gpus:g}: lower "
            "backend.cpus_per_shard, gpus_per_edge or gpus_per_ue"
        )
    # On an autoscaled cluster more nodes may come; actors that wait do not hold any work.
    return config.edge_shards or fit


def _that_fit(nodes: Sequence[Mapping[str, float]], kind: str, each: float) -> int:
    return sum(int(node.get(kind, 0.0) // each) for node in nodes)


def _edges_on_gpus(config: BackendConfig, gpus: int) -> int:
    """Edges that the GPUs hold beside the UEs; as many as anybody likes where they use none."""
    free = [1.0] * gpus
    if not all(_take(free, config.gpus_per_ue) for _ in range(config.ue_shards)):
        return 0
    if not config.gpus_per_edge:
        return _ANY
    edges = 0
    while _take(free, config.gpus_per_edge):
        edges += 1
    return edges


def _take(free: list[float], gpus: float) -> bool:
    """Give an actor its GPUs, if there are: a share of one, or several whole ones."""
    if not gpus:
        return True
    share = min(gpus, 1.0)
    fitting = [i for i, left in enumerate(free) if left >= share - _ROUNDING]
    chosen = fitting[: max(1, int(gpus))]
    if len(chosen) < max(1, int(gpus)):
        return False
    for i in chosen:
        free[i] -= share
    return True
