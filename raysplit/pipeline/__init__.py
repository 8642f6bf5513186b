"""Composition: one experiment, one run folder, five stages; the only room that sees all others."""
