"""Perplexities over loss, asked by the SNR of the radio that loses packets.

Shape suffixes: N settings, G grid points.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from envs.link_chain import grid_states
from envs.params import LayerSplitParams
from envs.sources import PerCodecSource, PPLSource, Quantity, SurrogateSource
from raysplit.base.arrays import FloatArray, IntArray
from raysplit.link.axis import grid_axis
from raysplit.pipeline.experiment import Experiment
from raysplit.pipeline.run_folder import RunFolder
from raysplit.radio.transport import TokenLoss
from raysplit.surrogate import Surrogate


@dataclass(frozen=True, slots=True)
class OverRadio:
    """A source over `loss_probability` as one over `snr_db`.

    Attributes:
        source: The one over loss.
        loss: What an SNR loses.
    """

    source: PPLSource
    loss: TokenLoss
    link_names: tuple[str, ...] = ("snr_db",)

    @property
    def quantity(self) -> Quantity:
        """The source's."""
        return self.source.quantity

    @property
    def measures(self) -> bool:
        """Whether each new answer is a measurement."""
        return getattr(self.source, "measures", False)

    def __call__(self, split_points_N: IntArray, link_states_NK: FloatArray) -> FloatArray:
        """Return the value of each setting; its link state is the SNR in dB."""
        return self.source(split_points_N, self.loss.at(link_states_NK))


def as_observed(source: PPLSource, loss: TokenLoss | None) -> PPLSource:
    """Return a source over what is measured as one over what the problem observes."""
    return source if loss is None else OverRadio(source, loss)


def per_codec(
    codecs: tuple[str, ...],
    losses: Mapping[str, TokenLoss],
    source_of: Callable[[str], PPLSource],
) -> PPLSource:
    """Return what the problem's envs ask, over what it observes.

    Args:
        codecs: Names of what decisions are made among.
        losses: What an SNR loses, by codec; empty in `link.mode: analogue`.
        source_of: Gives the source over what is measured of a codec.
    """
    sources = [as_observed(source_of(name), losses.get(name)) for name in codecs]
    return sources[0] if len(codecs) == 1 else PerCodecSource(codecs, tuple(sources))


def over_what_is_measured(source: PPLSource, codec: int) -> PPLSource:
    """Return a codec's part of a source of `per_codec`, over what is measured."""
    one = source.sources[codec] if isinstance(source, PerCodecSource) else source
    return one.source if isinstance(one, OverRadio) else one


def surrogate_source(folder: RunFolder) -> PPLSource:
    """Return a run's surrogate as what the problem's envs ask."""
    surrogate = Surrogate.load(folder.path / "surrogate")

    def of_codec(name: str) -> PPLSource:
        return SurrogateSource(surrogate, codec=surrogate.codecs.index(name))

    experiment = folder.experiment
    return per_codec(experiment.problem.decision_codecs, experiment.losses(), of_codec)


def measured_states(experiment: Experiment, params: LayerSplitParams) -> FloatArray:
    """Return the link states that the evaluation measures, (G, K)."""
    if experiment.radio is None:
        return grid_states(params, params.grid_points)
    (ends,) = experiment.measured_ranges().values()
    return np.asarray(grid_axis(*ends, params.grid_points[0]))[:, None]
