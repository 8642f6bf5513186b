"""A grid of settings: the product of the split points and an axis of values per link coordinate.

Shape suffixes: N settings, K link coordinates, P split points, G grid points of a coordinate.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from raysplit.base.arrays import FloatArray, IntArray
from raysplit.base.errors import UserError


class Grid:
    """The product of the split points and of an axis of values per link coordinate."""

    def __init__(self, split_points: tuple[int, int], axes: Sequence[FloatArray]) -> None:
        """Take the first and last split point and K ascending axes of at least two values.

        Raises:
            UserError: If an axis has one value, or its values do not ascend.
        """
        self.first, self.last = split_points
        self.axes = tuple(np.asarray(axis, dtype=np.float64) for axis in axes)
        for k, axis in enumerate(self.axes):
            if axis.ndim != 1 or len(axis) < 2 or not (np.diff(axis) > 0).all():
                raise UserError(
                    f"axis {k} of the grid must be at least two values in ascending order; "
                    f"it is {axis.tolist()}"
                )
        self.shape = (self.last - self.first + 1, *(len(axis) for axis in self.axes))
        sizes = np.array([*self.shape[1:], 1])
        self._strides = np.cumprod(sizes[::-1])[::-1]  # of P, G1 .. GK in the flattened table

    def rows(self) -> tuple[IntArray, FloatArray]:
        """Return every setting of the grid, in the order of the flattened table."""
        links_GK = product_of_axes(self.axes)
        split_points = np.arange(self.first, self.last + 1)
        return np.repeat(split_points, len(links_GK)), np.tile(links_GK, (len(split_points), 1))

    def nearest(self, split_points_N: IntArray, link_states_NK: FloatArray) -> IntArray:
        """Return the flat index of the grid point nearest to each setting."""
        self.check(split_points_N, link_states_NK)
        # In int64: an unsigned type becomes float64 beside the strides.
        flat_N = (split_points_N.astype(np.int64, copy=False) - self.first) * self._strides[0]
        for k, axis in enumerate(self.axes):
            middles = (axis[1:] + axis[:-1]) / 2
            flat_N = flat_N + np.searchsorted(middles, link_states_NK[:, k]) * self._strides[k + 1]
        return flat_N

    def check(self, split_points_N: IntArray, link_states_NK: FloatArray) -> None:
        """Refuse settings outside the grid.

        Raises:
            UserError: Naming the first of them.
        """
        if split_points_N.min() < self.first or split_points_N.max() > self.last:
            outside = split_points_N[(split_points_N < self.first) | (split_points_N > self.last)]
            raise UserError(
                f"split point {outside[0]} is outside the table's {self.first}..{self.last}"
            )
        for k, axis in enumerate(self.axes):
            x_N = link_states_NK[:, k]
            inside_N = (x_N >= axis[0]) & (x_N <= axis[-1])
            if not inside_N.all():
                value, *ends = (float(x) for x in (x_N[~inside_N][0], axis[0], axis[-1]))
                raise UserError(
                    f"link coordinate {k} = {value!r} is outside the table's {ends}; "
                    "measure over the problem's whole range"
                )


def product_of_axes(axes: Sequence[FloatArray]) -> FloatArray:
    """Return all G combinations of K axes' values, shape (G, K), the last coordinate fastest."""
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))
