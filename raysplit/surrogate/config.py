"""The experiment's `surrogate` section."""

from __future__ import annotations

from pydantic import Field

from raysplit.base.config import Config


class SurrogateConfig(Config):
    """How the surrogate is fitted; the defaults serve 100 to 10,000 rows.

    Attributes:
        folds: Number of members; each is trained without one fold and judged on it.
        hidden: Width of both hidden layers of a member.
        steps: Optimiser steps; the learning rate falls to zero over them.
        batch: Rows a step; all rows at once where the table has no more.
        learning_rate: Highest learning rate of AdamW.
        weight_decay: Decoupled weight decay of the weight matrices.
        departure_decay: The same for what a single split point may add to the smooth dependence on
            it: large values make neighbouring split points more alike.
    """

    folds: int = Field(default=5, ge=2, le=20)
    hidden: int = Field(default=48, ge=4, le=512)
    steps: int = Field(default=1200, ge=1, le=100_000)
    batch: int = Field(default=512, ge=16)
    learning_rate: float = Field(default=0.01, gt=0, le=1)
    weight_decay: float = Field(default=1e-3, ge=0)
    departure_decay: float = Field(default=3.0, ge=0)
