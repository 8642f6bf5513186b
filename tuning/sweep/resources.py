"""What a trial asks of the machine, and a refusal where it would wait for ever."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raysplit.base.errors import UserError
from raysplit.measure.on_ray.session import usable_cores
from tuning.settings import TrainConfig
from tuning.sweep.settings import SweepConfig

Bundles = list[dict[str, float]]

_PROBE_TIMEOUT_S = 60


def trial_bundles(config: SweepConfig, agent: TrainConfig) -> Bundles:
    """Return what a trial asks for: its own cores, and one for each remote env runner."""
    return [{"CPU": float(config.cpus_per_trial)}, *([{"CPU": 1.0}] * agent.num_env_runners)]


def check_machine(bundles: Bundles) -> None:
    """Check, before Ray starts, that a trial fits this machine.

    Raises:
        UserError: It does not.
    """
    _check_fit(bundles, [float(usable_cores())], "this machine")


def placed_bundles(bundles: Bundles, folder: Path) -> Bundles:
    """Return the bundles for a Ray cluster, after checking that a trial will find its place.

    A cluster of one node keeps its trials there: nodes that its autoscaler would start for them
    cost money and need not see the sweep's folder.

    Raises:
        UserError: A trial fits no node, all cores are taken, or a node has no such folder.
    """
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    _check_fit(bundles, [node["Resources"]["CPU"] for node in nodes], "the cluster")
    free = ray.available_resources().get("CPU", 0.0)
    if free < _cores(bundles):
        raise UserError(
            f"a trial asks for {_cores(bundles):g} cores, but of the cluster's "
            f"{ray.cluster_resources()['CPU']:g} only {free:g} are free: end what holds them first "
            "(`ray status` shows it)"
        )
    here = ray.get_runtime_context().get_node_id()
    _check_folder([node["NodeID"] for node in nodes if node["NodeID"] != here], folder)
    if len(nodes) > 1:
        return bundles
    return [bundle | {f"node:{nodes[0]['NodeManagerAddress']}": 0.001} for bundle in bundles]


def _check_fit(bundles: Bundles, cores: Sequence[float], where: str) -> None:
    largest = max(bundle["CPU"] for bundle in bundles)
    if largest > max(cores, default=0.0) or _cores(bundles) > sum(cores):
        raise UserError(
            f"no trial fits {where}: one asks for {_cores(bundles):g} cores ({largest:g} on one "
            f"node), there are {sum(cores):g} (at most {max(cores, default=0.0):g} on a node); "
            "lower sweep.cpus_per_trial or the agent's num_env_runners"
        )


def _cores(bundles: Bundles) -> float:
    return sum(bundle["CPU"] for bundle in bundles)


def _check_folder(node_ids: list[str], folder: Path) -> None:
    """Trials leave their checkpoints and records in the sweep's folder, wherever they run."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".seen-by-all-nodes-") as probe:
        sees = ray.remote(num_cpus=0)(os.path.exists)
        asked = [
            sees.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False)
            ).remote(probe.name)
            for node_id in node_ids
        ]
        try:
            answers = ray.get(asked, timeout=_PROBE_TIMEOUT_S)
        except RayError as error:
            raise UserError(
                f"a node of the cluster does not answer ({type(error).__name__}): look at "
                "`ray status`, and start again when it is gone or back"
            ) from None
    blind = sum(not answer for answer in answers)
    if blind:
        raise UserError(
            f"{blind} of the cluster's nodes do not see {folder}: put the run folder (--out) on "
            "storage that all nodes share, such as NFS, or leave out backend.address to use this "
            "machine alone"
        )
