"""Which model of GPU a run measures on: the protocol card names it."""

from __future__ import annotations

from raysplit.measure.config import BackendConfig


def gpu_model(config: BackendConfig) -> str | None:
    """Return the name of the GPU that edges measure on; None on a CPU, or where none is seen.

    It is this machine's, or, where a driver without one has joined a cluster, one of the cluster's:
    an edge that finds itself on another model then refuses to measure.
    """
    if not config.gpus_per_edge:
        return None
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    if config.kind == "ray" and config.address is not None:
        from raysplit.measure.on_ray.session import gpu_model_of_cluster

        return gpu_model_of_cluster(config)
    return None
