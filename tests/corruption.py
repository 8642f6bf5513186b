"""Damages a finished run folder, file by file, and looks what the same command makes of it.

Each change is told, made good, or changes nothing that a reader of the results could see.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import shutil
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq

from raysplit.base.errors import UserError
from raysplit.pipeline.experiment import load_experiment
from raysplit.pipeline.run import STAGE_NAMES, run_stages

Outcome = Literal["told", "made good", "silent", "traceback"]
# Seconds and bytes of a training that was run again are its own.
_CLOCKS = {"peak_resident_bytes", "first_seed_seconds", "worker_seconds", "seconds", "created"}


@dataclass(frozen=True)
class Mutation:
    """A change of one file.

    Attributes:
        name: The file, within the run folder.
        kind: `flip` a bit, `cut` the end off, `swap` two parts.
        outcome: What came of it.
        said: What was printed or raised.
    """

    name: str
    kind: str
    outcome: Outcome
    said: str


def corrupt(run: Path, work: Path, mutations: int, seed: int = 0) -> Iterator[Mutation]:
    """Yield so many mutations of a finished run folder, every file in turn.

    Args:
        run: The folder; it is not changed.
        work: An empty folder for copies.
        mutations: How many; each runs the run's own command again.
        seed: Of what is changed.
    """
    rng = random.Random(seed)
    before = results_of(run)
    names = sorted(str(p.relative_to(run)) for p in run.rglob("*") if p.is_file())
    names = [name for name in names if (run / name).stat().st_size]
    for i in range(mutations):
        name = names[i % len(names)]
        copy = shutil.copytree(run, work / f"copy-{i}")
        kind = _change(copy / name, rng)
        outcome, said = _go_on(copy, before)
        yield Mutation(name, kind, outcome, said)
        shutil.rmtree(copy)


def _change(path: Path, rng: random.Random) -> str:
    content = bytearray(path.read_bytes())
    kind = rng.choice(("flip", "flip", "cut", "swap"))
    if kind == "flip" or len(content) < 64:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        kind = "flip"
    elif kind == "cut":
        del content[rng.randrange(len(content)) :]
    else:
        size = rng.randrange(1, min(4096, len(content) // 2))
        one, other = sorted((rng.randrange(len(content) - 2 * size + 1), 0))
        other = rng.randrange(one + size, len(content) - size + 1)
        first, second = content[one : one + size], content[other : other + size]
        content[one : one + size], content[other : other + size] = second, first
    path.write_bytes(content)
    return kind


def _go_on(copy: Path, before: dict[str, Any]) -> tuple[Outcome, str]:
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            run_stages(load_experiment(str(copy / "experiment.yaml")), copy, STAGE_NAMES)
        after = results_of(copy)
    except UserError as error:
        return "told", str(error)
    except Exception:
        return "traceback", traceback.format_exc()
    if after == before:
        return "made good", said.getvalue()
    changed = [name for name in before if after.get(name) != before[name]]
    told = any(word in said.getvalue() for word in ("damaged", "was changed", "cannot be read"))
    return "told" if told else "silent", f"{changed}: {said.getvalue()}"


def results_of(run: Path) -> dict[str, Any]:
    """Return what a run found, without how long it took."""
    experiment = load_experiment(str(run / "experiment.yaml"))
    found: dict[str, Any] = {"experiment": experiment.to_yaml()}
    for path in sorted(run.rglob("*")):
        name = str(path.relative_to(run))
        if path.suffix == ".parquet":
            found[name] = pq.read_table(path).to_pylist()
        elif path.suffix == ".json" and "checkpoints" not in path.parts and name != "manifest.json":
            found[name] = _without_clocks(json.loads(path.read_bytes()))
        elif path.suffix == ".safetensors" and "checkpoints" not in path.parts:
            found[name] = path.read_bytes()
    return found


def _without_clocks(value: Any) -> Any:
    if isinstance(value, dict):
        # The hash of content with a clock in it is a clock's, too.
        skipped = _CLOCKS | {"content_sha256"}
        return {key: _without_clocks(v) for key, v in value.items() if key not in skipped}
    return [_without_clocks(v) for v in value] if isinstance(value, list) else value
