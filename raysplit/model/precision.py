"""What `model.dtype: auto` means: bfloat16 where the device multiplies it faster, else float32.

The answer is found once, before anything is measured, and stands in the protocol card and in every
key as if it had been written into the experiment.
"""

from __future__ import annotations

import functools
import time
from pathlib import Path

from raysplit.base.progress import console

_FLAGS = frozenset({"amx_bf16", "avx512_bf16", "bf16"})
"""Features of a CPU (Intel and AMD; Arm) that multiply bfloat16; without one it is emulated."""
_WORTH_IT = 1.2
_TRIES = 5


def resolve_dtype(asked: str, device: str) -> str:
    """Return the number format to measure in.

    Args:
        asked: `auto`, or a format, which is taken as it is.
        device: "cuda" or "cpu": where the shards run. This process looks at its own machine, so
            the machines of a cluster should be alike.
    """
    if asked != "auto":
        return asked
    if device != "cpu":
        chosen, reason = ("bfloat16", "GPU") if _gpu_multiplies_it() else ("float32", "older GPU")
    elif not _cpu_multiplies_it():
        chosen, reason = "float32", "this CPU only emulates bfloat16"
    else:
        speedup = bfloat16_speedup()
        chosen = "bfloat16" if speedup > _WORTH_IT else "float32"
        reason = f"bfloat16 is {speedup:.1f} times as fast as float32 here"
    console.print(f"model.dtype: auto is {chosen} ({reason})")
    return chosen


@functools.cache  # one answer in a process, however busy the machine becomes
def bfloat16_speedup() -> float:
    """Return how many times as fast this CPU multiplies bfloat16 matrices as float32 ones."""
    import torch

    seconds = {torch.float32: float("inf"), torch.bfloat16: float("inf")}
    matrices = {dtype: torch.ones(576, 576, dtype=dtype) for dtype in seconds}
    with torch.inference_mode():
        for _ in range(1 + _TRIES):  # side by side; the best of each counts, warm or cold
            for dtype, matrix in matrices.items():
                began = time.perf_counter()
                for _ in range(4):
                    torch.nn.functional.linear(matrix, matrix)
                seconds[dtype] = min(seconds[dtype], time.perf_counter() - began)
    return seconds[torch.float32] / seconds[torch.bfloat16]


def _cpu_multiplies_it(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    try:
        words = cpuinfo.read_text(encoding="utf-8", errors="replace").split()
    except OSError:  # no Linux
        return False
    return not _FLAGS.isdisjoint(words)


def _gpu_multiplies_it() -> bool:
    """From compute capability 8 (Ampere) on; a driver without a GPU of its own believes it."""
    import torch

    return not torch.cuda.is_available() or torch.cuda.get_device_capability()[0] >= 8
