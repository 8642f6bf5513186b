"""A finished run of the embedded model, as small as can be, with checkpoints, in this process."""

from pathlib import Path

from raysplit.pipeline.experiment import Experiment, load_experiment
from raysplit.pipeline.run import STAGE_NAMES, run_stages
from raysplit.pipeline.sweep import sweep

OVERRIDES = (
    "corpus.source=file",  # the embedded one is in the docstrings of Python's whole library
    f"corpus.path={Path(__file__).parent / 'short_sentences.txt'}",
    "corpus.max_sentences=40",
    "corpus.max_words=10",
    "plan.settings=12",
    "problem.link.noise_std.grid_points=3",
    "problem.max_split_point=3",
    "measuring.target_stderr=0.1",
    "surrogate.steps=60",
    "agents.ppo.seeds=[0]",
    "agents.ppo.total_steps=400",
    "agents.ppo.checkpoint_every_steps=200",
    "backend.kind=inprocess",
    "sweep={space: {learning_rate: [0.0003, 0.003]}, seeds: [0]}",
)


def experiment() -> Experiment:
    """Return what the run is made from."""
    return load_experiment("demo", list(OVERRIDES))


def finish(folder: Path) -> None:
    """Run all stages that are not done yet."""
    run_stages(experiment(), folder, STAGE_NAMES)


def finish_sweep(folder: Path) -> None:
    """Run the sweep of a finished run: one training of 400 steps a value."""
    sweep(experiment(), folder)
