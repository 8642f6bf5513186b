"""What both ends of a codec know without sending it: the signs of a rotation, and a dither.

Fixed for each hidden size, from SHAKE-256: no library's random generator decides about them.

Shape suffixes: T positions, D hidden size, E elements of a block.
"""

# torch types its NumPy bridges in part only:
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import functools
import hashlib

import numpy as np
import torch
from torch import Tensor

from raysplit.base.arrays import Float32Array, FloatArray

_GOLDEN = (5**0.5 - 1) / 2


@functools.lru_cache(maxsize=16)
def signs(hidden_size: int, device: torch.device) -> Tensor:
    """Return a random sign for each element, (D,), float32."""
    coins_D = np.frombuffer(_known_bytes("signs", hidden_size, hidden_size), np.uint8) & 1
    return torch.from_numpy(1 - 2 * coins_D.astype(np.float32)).to(device)


@functools.lru_cache(maxsize=16)
def hadamard(size: int, device: torch.device) -> Tensor:
    """Return Sylvester's matrix of +1 and -1, (E, E), float32, for a power of two."""
    matrix_EE: Float32Array = np.ones((1, 1), dtype=np.float32)
    while len(matrix_EE) < size:
        matrix_EE = np.kron(np.array([[1, 1], [1, -1]], dtype=np.float32), matrix_EE)
    return torch.from_numpy(matrix_EE).to(device)


@functools.lru_cache(maxsize=4)
def dither(positions: int, hidden_size: int, device: torch.device) -> Tensor:
    """Return numbers uniform on [-1/2, 1/2) in steps, (T, D), float32.

    An element's dither moves by the golden ratio from position to position: even a few positions
    cover the interval evenly.
    """
    start_D = np.frombuffer(_known_bytes("dither", hidden_size, 4 * hidden_size), "<u4") / 2.0**32
    turns_TD: FloatArray = start_D + np.arange(positions)[:, None] * _GOLDEN
    return torch.from_numpy((turns_TD % 1.0 - 0.5).astype(np.float32)).to(device)


def _known_bytes(purpose: str, hidden_size: int, count: int) -> bytes:
    text = f"raysplit codec: {purpose} for hidden size {hidden_size}"
    return hashlib.shake_256(text.encode()).digest(count)
