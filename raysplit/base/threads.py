"""How many threads torch computes with."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager

import torch


def one_thread() -> AbstractContextManager[None]:
    """Let torch compute in one thread.

    Products of networks this small gain nothing from a second one, and on a busy machine waiting
    for it costs thirty times the work.
    """
    return threads(1)


@contextmanager
def threads(count: int) -> Generator[None]:
    """Let torch compute in so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
