"""Is this machine, and are these cluster files, fit for the work? One table, with remedies."""

from raysplit.doctor.check import Check
from raysplit.doctor.cost import ClusterCost, cluster_cost
from raysplit.doctor.run import doctor, run_checks

__all__ = ["Check", "ClusterCost", "cluster_cost", "doctor", "run_checks"]
