"""How much memory this process held at most."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


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
