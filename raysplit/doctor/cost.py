"""What a run on a rented cluster costs: a calculation, with every number a parameter."""

from __future__ import annotations

from typing import NamedTuple

from raysplit.base.errors import UserError


class ClusterCost(NamedTuple):
    """Hours and money of one run; the currency is that of the prices put in."""

    measuring_hours: float  # wall-clock time of the measuring stage
    total_hours: float  # wall-clock time from `ray up` to `ray down`
    gpu_hours: float  # paid for, summed over the GPUs
    gpu_cost: float
    head_cost: float  # of the head node and its disk, for the whole time
    total_cost: float


def cluster_cost(
    *,
    settings: int,
    seconds_per_setting: float,
    gpus: int,
    price_per_gpu_hour: float,
    price_per_head_hour: float,
    efficiency: float = 0.95,
    start_minutes: float = 10.0,
    idle_minutes: float = 10.0,
    other_stages_hours: float = 0.5,
) -> ClusterCost:
    """Return the cost of measuring `settings` settings and learning from them.

    measuring hours = settings * seconds_per_setting / (3600 * gpus * efficiency); each GPU is paid
    for these, for its start and for the idle timeout; the head is paid for everything.

    Args:
        settings: Settings of the plan, e.g. 9,718 for the paper's.
        seconds_per_setting: On one GPU, from a run's own report.
        gpus: GPUs that measure at the same time.
        price_per_gpu_hour: Price of the worker node divided by its GPUs.
        price_per_head_hour: Price of the head node.
        efficiency: Share of the time in which a GPU has work, in (0, 1].
        start_minutes: From the request of a worker to its first setting (start, image, weights).
        idle_minutes: `idle_timeout_minutes` of the cluster file.
        other_stages_hours: Fitting, training, evaluating and reporting, on the head.

    Raises:
        UserError: A count, time or price is out of range.
    """
    if settings < 0 or seconds_per_setting < 0 or gpus < 1 or not 0 < efficiency <= 1:
        raise UserError("settings and seconds must be >= 0, gpus >= 1, efficiency in (0, 1]")
    times = (start_minutes, idle_minutes, other_stages_hours)
    if min(price_per_gpu_hour, price_per_head_hour, *times) < 0:
        raise UserError("prices, minutes and hours must be >= 0")
    measuring = settings * seconds_per_setting / (3600 * gpus * efficiency)
    start = start_minutes / 60
    total = start + measuring + other_stages_hours
    gpu_hours = gpus * (start + measuring + idle_minutes / 60)
    gpu_cost, head_cost = gpu_hours * price_per_gpu_hour, total * price_per_head_hour
    return ClusterCost(measuring, total, gpu_hours, gpu_cost, head_cost, gpu_cost + head_cost)
