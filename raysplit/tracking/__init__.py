"""Tracking: none, TensorBoard or Weights & Biases behind one small interface.

Tracking never stops a run: whatever fails in a tracker is warned of once, and the run goes on.
"""

from raysplit.tracking.base import Tracker
from raysplit.tracking.config import TrackingConfig
from raysplit.tracking.opening import open_tracker

__all__ = ["Tracker", "TrackingConfig", "open_tracker"]
