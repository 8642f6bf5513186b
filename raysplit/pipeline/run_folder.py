"""The run folder: the resolved experiment, and a manifest that says which stages are complete.

A stage's entry is written last and holds the hash of the stage's inputs and of every file that it
made, so an entry that matches means the stage is done, and nothing else does. One process at a time
works in a folder: it holds a lock that ends with the process, however that ends.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import socket
import time
from collections.abc import Generator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml
from filelock import FileLock, Timeout

from raysplit import __version__
from raysplit.base.errors import UserError, command
from raysplit.base.files import read_with_copy, sha256_of_file, write_with_copy
from raysplit.base.yaml_text import parse_yaml
from raysplit.measure.workers import Workers
from raysplit.pipeline.experiment import Experiment

# What computes a number that a stage writes: of the text, the model, the surrogate, the agents.
_LIBRARIES = (
    "datasets",
    "tokenizers",
    "transformers",
    "torch",
    "numpy",
    "scipy",
    "gymnasium",
    "ray",
)
_EXPERIMENT, _MANIFEST, _LOCK = "experiment.yaml", "manifest.json", "lock"

Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RunFolder:
    """One experiment's results on disk: `open` it to work in it, `read` it to look at them.

    Attributes:
        path: Where they lie.
        experiment: What they are results of.
        workers: What measures for all stages of a command; None: each stage opens its own.
    """

    path: Path
    experiment: Experiment
    workers: Workers | None = None

    @classmethod
    @contextmanager
    def open(cls, path: Path, experiment: Experiment) -> Generator[RunFolder]:
        """Create the folder, or open it if it belongs to the same experiment, for this process.

        The experiment may differ from the folder's in what changes no result that lies there:
        where it runs, what it is called, further agents and further seeds.

        Raises:
            UserError: If the folder holds another experiment, another process works in it, or it
                cannot be written.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(path, error) from None
        with _locked(path):
            if (path / _EXPERIMENT).exists() and _holds_results(path):
                _refuse_another_version(path)
                _refuse_another(path, experiment)
            write_with_copy(path / _EXPERIMENT, experiment.to_yaml())
            with closing(Workers(experiment.backend)) as workers:
                yield cls(path, experiment, workers)

    @classmethod
    def read(cls, path: Path) -> RunFolder:
        """Return the folder of a run that was begun; nothing in it is changed.

        Raises:
            UserError: If it is none, or none of this version.
        """
        if not cls.is_one(path):
            raise UserError(
                f"{path} is no run folder (it has no {_EXPERIMENT}); make one: "
                f"{command('run', 'demo', '--out', path)}, with your experiment for demo"
            )
        _refuse_another_version(path)
        return cls(path, _read_experiment(path))

    @staticmethod
    def is_one(path: Path) -> bool:
        """Tell whether a run was begun in a folder."""
        return (path / _EXPERIMENT).is_file()

    def agent_folder(self, name: str, seed: int) -> Path:
        """Return where one agent lives."""
        return self.path / "agents" / name / f"seed-{seed}"

    def stage_record(self, stage: str) -> dict[str, Any] | None:
        """Return a stage's manifest entry, if there is one."""
        return self._manifest().get(stage)

    def is_done(self, stage: str, inputs_sha256: str) -> bool:
        """Tell whether a stage is complete for these inputs, every output as it was written."""
        record = self.stage_record(stage)
        return (
            record is not None
            and record["inputs_sha256"] == inputs_sha256
            and all(_matches(self.path / name, sha) for name, sha in record["outputs"].items())
        )

    def declare_done(
        self, stage: str, inputs_sha256: str, outputs: list[Path], started: float
    ) -> None:
        """Write a stage's manifest entry; its outputs are complete by now."""
        manifest = self._manifest()
        manifest[stage] = {
            "stage": stage,
            "inputs_sha256": inputs_sha256,
            "outputs": {str(p.relative_to(self.path)): sha256_of_file(p) for p in sorted(outputs)},
            "versions": versions(),
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
            "seconds": round(time.time() - started, 2),
        }
        write_with_copy(self.path / _MANIFEST, json.dumps(manifest, indent=2) + "\n")

    def _manifest(self) -> dict[str, dict[str, Any]]:
        return _read_manifest(self.path / _MANIFEST)


def _read_manifest(path: Path) -> dict[str, dict[str, Any]]:
    try:
        return read_with_copy(path, json.loads) if path.exists() else {}
    except ValueError:
        raise UserError(
            f"{path} is damaged, and so is its copy: delete it, and start the same command "
            "again (the stages run again; what was measured or trained is found again)"
        ) from None


def write_again(folder: RunFolder) -> str:
    """Return what to do where a file of a finished stage is damaged."""
    return (
        f"{command('run', folder.path / _EXPERIMENT, '--out', folder.path)} makes it again, and "
        "what follows from it"
    )


def versions() -> dict[str, str]:
    """Return the versions that results depend on."""
    return {"raysplit": __version__} | {n: importlib.metadata.version(n) for n in _LIBRARIES}


@contextmanager
def _locked(path: Path) -> Generator[None]:
    """Keep other processes out; the system lets go of the lock when this process ends."""
    # Where the disk knows no such lock, filelock would fall back on one that outlives a kill.
    lock = FileLock(path / _LOCK, blocking=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        holder = (path / _LOCK).read_text(errors="replace") or "(just starting)"
        raise UserError(
            f"run folder {path} is in use by process {holder}: wait for it, end it, or choose "
            "another --out"
        ) from None
    except OSError as error:
        raise UserError(
            f"run folder {path} cannot be locked ({error.strerror}): choose an --out that can be "
            "written, on a disk of this machine"
        ) from None
    try:
        (path / _LOCK).write_text(f"{os.getpid()} on {socket.gethostname()}")
        yield
    finally:
        lock.release()


def _read_experiment(path: Path) -> Experiment:
    try:
        return read_with_copy(path / _EXPERIMENT, _parse_experiment)
    except ValueError:
        raise UserError(
            f"{path / _EXPERIMENT} is damaged or of another version, and so is its copy: delete it "
            f"and start {command('run', 'EXPERIMENT', '--out', path)} again with what "
            "the run was made from (finished stages that fit are kept)"
        ) from None


def _parse_experiment(text: str) -> Experiment:
    try:
        return Experiment.model_validate(parse_yaml(text))
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


def _refuse_another_version(path: Path) -> None:
    """Refuse what another 0.x made: its files mean other things, and its stages would run anew."""
    mine = __version__.rpartition(".")[0]
    for record in _read_manifest(path / _MANIFEST).values():
        made_by: str = record["versions"]["raysplit"]
        if made_by.rpartition(".")[0] != mine:
            raise UserError(
                f"{path} was made by raysplit {made_by}, and this is {__version__}: choose another "
                f"--out to run it anew, or go on with it under raysplit {made_by}"
            )


def _refuse_another(path: Path, experiment: Experiment) -> None:
    before, now = _read_experiment(path).results_part(), experiment.results_part()
    difference = (
        _lost_agents(before.pop("agents"), now.pop("agents"))
        or first_difference(before, now)
        or _other_order(before, now)
    )
    if difference:
        raise UserError(
            f"{path} holds another experiment ({difference}): choose another --out; "
            "measuring.ledger lets both share what is measured"
        )


def _other_order(before: Values, now: Values) -> str:
    """Name the link coordinates where they are the same in another order: columns follow it."""
    old, new = (", ".join(one["problem"]["link"]) for one in (before, now))
    return "" if old == new else f"problem.link lists {old} there and {new} here"


def _lost_agents(before: Values, now: Values) -> str:
    """Name an agent or seed that lies in the folder and would not be asked for any more."""
    for name, agent in before.items():
        if name not in now:
            return f"agent {name} is there and not here"
        lost = set(agent["seeds"]) - set(now[name]["seeds"])
        if lost:
            return f"agents.{name} has seed {min(lost)} there and not here"
        old, new = (dict(one) | {"seeds": None} for one in (agent, now[name]))
        difference = first_difference(old, new, f"agents.{name}")
        if difference:
            return difference
    return ""


def first_difference(before: Any, now: Any, where: str = "") -> str:  # noqa: ANN401 - JSON values
    """Name the first value that differs, with both values; empty where none does."""
    if isinstance(before, dict) and isinstance(now, dict):
        old, new = cast("Values", before), cast("Values", now)
        inner = (
            first_difference(old.get(key), new.get(key), f"{where}.{key}".lstrip("."))
            for key in dict.fromkeys([*old, *new])
        )
        return next(filter(None, inner), "")
    if before == now:
        return ""
    return f"{where} is {_shown(before)} there and {_shown(now)} here"


def _shown(value: Any) -> str:  # noqa: ANN401 - JSON values
    return "set" if isinstance(value, dict) else repr(value)


def _holds_results(path: Path) -> bool:
    """Tell whether anything was measured or trained: what failed before that may be corrected."""
    names = {entry.name for entry in path.iterdir()}
    return not names <= {_EXPERIMENT, f"{_EXPERIMENT}.copy", _LOCK}


def _matches(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_of_file(path) == sha256


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(
        f"run folder {path} cannot be written ({error.strerror}): choose another with --out"
    )
