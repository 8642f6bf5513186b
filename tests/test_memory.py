"""What becomes of freed memory, seen by the page faults of a fresh process."""

import subprocess
import sys

import pytest

_PROGRAM = """
import resource
import torch
from raysplit.memory import keep_freed_memory

if {keep}:
    keep_freed_memory()

def work():
    for _ in range(5):
        torch.ones(40 << 20, dtype=torch.uint8)  # beyond what glibc would learn to keep, 32 MiB

work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
_PAGES = 5 * (40 << 20) // 4096


def _page_faults(*, keep: bool) -> int:
    program = _PROGRAM.format(keep=keep)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_freed_memory_is_used_again_without_being_mapped_anew():
    assert _page_faults(keep=True) < _PAGES / 20
    assert _page_faults(keep=False) > _PAGES / 4
