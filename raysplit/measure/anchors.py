"""Which settings are anchors: measured first and on more sequences, they foretell the others.

They are a handful, spread over the split points and from a middling to the worst link, and follow
from the problem's ranges alone, so that a run that is taken up again finds the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from raysplit.link.axis import rounded_within
from raysplit.link.codec import IDENTITY, Codec
from raysplit.link.config import LinkConfig
from raysplit.link.coordinates import link_state
from raysplit.link.state import LOWER_IS_WORSE, LinkState
from raysplit.measure.setting import Setting

FEWEST_SETTINGS = 32
"""Of a plan for which anchors cost less than they spare."""
# (share of the way from the first to the last split point, from the best link to the worst)
_DESIGN = ((0.0, 1.0), (0.0, 0.5), (1.0, 1.0), (1 / 3, 0.75))


@dataclass(frozen=True, slots=True)
class AnchorPlan:
    """The anchors of an experiment; every seed of the link has its own damages under them.

    Attributes:
        points: Split point and link state of each.
        settings: How many settings they are to serve: the more, the more sequences they get.
        codec: The codec of all of them; settings with another one are foretold a little worse.
    """

    points: tuple[tuple[int, LinkState], ...]
    settings: int
    codec: Codec = IDENTITY

    def with_seed(self, seed: int) -> list[Setting]:
        """Return the anchors under one seed."""
        return [Setting(split_point, link, seed, self.codec) for split_point, link in self.points]

    def holds(self, setting: Setting) -> bool:
        """Tell whether a setting is an anchor, under whatever seed."""
        return setting.codec == self.codec and (setting.split_point, setting.link) in self.points

    def describe(self) -> list[str]:
        """Return a line for each, for the protocol card."""
        return [
            ", ".join([f"p={p}", *(f"{name}={value!r}" for name, value in link.as_dict().items())])
            + ("" if self.codec == IDENTITY else f", codec={self.codec}")
            for p, link in self.points
        ]


def choose_anchors(
    split_points: tuple[int, int],
    ranges: Mapping[str, tuple[float, float]],
    settings: int,
    link: LinkConfig | None = None,
    codec: Codec = IDENTITY,
) -> AnchorPlan:
    """Choose the anchors of a problem.

    Args:
        split_points: First and last split point.
        ranges: Link coordinate -> (low, high).
        settings: How many settings they are to serve.
        link: The kind of link; only the coordinate `outage_probability` needs it.
        codec: The codec of the anchors.
    """
    first, last = split_points
    points = [
        (
            first + round(share * (last - first)),
            _state(ranges, dict.fromkeys(ranges, badness), link),
        )
        for share, badness in _DESIGN
    ]
    if len(ranges) > 1:  # what each coordinate does on its own
        points += [(first, _state(ranges, {name: 1.0}, link)) for name in ranges]
    return AnchorPlan(tuple(dict.fromkeys(points)), settings, codec)


def _state(
    ranges: Mapping[str, tuple[float, float]],
    badness: Mapping[str, float],
    link: LinkConfig | None,
) -> LinkState:
    """Return the link that is so bad, from 0 to 1, in each coordinate; 0 where nothing is said."""
    values: list[float] = []
    for name, (low, high) in ranges.items():
        best, worst = (high, low) if name in LOWER_IS_WORSE else (low, high)
        value = best + badness.get(name, 0.0) * (worst - best)
        values.append(float(rounded_within(np.array(value), low, high)))
    return link_state(tuple(ranges), values, link)
