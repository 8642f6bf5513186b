"""The hash of everything a stage depends on: the experiment, local files, earlier outputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from raysplit import __version__
from raysplit.experiment import Experiment
from raysplit.files import sha256_of_file
from raysplit.measure.setting import sha256_of
from raysplit.run_folder import RunFolder

_LARGE_BYTES = 200_000_000  # from here on, size and time of change stand for the content


def inputs_sha256(folder: RunFolder, stage: str, before: Sequence[str]) -> str:
    """Return the hash of a stage's inputs."""
    records = (folder.stage_record(name) for name in before)
    return sha256_of(
        {
            "stage": stage,
            "raysplit": __version__,
            "experiment": folder.experiment.results_part(),
            "files": {str(path): _fingerprint(path) for path in _local_files(folder.experiment)},
            "before": [record["outputs"] if record else None for record in records],
        }
    )


def _local_files(experiment: Experiment) -> Iterator[Path]:
    for path in (experiment.corpus.path, experiment.plan.path, experiment.problem.dynamics.path):
        if path is not None and path.is_file():
            yield path
    model = Path(experiment.model.name).expanduser()
    if model.is_dir():
        yield from sorted(p for p in model.iterdir() if p.suffix in {".safetensors", ".json"})


def _fingerprint(path: Path) -> str:
    stat = path.stat()
    if stat.st_size < _LARGE_BYTES:
        return sha256_of_file(path)
    return f"{stat.st_size}:{stat.st_mtime_ns}"
