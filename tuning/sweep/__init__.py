"""Hyper-parameter sweeps with Ray Tune, resumable from records that are complete on their own."""
