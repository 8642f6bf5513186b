"""From the coordinates by which a problem varies the link to the link's state.

All but one are fields of the state under the same name. `outage_probability`, the paper's axis, is
given to the channel as the `fading_scale` at which the fading loses so many packets.
"""

from __future__ import annotations

from collections.abc import Sequence

from raysplit.link.config import LinkConfig
from raysplit.link.fading import fading_scale_for_outage
from raysplit.link.state import LinkState, check_coordinates


def link_state(
    names: Sequence[str], values: Sequence[float], config: LinkConfig | None = None
) -> LinkState:
    """Build a state from parallel names and values; what is not named keeps its default.

    Args:
        names: Link coordinates.
        values: Their values.
        config: The kind of link; only `outage_probability` needs it.

    Raises:
        UserError: If a name is unknown or repeated, one thing is named twice, a value is outside
            its range, or this kind of link has no outage.
    """
    check_coordinates(names)
    given = {name: float(value) for name, value in zip(names, values, strict=True)}
    if "outage_probability" in given:
        probability = given["outage_probability"]
        given["fading_scale"] = fading_scale_for_outage(config or LinkConfig(), probability)
    return LinkState(**given)


def perfect_values(names: Sequence[str], config: LinkConfig) -> tuple[float, ...] | None:
    """Return the values at which the link hands on exactly what is sent, None if there are none.

    A link that fades has none, nor has one whose noise is given in dB.

    Args:
        names: Link coordinates; all others keep their defaults.
        config: The kind of link.
    """
    if config.fading != "none" or not set(names) <= {"noise_std", "loss_probability"}:
        return None
    return (0.0,) * len(names)
