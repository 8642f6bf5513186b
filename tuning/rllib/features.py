"""The networks' inputs from an observation: each column scaled, and hat functions over its range.

A column with n knots, evenly spaced over its range, gives n + 1 features: its scaled value, and at
each knot a hat that is 1 there and falls to 0 at the neighbouring knots. A network with hats
can value neighbouring split points, or neighbouring link states, differently at once; out of the
scaled value alone it would have to build every edge itself. Beyond the range the hats stay as they
are at its border.

Shape suffixes: B rows, I observation columns, F features, U units.
"""

from __future__ import annotations

import gymnasium
import numpy as np
import torch
from scipy.linalg import block_diag
from torch import Tensor, nn

from raysplit.base.arrays import Float32Array


class Features(nn.Module):
    """Features of an observation, grouped by column, so that leading columns are leading features.

    Attributes:
        centre: Of each column, shape (I,).
        half_range: Of each column: (x - centre) / half_range lies in [-1, 1].
    """

    centre: Tensor
    half_range: Tensor

    def __init__(
        self, space: gymnasium.spaces.Box, *, scaled: bool, knots_I: tuple[int, ...] = ()
    ) -> None:
        """Take the bounds of the observations and each column's knots.

        Args:
            space: Bounds of the columns.
            scaled: Whether bounded columns are scaled to [-1, 1].
            knots_I: 0, or 2 and more, for each of the leading columns; the others have none, and so
                have columns without bounds. Knots need scaled columns.
        """
        super().__init__()
        columns = len(space.low)
        centre_I, half_range_I = input_scaling(space, scaled)
        bounded_I = space.bounded_below & space.bounded_above & (space.high > space.low)
        knots_I = (*knots_I, *[0] * columns)[:columns]
        self.knots_I = tuple(k if b else 0 for k, b in zip(knots_I, bounded_I, strict=True))
        assert scaled or not any(self.knots_I)
        # Buffers are part of the weights, so that an export needs no env.
        self.register_buffer("centre", torch.from_numpy(centre_I))
        self.register_buffer("half_range", torch.from_numpy(half_range_I))

    def leading(self, columns: int) -> int:
        """Return how many features the leading columns give."""
        return columns + sum(self.knots_I[:columns])

    def forward(self, obs_BI: Tensor) -> Tensor:
        """Return the features, shape (B, F)."""
        scaled_BI = (obs_BI - self.centre) / self.half_range
        if not any(self.knots_I):
            return scaled_BI
        clipped_BI = scaled_BI.clamp(-1.0, 1.0)
        parts: list[Tensor] = []
        for column, knots in enumerate(self.knots_I):
            parts.append(scaled_BI[:, column : column + 1])
            if knots:
                spacings_BF = (clipped_BI[:, column : column + 1] - _knots(knots)) / _spacing(knots)
                parts.append((1 - spacings_BF.abs()).clamp(min=0.0))
        return torch.cat(parts, 1)

    def as_relu_layer(
        self, columns: int
    ) -> tuple[Float32Array, Float32Array, Float32Array, Float32Array]:
        """Write the leading columns' features as a ReLU layer of their scaled values.

        Returns:
            (weight_UI, bias_U, combine_FU, offset_F), so that the features are
            combine relu(weight x + bias) + offset for scaled columns x: a column is
            relu(x) - relu(-x), and a hat the second difference of kinks at the knots.
        """
        weights, biases, combines, offsets = zip(
            *map(_relu_units, self.knots_I[:columns]), strict=True
        )
        return (
            np.asarray(block_diag(*weights), np.float32),
            np.concatenate(biases, dtype=np.float32),
            np.asarray(block_diag(*combines), np.float32),
            np.concatenate(offsets, dtype=np.float32),
        )


def input_scaling(space: gymnasium.spaces.Box, enabled: bool) -> tuple[Float32Array, Float32Array]:
    """Return (centre_I, half_range_I), float32: (x - centre) / half_range lies in [-1, 1].

    Columns without finite bounds, and all columns where scaling is off, get centre 0, range 1.
    """
    low_I, high_I = space.low.astype(np.float64), space.high.astype(np.float64)
    bounded_I = space.bounded_below & space.bounded_above & (high_I > low_I) & enabled
    with np.errstate(invalid="ignore"):  # inf - inf, in columns that are not scaled
        centre_I = np.where(bounded_I, (high_I + low_I) / 2, 0.0)
        half_range_I = np.where(bounded_I, (high_I - low_I) / 2, 1.0)
    return centre_I.astype(np.float32), half_range_I.astype(np.float32)


def _knots(number: int) -> Tensor:
    return torch.linspace(-1.0, 1.0, number)


def _spacing(number: int) -> float:
    return 2.0 / (number - 1)


def _relu_units(knots: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return (weight_U1, bias_U, combine_FU, offset_F) of one column."""
    weight_U1 = np.array([[1.0], [-1.0], *[[1.0]] * knots])
    bias_U = np.zeros(2 + knots)
    combine_FU = np.zeros((1 + knots, 2 + knots))
    offset_F = np.zeros(1 + knots)
    combine_FU[0, :2] = 1.0, -1.0
    if knots:
        bias_U[2:] = -np.linspace(-1.0, 1.0, knots)
        # Interpolating through `values` is values[0] plus, at every kink, the change of slope.
        values = np.eye(knots)
        slopes = np.diff(values, axis=1) / _spacing(knots)
        combine_FU[1:, 2:] = np.diff(slopes, axis=1, prepend=0.0, append=0.0)
        offset_F[1] = 1.0
    return weight_U1, bias_U, combine_FU, offset_F
