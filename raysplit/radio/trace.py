"""A trace of a link: capacity, SNR or RSRP over time, and its average over decision steps.

A value holds from its own time until the next; averages are exact integrals, so the bits of all
steps add up to those of the trace. SNR and RSRP are averaged as powers (TS 38.215, 5.1.1).

Shape suffixes: R rows, S steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from raysplit.base.arrays import FloatArray
from raysplit.base.errors import UserError
from raysplit.radio.adaptation import ideal_mcs
from raysplit.radio.bler import block_error_rate
from raysplit.radio.cell import Cell
from raysplit.radio.channel import rsrp_to_snr_db
from raysplit.radio.checks import checked
from raysplit.radio.mcs import rate_mbit_s

_SNR_DB, _SNR_STEP_DB = (-15.0, 40.0), 0.05  # where a capacity is looked for

Quantity = Literal["capacity_mbit_s", "snr_db", "rsrp_dbm"]


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """A trace at decision steps.

    Attributes:
        quantity: What is averaged, with its unit.
        values_S: Mean over each step.
        step_s: Length of a step.
        lengths_S: Seconds of the trace that each step averages; the last may be shorter.
    """

    quantity: Quantity
    values_S: FloatArray
    step_s: float
    lengths_S: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """A link over time.

    Attributes:
        name: Where it is from, as messages name it.
        quantity: What the values are, with their unit.
        edges_s: Times in seconds, R + 1 of them from 0 on, ascending: value r holds between r and
            r + 1.
        values_R: The values.
    """

    name: str
    quantity: Quantity
    edges_s: FloatArray
    values_R: FloatArray

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return float(self.edges_s[-1])

    def mean(self) -> float:
        """Return the mean over the whole trace, in the quantity's unit."""
        return float(self._averaged(np.array([0.0, self.duration_s]))[0])

    def steps(self, step_s: float, episode_steps: int | None = None) -> Steps:
        """Average the trace over steps of one length.

        Args:
            step_s: Length of a decision step in seconds.
            episode_steps: Steps of an episode that shall fit; an episode also needs the state that
                follows its last step.

        Raises:
            UserError: If the step is not above 0, or the trace is shorter than an episode.
        """
        step_s = float(checked("step_s", step_s, above=0))
        count = max(1, int(np.ceil(self.duration_s / step_s - 1e-9)))
        if episode_steps is not None and count <= episode_steps:
            raise UserError(
                f"trace {self.name} lasts {self.duration_s:g} s, which is {count} step(s) of "
                f"{step_s:g} s; an episode of {episode_steps} steps needs {episode_steps + 1}: "
                "take a longer trace or a shorter step"
            )
        edges_s = np.minimum(np.arange(count + 1) * step_s, self.duration_s)
        edges_s[-1] = self.duration_s  # whatever rounding left
        return Steps(self.quantity, self._averaged(edges_s), step_s, np.diff(edges_s))

    def as_snr(self, cell: Cell) -> Trace:
        """Return an RSRP trace as one of the uplink's SNR (`rsrp_to_snr_db`).

        Raises:
            UserError: If it is no trace of RSRP.
        """
        if self.quantity != "rsrp_dbm":
            raise UserError(
                f"trace {self.name} holds {self.quantity} and not rsrp_dbm: only an RSRP becomes "
                "an SNR by the cell's powers"
            )
        return replace(self, quantity="snr_db", values_R=rsrp_to_snr_db(self.values_R, cell))

    def as_capacity(self, cell: Cell) -> Trace:
        """Return the trace as capacity: of an SNR the rate with the MCS of highest goodput."""
        if self.quantity == "capacity_mbit_s":
            return self
        snr_db = self.as_snr(cell).values_R if self.quantity == "rsrp_dbm" else self.values_R
        return replace(self, quantity="capacity_mbit_s", values_R=capacity_mbit_s(snr_db, cell))

    def _averaged(self, edges_s: FloatArray) -> FloatArray:
        is_power = self.quantity != "capacity_mbit_s"
        values_R = 10 ** (self.values_R / 10) if is_power else self.values_R
        integral = np.concatenate([[0.0], np.cumsum(values_R * np.diff(self.edges_s))])
        means_S = np.diff(np.interp(edges_s, self.edges_s, integral)) / np.diff(edges_s)
        return 10 * np.log10(means_S) if is_power else means_S


def capacity_mbit_s(snr_db: ArrayLike, cell: Cell) -> FloatArray:
    """Return the rate in Mbit/s with the MCS of highest goodput, net of block errors.

    Raises:
        UserError: If an SNR is no number.
    """
    mcs = ideal_mcs(snr_db, cell.grid)
    error = block_error_rate(snr_db, mcs, cell.grid.transport_block_bits()[mcs])
    return rate_mbit_s(cell.grid.resource_elements_per_s, mcs, error)


def equivalent_snr_db(
    quantity: Quantity, values: FloatArray, cell: Cell, share: float = 1.0
) -> FloatArray:
    """Return the uplink's SNR in dB that values of a trace stand for.

    Of a capacity it is the SNR at which this phone's share of the cell has that rate: at least that
    of the lowest, at most that of the highest MCS.
    """
    match quantity:
        case "snr_db":
            return values
        case "rsrp_dbm":
            return rsrp_to_snr_db(values, cell)
        case "capacity_mbit_s":
            snr_db_X = np.arange(*_SNR_DB, _SNR_STEP_DB)
            rates_X = np.maximum.accumulate(capacity_mbit_s(snr_db_X, cell))
            return np.interp(values / share, rates_X, snr_db_X)
