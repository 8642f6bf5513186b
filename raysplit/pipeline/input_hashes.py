"""The hash of everything a stage depends on: the experiment, local files, earlier outputs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from raysplit import __version__
from raysplit.base.files import at_home, sha256_of, sha256_of_file
from raysplit.pipeline.experiment import Experiment
from raysplit.pipeline.run_folder import RunFolder
from raysplit.surrogate.fit import FIT_FORM

# The sections that each stage is the first to read; it depends on those of the stages before, too.
_SECTIONS = {
    "measure": {"model", "corpus", "protocol", "link", "radio", "problem", "plan", "measuring"},
    "fit": {"surrogate"},
    "train": {"agents", "budget"},
    "evaluate": set[str](),
    "report": {"name", "description"},
}
_TOKENIZER_TEXTS = {"merges.txt", "vocab.txt"}
_LARGE_BYTES = 200_000_000  # from here on, size and time of change stand for the content


def inputs_sha256(folder: RunFolder, stage: str, before: Sequence[str]) -> str:
    """Return the hash of a stage's inputs, of which the stages `before` it left a part."""
    experiment = folder.experiment
    values = experiment.results_part() | experiment.model_dump(include={"name", "description"})
    read = {section for name in (*before, stage) for section in _SECTIONS[name]}
    if experiment.plan.kind == "active":  # what is measured depends on what was learned of it
        read.add("surrogate")
    records = (folder.stage_record(name) for name in before)
    fits = "fit" in (*before, stage) or experiment.plan.kind == "active"
    return sha256_of(
        {
            "stage": stage,
            "raysplit": __version__,
            "fit": FIT_FORM if fits else None,
            # As text: the order of names (of link coordinates, of agents) decides numbers, too.
            "experiment": json.dumps({section: values[section] for section in sorted(read)}),
            "files": {str(path): _fingerprint(path) for path in _local_files(experiment, read)},
            "before": [record["outputs"] if record else None for record in records],
        }
    )


def _local_files(experiment: Experiment, read: set[str]) -> Iterator[Path]:
    # What is measured does not depend on how the link moves within an episode.
    trace = experiment.problem.dynamics.path if "agents" in read else None
    for path in (experiment.corpus.path, experiment.plan.path, trace):
        if path is not None and path.is_file():
            yield path
    model = at_home(Path(experiment.model.name))
    if model.is_dir():
        yield from sorted(p for p in model.iterdir() if _decides_a_value(p))


def _decides_a_value(path: Path) -> bool:
    """Whether a file of a checkpoint's folder may be weights, a config or the tokenizer's."""
    return path.suffix in {".safetensors", ".json", ".model"} or path.name in _TOKENIZER_TEXTS


def _fingerprint(path: Path) -> str:
    stat = path.stat()
    if stat.st_size < _LARGE_BYTES:
        return sha256_of_file(path)
    return f"{stat.st_size}:{stat.st_mtime_ns}"
