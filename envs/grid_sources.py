"""Sources of perplexity on a grid of settings: known values, or measuring each setting once.

Shape suffixes: N settings, n those of them that are new, K link coordinates, P split points, G grid
points.
"""

# scipy ships no type information:
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from envs.grid import Grid
from envs.sources import Answer, Quantity, checked_quantity
from raysplit.base.arrays import FloatArray, IntArray
from raysplit.base.errors import UserError


class TableSource:
    """Known values on a grid: exact on its points, interpolated in between, refused outside.

    PPL is interpolated multilinearly in its logarithm, a relative gain as it is.
    """

    def __init__(
        self,
        split_points: tuple[int, int],
        axes: Sequence[FloatArray],
        values: FloatArray,
        quantity: Quantity = "ppl",
        link_names: tuple[str, ...] | None = None,
    ) -> None:
        """Take values of shape (P, G1, .., GK) for the first to last split point and K axes.

        `link_names` are those of the axes, where they have names.

        Raises:
            UserError: If an axis or the shape does not fit, the quantity is unknown, or a value is
                not finite (or no PPL).
        """
        self.grid = Grid(split_points, axes)
        self.quantity: Quantity = checked_quantity(quantity)
        self.link_names = link_names
        values = np.asarray(values, dtype=np.float64)
        if values.shape != self.grid.shape:
            raise UserError(
                f"the table has shape {values.shape}; its axes ask for {self.grid.shape}"
            )
        if not np.isfinite(values).all() or (quantity == "ppl" and (values <= 0).any()):
            raise UserError("the table holds a value that is not finite, or a PPL that is not > 0")
        # Most runs have no table until they are evaluated: what loads slowly is loaded here.
        from scipy.interpolate import RegularGridInterpolator

        self._interpolated = RegularGridInterpolator(
            (np.arange(split_points[0], split_points[1] + 1), *self.grid.axes),
            np.log(values) if quantity == "ppl" else values,
        )

    @classmethod
    def from_rows(
        cls,
        split_points_N: IntArray,
        link_states_NK: FloatArray,
        log_ppl_N: FloatArray,
        link_names: tuple[str, ...] | None = None,
    ) -> TableSource:
        """Make a table of measured settings that fill a grid; repeats are averaged in log PPL.

        Raises:
            UserError: If a point of the grid is missing.
        """
        axes = [np.unique(x_N) for x_N in link_states_NK.T]
        first, last = int(split_points_N.min()), int(split_points_N.max())
        if any(len(axis) < 2 for axis in axes):
            raise UserError("a table needs at least two values of each link coordinate")
        grid = Grid((first, last), axes)
        flat_N = grid.nearest(split_points_N, link_states_NK)
        size = int(np.prod(grid.shape))
        count = np.bincount(flat_N, minlength=size)
        if (count == 0).any():
            raise UserError(
                f"{(count == 0).sum()} of the grid's {size} settings are not measured: "
                "measure with plan.kind: grid"
            )
        log_ppl = np.bincount(flat_N, weights=log_ppl_N, minlength=size) / count
        values = np.exp(log_ppl).reshape(grid.shape)
        return cls((first, last), axes, values, link_names=link_names)

    def __call__(self, split_points_N: IntArray, link_states_NK: FloatArray) -> FloatArray:
        """Return the value of each setting.

        Raises:
            UserError: If a setting is outside the table.
        """
        self.grid.check(split_points_N, link_states_NK)
        values_N = self._interpolated(np.column_stack([split_points_N, link_states_NK]))
        return np.exp(values_N) if self.quantity == "ppl" else values_N


class MeasuredSource:
    """True PPL: link states are rounded to a grid, and each setting is measured once.

    Attributes:
        measures: Each new answer is a measurement, so `envs.checks.fingerprint` asks for none.
    """

    quantity: Quantity = "ppl"
    measures = True

    def __init__(
        self,
        measure: Answer,
        split_points: tuple[int, int],
        axes: Sequence[FloatArray],
        link_names: tuple[str, ...] | None = None,
    ) -> None:
        """Take what measures and the grid.

        Args:
            measure: Called with a step's settings that were not measured before; returns PPL.
            split_points: First and last split point.
            axes: The values that each link coordinate is rounded to, ascending.
            link_names: Those coordinates, where they have names.
        """
        self.link_names = link_names
        self._measure = measure
        self.grid = Grid(split_points, axes)
        self._rows = self.grid.rows()
        self._flat = np.full(int(np.prod(self.grid.shape)), np.nan)

    def __call__(self, split_points_N: IntArray, link_states_NK: FloatArray) -> FloatArray:
        """Return the PPL of each setting's nearest grid point.

        Raises:
            UserError: If a setting is outside the grid or its measurement gave no finite PPL.
        """
        flat_N = self.grid.nearest(split_points_N, link_states_NK)
        unseen_n = np.unique(flat_N[np.isnan(self._flat[flat_N])])
        if len(unseen_n):
            self._ask(unseen_n)
        return self._flat[flat_N]

    def _ask(self, unseen_n: IntArray) -> None:
        split_points_N, link_states_NK = self._rows
        split_points_n, link_states_nK = split_points_N[unseen_n], link_states_NK[unseen_n]
        ppl_n = np.asarray(self._measure(split_points_n, link_states_nK), dtype=np.float64)
        failed_n = ~np.isfinite(ppl_n)
        self._flat[unseen_n[~failed_n]] = ppl_n[~failed_n]
        if failed_n.any():
            raise UserError(
                f"no PPL was measured for {failed_n.sum()} setting(s), the first at split point "
                f"{split_points_n[failed_n][0]}, link state {link_states_nK[failed_n][0]}; "
                "the ledger says why"
            )
