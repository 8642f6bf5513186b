"""Does a shard of a 7B model load its own part only? Needs about 15 GB of disk and memory.

LLaMA2-7B's tensors at full shape with random values (Prem-1B's where disk or memory are short) as
a sharded safetensors checkpoint; a UE shard with p_max = 10 and an edge shard with p_min = 1 load
from it, each in a process of its own.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.memory import reset_peak, resident_bytes
from bench.random_checkpoint import write_random_checkpoint
from bench.report import BenchReport, Options
from raysplit.model.zoo import PAPER_MODELS

P_MIN, P_MAX = 1, 10
_SPARE = 1.15
_TARGETS = {
    "ue_memory_over_tensors": ("<=", 1.1),
    "edge_memory_over_tensors": ("<=", 1.1),
    "ue_peak_over_tensors": ("<=", 1.1),
    "edge_peak_over_tensors": ("<=", 1.1),
}


def run(options: Options) -> BenchReport:
    """Write the checkpoint, load both halves, remove it."""
    folder = Path(tempfile.mkdtemp(prefix="raysplit-fullsize-"))
    try:
        name = "Prem-1B" if options.quick else _largest_that_fits(folder)
        report = BenchReport(
            "fullsize-loading", _TARGETS, {"model": name, "p_min": P_MIN, "p_max": P_MAX}
        )
        start = time.perf_counter()
        size = write_random_checkpoint(PAPER_MODELS[name].shape, folder)
        report.add({"checkpoint_gb": size / 1e9, "write_s": time.perf_counter() - start})
        for half in ("ue", "edge"):
            loaded = _load_elsewhere(folder, half)
            tensors = loaded["tensors"]
            report.add(
                {
                    f"{half}_tensors_gb": tensors / 1e9,
                    f"{half}_load_s": loaded["seconds"],
                    f"{half}_memory_over_tensors": loaded["resident"] / tensors,
                    f"{half}_peak_over_tensors": loaded["peak"] / tensors,
                }
            )
        return report
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _largest_that_fits(folder: Path) -> str:
    available = Path("/proc/meminfo").read_text().partition("MemAvailable:")[2]
    memory_bytes = int(available.split()[0]) * 1024
    needed_bytes = 13.5e9 * _SPARE
    enough = min(shutil.disk_usage(folder).free, memory_bytes) >= needed_bytes
    return "LLaMA2-7B" if enough else "Prem-1B"


def _load_elsewhere(folder: Path, half: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.fullsize_loading", str(folder), half]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def _load(folder: str, half: str) -> None:
    """In the child: load one half and print how much memory that took."""
    from transformers.models.llama import modeling_llama  # noqa: F401 - part of the bare process

    from raysplit.model.checkpoint import open_checkpoint
    from raysplit.model.load import load_span

    checkpoint = open_checkpoint(folder)
    start, stop = (0, P_MAX) if half == "ue" else (P_MIN, checkpoint.layers)
    reset_peak()
    before, peak_before = resident_bytes(), resident_bytes(peak=True)
    began = time.perf_counter()
    span = load_span(checkpoint, start, stop, dtype="bfloat16")
    seconds = time.perf_counter() - began
    figures = {
        "tensors": checkpoint.tensor_bytes(span.start, span.stop, "bfloat16"),
        "resident": resident_bytes() - before,
        "peak": resident_bytes(peak=True) - peak_before,
        "seconds": seconds,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    _load(*sys.argv[1:])
