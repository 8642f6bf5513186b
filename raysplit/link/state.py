"""The state of the link: what changes while a session runs, and what an agent observes of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

from raysplit.base.errors import UserError, suggest

LINK_COORDINATES = ("noise_std", "snr_db", "fading_scale", "loss_probability")


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

    Raises:
        UserError: If a value is outside its range, or the noise is given twice.
    """

    noise_std: float = 0.0
    snr_db: float | None = None
    fading_scale: float = 1.0
    loss_probability: float = 0.0

    def __post_init__(self) -> None:
        for name in LINK_COORDINATES:
            if (value := getattr(self, name)) is not None:
                # One number, one form (1 and 1.0, -0.0 and 0.0): the state is part of a hash.
                object.__setattr__(self, name, float(value) + 0.0)
        self._check_ranges()
        if self.snr_db is not None and self.noise_std > 0:
            raise UserError(
                f"noise_std={self.noise_std:g} and snr_db={self.snr_db:g} both set the noise: "
                "leave one of them out"
            )

    @staticmethod
    def from_coordinates(names: Sequence[str], values: Sequence[float]) -> LinkState:
        """Build a state from parallel names and values; what is not named keeps its default.

        Raises:
            UserError: If a name is unknown or repeated, the noise is named twice, or a value is
                outside its range.
        """
        check_coordinates(names)
        return LinkState(**dict(zip(names, values, strict=True)))

    def as_dict(self) -> dict[str, float]:
        """Return what differs from a perfect link, in the order of `LINK_COORDINATES`."""
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if getattr(self, field.name) != field.default
        }

    def _check_ranges(self) -> None:
        _check("noise_std", self.noise_std, self.noise_std >= 0, "at least 0")
        if self.snr_db is not None:
            _check("snr_db", self.snr_db, True, "a number of dB (leave it out for no noise)")
        _check("fading_scale", self.fading_scale, self.fading_scale > 0, "above 0")
        _check(
            "loss_probability", self.loss_probability, 0 <= self.loss_probability <= 1, "in [0, 1]"
        )


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
    if {"noise_std", "snr_db"} <= set(names):
        raise UserError("noise_std and snr_db both set the noise: choose one as a link coordinate")


def _check(name: str, value: float, in_range: bool, rule: str) -> None:
    if not (math.isfinite(value) and in_range):
        raise UserError(f"{name}={value:g} is not possible: it must be {rule}")
