"""Clean hidden states, kept where they are nearest: device memory, then main memory, then disk.

They are kept and sent without their padding, a sixth to a third of a batch of sentences.

Shape suffixes: B sequences, T positions, D hidden size, R real positions.
"""

# torch and safetensors type their NumPy bridges in part only:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from raysplit.base.arrays import IntArray
from raysplit.base.errors import UserError
from raysplit.base.halving import is_out_of_memory

Key = tuple[int, int]
"""(block, split point)"""

_PREFIX = "raysplit-hidden-"
_LEFT_FREE = 1 / 8  # of a GPU's memory


def without_padding(hidden_BTD: Tensor, lengths_B: Tensor) -> Tensor:
    """Return the real positions (R, D) of right-padded hidden states, sequence after sequence."""
    lengths: list[int] = lengths_B.tolist()
    return torch.cat([hidden_BTD[b, :length] for b, length in enumerate(lengths)])


def padded(hidden_RD: Tensor, lengths_B: IntArray) -> Tensor:
    """Return right-padded hidden states (B, T, D), with zeros for padding: a new tensor."""
    sequences = torch.split(hidden_RD, lengths_B.tolist())
    return pad_sequence(list(sequences), batch_first=True)


class DeviceCache:
    """Keeps on the device what `fetch` brings, as long as there is room.

    Settings of one split point come together, so what belongs to another one makes room. What finds
    none stays where `fetch` left it; whoever uses it moves it batch by batch.
    """

    def __init__(
        self,
        device: torch.device,
        budget_bytes: float | None,
        fetch: Callable[[Key], Sequence[Tensor]],
    ) -> None:
        """Keep nothing yet.

        Args:
            device: Where to keep; a CPU keeps nothing, as `HostStore` does.
            budget_bytes: The most to keep; None leaves it to what is free on the device.
            fetch: Brings a block's batches at one split point.
        """
        self._device = device
        given = math.inf if budget_bytes is None else budget_bytes
        self._budget = 0.0 if device.type == "cpu" else given
        self._fetch = fetch
        self._kept: dict[Key, Sequence[Tensor]] = {}
        self._held = 0

    def get(self, key: Key) -> Sequence[Tensor]:
        """Return a block's batches at one split point."""
        if key in self._kept:
            return self._kept[key]
        states = self._fetch(key)
        size = _bytes(states)
        for other in [kept for kept in self._kept if kept[1] != key[1]]:
            if self._has_room(size):
                break
            self._drop(other)
        return self._keep(key, states, size) if self._has_room(size) else states

    def _has_room(self, size: int) -> bool:
        return size <= self._budget - self._held and size <= room_on(self._device)

    def _keep(self, key: Key, states: Sequence[Tensor], size: int) -> Sequence[Tensor]:
        """Move a block's batches to the device; where that fails, be content with half as much."""
        try:
            moved = [state.to(self._device) for state in states]
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        else:
            self._kept[key] = moved
            self._held += size
            return moved
        self._budget = self._held / 2
        while self._held > self._budget:
            self._drop(next(iter(self._kept)))
        return states

    def _drop(self, key: Key) -> None:
        self._held -= _bytes(self._kept.pop(key))


def room_on(device: torch.device) -> float:
    """Return the bytes of a device's memory that hidden states may still fill.

    What is free now, whoever took the rest, less a part that is left to passes that grow.
    """
    if device.type != "cuda":
        return math.inf
    free, total = torch.cuda.mem_get_info(device)
    return free - _LEFT_FREE * total


class HostStore:
    """Main memory with a budget; what does not fit lies in safetensors files on disk."""

    def __init__(self, budget_bytes: float) -> None:
        self._left = budget_bytes
        self._memory: dict[Key, Sequence[Tensor]] = {}
        self._folder: Path | None = None

    def put(self, key: Key, states: Sequence[Tensor]) -> None:
        """Keep a block's batches at one split point."""
        states = [state.cpu() for state in states]
        size = _bytes(states)
        if size <= self._left:
            self._left -= size
            self._memory[key] = states
        else:
            self._spill(key, states)

    def __contains__(self, key: Key) -> bool:
        return key in self._memory or (self._folder is not None and self._file(key).exists())

    def get(self, key: Key) -> Sequence[Tensor]:
        """Return what was put."""
        if key in self._memory:
            return self._memory[key]
        return [state for _, state in sorted(load_file(self._file(key)).items())]

    def close(self) -> None:
        """Drop everything, files included."""
        self._memory.clear()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _spill(self, key: Key, states: Sequence[Tensor]) -> None:
        try:
            save_file({f"{i:04d}": s.contiguous() for i, s in enumerate(states)}, self._file(key))
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"hidden states do not fit into {self._folder} ({error}): let TMPDIR name a larger "
                "disk, or raise backend.host_cache_gb; what was measured is kept"
            ) from None

    def _file(self, key: Key) -> Path:
        if self._folder is None:
            _remove_stale_spill_folders()
            self._folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
        block, split_point = key
        return self._folder / f"{block}-{split_point}.safetensors"


def _remove_stale_spill_folders() -> None:
    """Remove the folders of processes of this user that ended without closing their store."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
        pid = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdigit() and not _runs(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # asks, and sends nothing
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _bytes(states: Sequence[Tensor]) -> int:
    return sum(state.nbytes for state in states)
