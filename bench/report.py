"""Benchmark reports: figures beside their targets, with what is needed to believe them."""

from __future__ import annotations

import importlib.metadata
import json
import operator
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raysplit.base.files import write_atomically

REPORTS = Path(__file__).parent / "reports"
NEEDS_WIKITEXT2 = "needs WikiText-2's test text: RAYSPLIT_WIKITEXT2 or --wikitext2"
_ROOT = Path(__file__).parents[1]
_LIBRARIES = ("torch", "transformers", "numpy", "ray", "gymnasium", "stable-baselines3")
_COMPARE = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks of every benchmark.

    Attributes:
        quick: Small sizes: shows that a benchmark runs, not how fast anything is.
        wikitext2: WikiText-2's raw test text, or None to skip what needs it.
        reports: Folder for the reports.
        lte_trace: A recorded uplink in mahimahi's format, or None to skip what needs it.
    """

    quick: bool = False
    wikitext2: Path | None = None
    reports: Path = REPORTS
    lte_trace: Path | None = None


@dataclass(slots=True)
class BenchReport:
    """One benchmark's outcome.

    Attributes:
        name: The file's name without its ending.
        targets: Figure -> (operator, value).
        config: The settings behind the figures.
        figures: Figure -> value.
        skipped: Figure -> why it was not measured.
        begun_at: The commit when measuring began; the report, written in between, changes it.
    """

    name: str
    targets: Mapping[str, tuple[str, float]]
    config: dict[str, Any]
    figures: dict[str, float] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    begun_at: str = field(default_factory=lambda: commit())

    def add(self, figures: Mapping[str, float]) -> None:
        """Add figures and print one line for each."""
        for name, value in figures.items():
            self.figures[name] = float(f"{value:.6g}")
            print(f"{name:<36}{value:>12.4g}  {self._verdict(name, value)}", flush=True)

    def skip(self, name: str, reason: str) -> None:
        """Note why a figure is missing."""
        self.skipped[name] = reason
        print(f"{name:<36}{'-':>12}  skipped: {reason}", flush=True)

    def met(self) -> bool:
        """Whether every figure that was measured reaches its target."""
        return not any("missed" in self._verdict(n, v) for n, v in self.figures.items())

    def write(self, folder: Path) -> Path:
        """Write `NAME.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        content = {
            "figures": self.figures,
            "targets": {name: list(target) for name, target in self.targets.items()},
            "skipped": self.skipped,
            "config": self.config,
            "versions": versions(),
            "hardware": hardware(),
            "commit": self.begun_at,
        }
        path = folder / f"{self.name}.json"
        write_atomically(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
        return path

    def _verdict(self, name: str, value: float) -> str:
        if name not in self.targets:
            return ""
        sign, target = self.targets[name]
        return f"{'ok' if _COMPARE[sign](value, target) else 'missed'} (target {sign} {target:g})"


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that are installed here."""
    found = {"python": platform.python_version()}
    for library in _LIBRARIES:
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """Return processor, cores, memory in GB, load, and GPUs."""
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory_bytes / 1e9, 1),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "gpus": gpus,
    }


def commit() -> str:
    """Return the commit, marked where files differ from it; "unknown" outside a clone."""
    git = ["git", "-C", str(_ROOT)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        )
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("-changed" if changed.stdout.strip() else "")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
