"""From a run's results to what figures and report show."""
