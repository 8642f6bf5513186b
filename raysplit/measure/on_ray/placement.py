"""What each actor asks of Ray, how many edge actors there is room for, and which sit together.

A UE and an edge that fit on one GPU are a pair: they get one as a whole. Left alone, Ray puts the
UEs on one GPU, as each leaves room for the next, and an edge finds none on it.
"""

# Ray's placement groups have no complete types:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ray.util.placement_group import PlacementGroup, placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from raysplit.base.errors import UserError
from raysplit.measure.config import BackendConfig

_ROUNDING = 1e-9
_ANY = 10**9


def ue_options(config: BackendConfig, pair: PlacementGroup | None = None) -> dict[str, Any]:
    """Ray's options of a UE actor: it works while edges wait for it, so it asks for no core."""
    return {"num_cpus": 0, "num_gpus": config.gpus_per_ue, **_common_options(pair)}


def edge_options(config: BackendConfig, pair: PlacementGroup | None = None) -> dict[str, Any]:
    """Ray's options of an edge actor."""
    asked = {"num_cpus": config.cpus_per_shard, "num_gpus": config.gpus_per_edge}
    return {**asked, **_common_options(pair)}


def _common_options(pair: PlacementGroup | None) -> dict[str, Any]:
    options: dict[str, Any] = {"max_restarts": -1}
    if pair is not None:
        options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(
            pair, placement_group_bundle_index=0
        )
    return options


def reserve_pairs(config: BackendConfig, count: int) -> list[PlacementGroup]:
    """Have Ray set aside room for so many pairs; one that finds none waits for it."""
    asked = {
        "CPU": float(config.cpus_per_shard),
        "GPU": round(config.gpus_per_ue + config.gpus_per_edge, 4),  # Ray counts in 1e-4
    }
    return [placement_group([asked], strategy="STRICT_PACK") for _ in range(count)]


def pair_count(config: BackendConfig, edges: int, nodes: Sequence[Mapping[str, float]]) -> int:
    """Pairs of a UE and an edge that share a GPU; what is left over is placed one by one.

    Args:
        config: What a UE and an edge ask for.
        edges: Edge actors there will be.
        nodes: Resources of the nodes.
    """
    if not _shares_a_gpu(config):
        return 0
    most = min(config.ue_shards, edges)
    gpus = int(_total(nodes, "GPU"))
    fitting = [pairs for pairs in range(most + 1) if _edges_with(config, gpus, pairs) >= edges]
    return max(fitting, default=most)  # nothing fits yet: all wait for the nodes that come


def edge_count(config: BackendConfig, nodes: Sequence[Mapping[str, float]]) -> int:
    """Edge actors to create on a cluster whose nodes have these resources; none spans two nodes.

    Raises:
        UserError: If a local Ray cannot hold the UEs and one edge, which would wait for ever; or a
            cluster cannot hold them yet and nothing says how many there shall be.
    """
    cpus, gpus = _total(nodes, "CPU"), _total(nodes, "GPU")
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


def _total(nodes: Sequence[Mapping[str, float]], kind: str) -> float:
    return sum(node.get(kind, 0.0) for node in nodes)


def _that_fit(nodes: Sequence[Mapping[str, float]], kind: str, each: float) -> int:
    return sum(int(node.get(kind, 0.0) // each) for node in nodes)


def _shares_a_gpu(config: BackendConfig) -> bool:
    asked = (config.gpus_per_ue, config.gpus_per_edge)
    return min(asked) > 0 and sum(asked) <= 1 + _ROUNDING


def _edges_on_gpus(config: BackendConfig, gpus: int) -> int:
    """Edges that the GPUs hold beside the UEs; as many as anybody likes where they use none."""
    most_pairs = min(config.ue_shards, gpus) if _shares_a_gpu(config) else 0
    return max(_edges_with(config, gpus, pairs) for pairs in range(most_pairs + 1))


def _edges_with(config: BackendConfig, gpus: int, pairs: int) -> int:
    """Edges that the GPUs hold when so many of them sit with a UE; 0 where not all UEs fit."""
    free = [1.0] * gpus
    pair = config.gpus_per_ue + config.gpus_per_edge
    asked = [pair] * pairs + [config.gpus_per_ue] * (config.ue_shards - pairs)
    if not all(_take(free, each) for each in asked):
        return 0
    if not config.gpus_per_edge:
        return _ANY
    edges = pairs
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
