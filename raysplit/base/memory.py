"""Main memory: how much this process held at most, what is free, what becomes of what it freed."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from contextlib import suppress
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_MEMINFO, _CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")

# glibc's mallopt(3): the name of each parameter, and from how many bytes on it acts.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = (-1, 1 << 30), (-3, 256 << 20)


def reset_peak_memory() -> None:
    """Let the peak start anew at what is resident now; only Linux can."""
    with suppress(OSError):
        _CLEAR.write_text("5")


def peak_memory_bytes() -> int:
    """Return the peak of the process' resident memory, since `reset_peak_memory` where it works."""
    with suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def free_memory_bytes() -> int:
    """Return the main memory that can still be taken: the machine's, or what a container may.

    Where nothing tells it (only Linux does), half of the machine's memory.
    """
    free = _available_on_machine()
    if free is None:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    left = _left_to_cgroup()
    return free if left is None else min(free, left)


def _available_on_machine() -> int | None:
    with suppress(OSError):
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _left_to_cgroup() -> int | None:
    """Return what a limit of the container (cgroups of version 2) leaves; None without one.

    Pages of files that were not used of late count as free: they make room.
    """
    with suppress(OSError, ValueError):
        limit = int((_CGROUP / "memory.max").read_text())  # or "max"
        used = int((_CGROUP / "memory.current").read_text())
        counters = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        return max(0, limit - used + int(counters.get("inactive_file", 0)))
    return None


def keep_freed_memory() -> None:
    """Let malloc keep what is freed for what comes next; only glibc can.

    By default it hands each activation's pages back to the system, and every layer then waits until
    they are mapped and zeroed anew: a fifth of the time of measuring on a CPU. From 256 MiB on a
    block still goes back at once, and so does what lies free at the end beyond 1 GiB.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for parameter, size_bytes in (_TRIM_THRESHOLD, _MMAP_THRESHOLD):
            mallopt(parameter, size_bytes)
