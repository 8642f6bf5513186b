"""A path of the SNR at decision steps: mean, shadowing on the way, fading at each step's time."""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from raysplit.base.arrays import FloatArray
from raysplit.radio.cell import load_cell, load_place
from raysplit.radio.channel import ChannelConfig, snr_path_db

FASTEST_M_S = 150.0


class FadingPathConfig(ChannelConfig):
    """What a path of the SNR is made of.

    Attributes:
        profile: `none` for shadowing alone, which is what is left where each step averages many
            fades; or as in `raysplit.radio.channel`.
        cell: Carrier and grid of a cell of the presets.
        place: Its shadowing, of a place of the presets; null for none.
        mean_snr_db: Mean over fades and shadowing (of the power, and of the dB).
        step_s: Seconds between decisions.
        steps: Steps of the path; episodes begin anywhere on it.
        seed: Of the draws.
    """

    profile: Literal["none", "flat", "TDL-A", "TDL-B", "TDL-C"] = "flat"  # pyright: ignore[reportIncompatibleVariableOverride] - one more
    cell: str = "lte"
    place: str | None = None
    mean_snr_db: float = Field(default=10.0, ge=-50, le=80)
    step_s: float = Field(default=0.1, gt=0, le=3600)
    speed_m_s: float = Field(default=1.0, ge=0, le=FASTEST_M_S)
    steps: int = Field(default=20_000, ge=100, le=1_000_000)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _moves(self) -> Self:
        load_cell(self.cell)
        if self.place is not None:
            load_place(self.place)
        if self.profile == "none" and self.place is None:
            raise ValueError("profile: none without a place is a link that never changes: name one")
        if self.speed_m_s == 0:
            raise ValueError("speed_m_s is 0, and a link that never changes is kind: constant")
        return self


def fading_path_db(config: FadingPathConfig) -> FloatArray:
    """Return the SNR at each step in dB, shape (steps,).

    Raises:
        UserError: The cell or the place has no such name.
    """
    rng = np.random.default_rng(config.seed)
    mean_T = np.full(config.steps, config.mean_snr_db)
    if config.place is not None:
        way_m = config.speed_m_s * config.step_s
        mean_T = mean_T + load_place(config.place).shadowing_db(config.steps, way_m, rng)[0]
    if config.profile == "none":
        return mean_T
    channel = ChannelConfig.model_validate(
        config.model_dump(include=set(ChannelConfig.model_fields))
    )
    cell = load_cell(config.cell)
    return snr_path_db(channel, cell, mean_T, config.steps, rng, step_s=config.step_s)
