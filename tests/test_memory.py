"""What is free, and what becomes of freed memory, seen by the page faults of a fresh process."""

import subprocess
import sys

import pytest

from raysplit.base import memory

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


def test_free_memory_is_what_the_machine_has_or_the_container_may_take(monkeypatch, tmp_path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 900 kB\nMemAvailable: 500 kB\nBuffers: 1 kB\n")
    monkeypatch.setattr(memory, "_MEMINFO", meminfo)
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert memory.free_memory_bytes() == 500 * 1024  # no cgroup of version 2
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.free_memory_bytes() == 500 * 1024
    (tmp_path / "memory.max").write_text("400000\n")
    (tmp_path / "memory.current").write_text("300000\n")
    (tmp_path / "memory.stat").write_text("anon 100000\ninactive_file 50000\n")
    assert memory.free_memory_bytes() == 150_000
    meminfo.unlink()
    assert memory.free_memory_bytes() > 0
