"""Resident memory of processes (Linux)."""

from __future__ import annotations

from pathlib import Path


def resident_bytes(pid: int | str = "self", *, peak: bool = False) -> int:
    """Return the private resident memory of a process, or its peak (which counts files too)."""
    fields = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        key, _, value = line.partition(":")
        fields[key] = value
    return int(fields["VmHWM" if peak else "RssAnon"].split()[0]) * 1024


def reset_peak() -> None:
    """Let this process' peak start anew at what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")
