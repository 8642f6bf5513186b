"""Measuring: from a plan of settings to a table of perplexities with error bars."""
