"""The surrogate: an ensemble of small networks, from (split point, link state) to log PPL.

Only `fit` needs torch, and imports it when called; a fitted `Surrogate` runs on NumPy.
"""

from raysplit.surrogate.config import SurrogateConfig
from raysplit.surrogate.fit import fit
from raysplit.surrogate.model import Surrogate
from raysplit.surrogate.quality import ErrorStatistics, FitReport

__all__ = ["ErrorStatistics", "FitReport", "Surrogate", "SurrogateConfig", "fit"]
