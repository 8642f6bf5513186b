"""The run folder: the resolved experiment, and a manifest that says which stages are complete.

A stage's entry is written last and holds the hash of the stage's inputs and of every file that it
made, so an entry that matches means the stage is done, and nothing else does.
"""

from __future__ import annotations

import importlib.metadata
import json
import time
from pathlib import Path
from typing import Any, cast

import yaml

from raysplit import __version__
from raysplit.errors import UserError
from raysplit.experiment import Experiment
from raysplit.files import sha256_of_file, write_atomically

_LIBRARIES = ("ray", "torch", "transformers", "gymnasium", "numpy", "scikit-learn")


class RunFolder:
    """One experiment's results on disk."""

    def __init__(self, path: Path, experiment: Experiment) -> None:
        """Create the folder, or open it if it belongs to the same experiment.

        Raises:
            UserError: If the folder holds another experiment or cannot be written.
        """
        self.path = path
        self.experiment = experiment
        resolved = path / "experiment.yaml"
        try:
            path.mkdir(parents=True, exist_ok=True)
            if resolved.exists():
                self._refuse_another(resolved)
            write_atomically(resolved, experiment.to_yaml())
        except OSError as error:
            raise UserError(f"run folder {path} cannot be written ({error.strerror})") from None

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
        write_atomically(self.path / "manifest.json", json.dumps(manifest, indent=2) + "\n")

    def _manifest(self) -> dict[str, dict[str, Any]]:
        path = self.path / "manifest.json"
        try:
            return json.loads(path.read_text()) if path.exists() else {}
        except json.JSONDecodeError:
            raise UserError(
                f"{path} is damaged: delete it to run the stages again (measurements are kept)"
            ) from None

    def _refuse_another(self, resolved: Path) -> None:
        try:
            before = Experiment.model_validate(yaml.safe_load(resolved.read_text())).results_part()
        except (ValueError, yaml.YAMLError):
            raise UserError(
                f"{resolved} is not an experiment of this version: choose another --out"
            ) from None
        difference = _first_difference(before, self.experiment.results_part())
        if difference:
            raise UserError(
                f"{self.path} holds another experiment ({difference}): choose another --out; "
                "measuring.ledger lets both share what is measured"
            )


def versions() -> dict[str, str]:
    """Return the versions that results depend on."""
    return {"raysplit": __version__} | {n: importlib.metadata.version(n) for n in _LIBRARIES}


def _matches(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_of_file(path) == sha256


def _first_difference(before: Any, now: Any, where: str = "") -> str:  # noqa: ANN401 - JSON values
    if isinstance(before, dict) and isinstance(now, dict):
        old, new = cast("dict[str, Any]", before), cast("dict[str, Any]", now)
        for key in dict.fromkeys([*old, *new]):
            inner = _first_difference(old.get(key), new.get(key), f"{where}.{key}".lstrip("."))
            if inner:
                return inner
        return ""
    return "" if before == now else f"{where} is {before!r} there and {now!r} here"
