"""The state of the link: what changes while a session runs, and what an agent observes of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

from raysplit.base.errors import UserError, suggest

LINK_COORDINATES = (
    "noise_std",
    "snr_db",
    "fading_scale",
    "loss_probability",
    "outage_probability",
)
LOWER_IS_WORSE = frozenset({"snr_db", "fading_scale"})
"""The link gets worse as these fall; as the others rise."""
# Two coordinates that say the same thing, and what that is.
_ALTERNATIVES = {
    "the noise": ("noise_std", "snr_db"),
    "the fading": ("fading_scale", "outage_probability"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkState:
    """One state of the link; the default is a perfect one.

    Attributes:
        noise_std: Standard deviation sigma of the additive noise in Eq. 3, in the unit of the
            hidden states, at least 0.
        snr_db: The noise given as a signal-to-noise ratio in dB instead: 10 log10(S / sigma^2),
            where S is the mean square of the transmitted hidden states at the split point, before
            the fading (over the corpus' real positions that are not exempt). Excludes `noise_std`.
        fading_scale: sigma_h of Eq. 3, above 0: the Rayleigh scale. For every fading distribution
            the gain's mean square is 2 sigma_h^2. Has no meaning without fading.
        loss_probability: Probability in [0, 1] that a packet is erased, independently of the outage
            that the fading causes (Eq. 4).
        outage_probability: The coordinate that `fading_scale` was computed from, where it was
            (`raysplit.link.coordinates`): for tables and axes. The channel does not read it, and
            it is no part of the state's identity.

    Raises:
        UserError: If a value is outside its range, or the noise is given twice.
    """

    noise_std: float = 0.0
    snr_db: float | None = None
    fading_scale: float = 1.0
    loss_probability: float = 0.0
    outage_probability: float | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        for name in LINK_COORDINATES:
            if (value := getattr(self, name)) is not None:
                # One number, one form (1 and 1.0, -0.0 and 0.0): the state is part of a hash.
                object.__setattr__(self, name, float(value) + 0.0)
                check_value(name, value)
        if self.snr_db is not None and self.noise_std > 0:
            raise UserError(
                f"noise_std={self.noise_std:g} and snr_db={self.snr_db:g} both set the noise: "
                "leave one of them out"
            )

    def as_dict(self) -> dict[str, float]:
        """Return what differs from a perfect link, in the order of `LINK_COORDINATES`."""
        return {
            entry.name: getattr(self, entry.name)
            for entry in fields(self)
            if entry.compare and getattr(self, entry.name) != entry.default
        }


def check_coordinates(names: Sequence[str]) -> None:
    """Refuse link coordinates that are unknown, repeated or contradict each other.

    Raises:
        UserError: With the name, the rule and a suggestion.
    """
    for name in names:
        if name not in LINK_COORDINATES:
            raise UserError(
                f"unknown link coordinate '{name}'; known: {', '.join(LINK_COORDINATES)}"
                f"{suggest(name, LINK_COORDINATES)}"
            )
    if len(set(names)) < len(names):
        raise UserError(f"link coordinates {list(names)} repeat a name: give each once")
    for what, (one, other) in _ALTERNATIVES.items():
        if {one, other} <= set(names):
            raise UserError(f"{one} and {other} both set {what}: choose one as a link coordinate")


def check_value(name: str, value: float) -> None:
    """Refuse a value of a link coordinate that no link can have.

    Raises:
        UserError: With the value and the rule.
    """
    in_range, rule = {
        "noise_std": (value >= 0, "at least 0"),
        "snr_db": (True, "a number of dB (leave it out for no noise)"),
        "fading_scale": (value > 0, "above 0"),
        "loss_probability": (0 <= value <= 1, "in [0, 1]"),
        "outage_probability": (0 < value < 1, "inside (0, 1)"),
    }[name]
    if not (math.isfinite(value) and in_range):
        raise UserError(f"{name}={value:g} is not possible: it must be {rule}")
