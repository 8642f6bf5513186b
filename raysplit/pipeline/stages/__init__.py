"""The five stages of a run, one a module, each with `run(folder) -> its output files`."""
