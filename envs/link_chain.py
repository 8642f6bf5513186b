"""A finite chain in place of the continuous link, so that returns can be computed exactly.

Each coordinate's range becomes a grid with both ends. A grid point stands for the interval up to
the middles to its neighbours, so the ends stand for half intervals (the trapezoidal rule).

Shape suffixes: P places, G grid points, M nodes, K link coordinates, R rows of a path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri  # pyright: ignore[reportMissingTypeStubs] - scipy is untyped

from envs.dynamics import drifted
from envs.grid import product_of_axes
from envs.params import LayerSplitParams
from raysplit.base.arrays import FloatArray, IntArray
from raysplit.base.errors import UserError
from raysplit.link.axis import grid_axis

MOST_FITTED_NODES = 2_000


@dataclass(frozen=True, slots=True, eq=False)
class LinkChain:
    """Nodes of the link and how it passes between them.

    Attributes:
        links_PMK: Link state of node m at place p (it depends on the place under drift).
        start_PM: Probability that an episode starts from split point p at node m.
        next_M: Each node's successor, where the link is deterministic.
        grid_shares_G: Share of the time at each link state of the grid, where episodes start.
        kernels: One (G, G) transition matrix per coordinate, where it is random; the nodes are
            then the product of the coordinates' grids. Or a single one over all nodes.
    """

    links_PMK: FloatArray
    start_PM: FloatArray
    next_M: IntArray
    grid_shares_G: FloatArray
    kernels: tuple[FloatArray, ...] = ()

    def expected(self, values_PM: FloatArray) -> FloatArray:
        """Return the expectation of the next node's values, given the present node."""
        if not self.kernels:
            return values_PM[:, self.next_M]
        shape = (len(values_PM), *(len(kernel) for kernel in self.kernels))
        values = values_PM.reshape(shape)
        for k, kernel in enumerate(self.kernels, start=1):
            values = np.moveaxis(np.moveaxis(values, k, -1) @ kernel.T, -1, k)
        return values.reshape(values_PM.shape)


def grid_axes(params: LayerSplitParams, grid_points: Sequence[int]) -> list[FloatArray]:
    """Return K ascending axes over the case's ranges, both ends included."""
    ends = zip(params.link_low_K.tolist(), params.link_high_K.tolist(), strict=True)
    return [
        grid_axis(low, high, points) for (low, high), points in zip(ends, grid_points, strict=True)
    ]


def grid_states(params: LayerSplitParams, grid_points: Sequence[int]) -> FloatArray:
    """Return all G link states of the grid, shape (G, K), the last coordinate fastest."""
    return product_of_axes(grid_axes(params, grid_points))


def link_chain(params: LayerSplitParams, grid_points: Sequence[int]) -> LinkChain:
    """Return the chain that stands for the problem's link.

    Raises:
        UserError: A path's chain would be too large.
    """
    if params.link_dynamics == "trace":
        return _trace_chain(params, grid_points)
    links_MK = grid_states(params, grid_points)
    if params.link_dynamics == "fading":
        return _fitted_chain(params, links_MK, grid_points)
    weights_M = _grid_weights(grid_points)
    stay_M = np.arange(len(links_MK))
    kernels: tuple[FloatArray, ...] = ()
    match params.link_dynamics:
        case "iid":
            kernels = tuple(np.tile(_cells(points)[1], (points, 1)) for points in grid_points)
        case "gauss_markov":
            kernels = tuple(
                _gauss_markov_kernel(points, params.correlation) for points in grid_points
            )
        case _ if params.drift_per_layer:
            return _drift_chain(params, links_MK, weights_M)
        case _:
            pass
    return LinkChain(
        _same_for_all_places(params, links_MK),
        _start_places(params)[:, None] * weights_M,
        stay_M,
        weights_M,
        kernels,
    )


def _fitted_chain(
    params: LayerSplitParams, links_MK: FloatArray, grid_points: Sequence[int]
) -> LinkChain:
    """Return the Markov chain of a path: how often it went from each node's cell to each other's.

    A cell that the path never left (or never met) leads to itself.
    """
    nodes = len(links_MK)
    if nodes > MOST_FITTED_NODES:
        raise UserError(
            f"a path over {nodes} link states needs a matrix of {nodes} x {nodes}, and "
            f"{MOST_FITTED_NODES} fit: lower grid_points of problem.link"
        )
    cell_R = _cells_of_rows(params, grid_points)
    counts_MM = np.zeros((nodes, nodes))
    np.add.at(counts_MM, (cell_R[:-1], cell_R[1:]), 1.0)
    left_M = counts_MM.sum(axis=1)
    counts_MM[left_M == 0, left_M == 0] = 1.0
    kernel_MM = counts_MM / counts_MM.sum(axis=1, keepdims=True)
    shares_M = np.bincount(cell_R, minlength=nodes) / len(cell_R)
    return LinkChain(
        _same_for_all_places(params, links_MK),
        _start_places(params)[:, None] * shares_M,
        np.arange(nodes),
        shares_M,
        (kernel_MM,),
    )


def _cells_of_rows(params: LayerSplitParams, grid_points: Sequence[int]) -> IntArray:
    """Return the node in whose cell each row of the path lies."""
    flat_R: IntArray = np.zeros(len(params.trace_RK), dtype=np.int64)
    for axis, x_R in zip(grid_axes(params, grid_points), params.trace_RK.T, strict=True):
        middles = (axis[1:] + axis[:-1]) / 2
        flat_R = flat_R * len(axis) + np.searchsorted(middles, np.asarray(x_R))
    return flat_R


def _trace_chain(params: LayerSplitParams, grid_points: Sequence[int]) -> LinkChain:
    rows = len(params.trace_RK)
    starts = rows - params.episode_steps
    start_M = np.where(np.arange(rows) < starts, 1.0 / starts, 0.0)
    cells = int(np.prod(grid_points))
    return LinkChain(
        _same_for_all_places(params, params.trace_RK),
        _start_places(params)[:, None] * start_M,
        np.minimum(np.arange(rows) + 1, rows - 1),
        np.bincount(_cells_of_rows(params, grid_points), minlength=cells) / rows,
    )


def _drift_chain(
    params: LayerSplitParams, links_GK: FloatArray, weights_G: FloatArray
) -> LinkChain:
    """Return nodes (first split point, first link state): they fix the link at any split point.

    Moving down and up again changes the link by the square of the drift (2.5e-7 for the authors'
    0.0005); the chain takes the direct way from the first split point and neglects that.
    """
    split_points_P, start_P = params.split_points_P, _start_places(params)
    first_M = np.repeat(split_points_P, len(links_GK))
    links_MK = np.tile(links_GK, (len(split_points_P), 1))
    links_PMK = np.stack([drifted(params, links_MK, p - first_M) for p in split_points_P])
    at_first_PM = split_points_P[:, None] == first_M
    start_PM = at_first_PM * np.repeat(start_P, len(links_GK)) * np.tile(weights_G, len(start_P))
    return LinkChain(links_PMK, start_PM, np.arange(len(first_M)), weights_G)


def _same_for_all_places(params: LayerSplitParams, links_MK: FloatArray) -> FloatArray:
    return np.broadcast_to(links_MK, (len(params.split_points_P), *links_MK.shape))


def _start_places(params: LayerSplitParams) -> FloatArray:
    first, last = params.start_split_points
    split_points_P = params.split_points_P
    starts_P = (split_points_P >= first) & (split_points_P <= last)
    return starts_P / starts_P.sum()


def _grid_weights(grid_points: Sequence[int]) -> FloatArray:
    weights = np.ones(1)
    for points in grid_points:
        weights = np.outer(weights, _cells(points)[1]).ravel()
    return weights


def _cells(points: int) -> tuple[FloatArray, FloatArray]:
    """Return the cell edges (points + 1) and widths (points) of a grid over [0, 1]."""
    grid = np.linspace(0.0, 1.0, points)
    edges = np.concatenate([[0.0], (grid[1:] + grid[:-1]) / 2, [1.0]])
    return edges, np.diff(edges)


def _gauss_markov_kernel(points: int, correlation: float) -> FloatArray:
    """Return P(next cell | present cell's middle) of the link's Gaussian coordinate."""
    edges, widths = _cells(points)
    z_middle_G: FloatArray = ndtri(edges[:-1] + widths / 2)
    z_edge: FloatArray = ndtri(edges)  # from -inf to inf
    below: FloatArray = ndtr(
        (z_edge - correlation * z_middle_G[:, None]) / np.sqrt(1 - correlation**2)
    )
    return np.diff(below, axis=1)
