"""What becomes of freed memory, seen by the page faults of a fresh process."""

import subprocess
import sys

import pytest

_PROGRAM = """
import ctypes
import resource
from raysplit.base.memory import keep_freed_memory

if {keep}:
    keep_freed_memory()

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p

def work():
    for _ in range(5):
        block = ctypes.c_void_p(libc.malloc(ctypes.c_size_t({block_bytes})))
        ctypes.memset(block, 1, {block_bytes})
        libc.free(block)

work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
_BLOCK_BYTES = 40 << 20  # beyond what glibc would learn to keep, 32 MiB
_PAGES = 5 * _BLOCK_BYTES // 4096


def _page_faults(*, keep: bool) -> int:
    program = _PROGRAM.format(keep=keep, block_bytes=_BLOCK_BYTES)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_freed_memory_is_used_again_without_being_mapped_anew():
    assert _page_faults(keep=True) < _PAGES / 20
    assert _page_faults(keep=False) > _PAGES / 4
