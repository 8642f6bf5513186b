"""The experiment's `tracking` section."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from raysplit.base.config import Config

_NOT_IN_A_PROJECT = "/\\#?%:"  # W&B refuses them
_LONGEST_PROJECT = 128
_ENTITY = re.compile(r"[A-Za-z0-9_-]+")


class TrackingConfig(Config):
    """Where a run is logged to, besides its run folder.

    Attributes:
        backend: Nowhere, TensorBoard files, or Weights & Biases.
        project: The W&B project.
        entity: The W&B user or team; W&B's default where None.
        mode: Whether W&B uploads while the run goes on. "auto" follows WANDB_MODE where it is set,
            and is otherwise online only where an API key is at hand.
        timeout_s: Seconds to wait for W&B at the start and at the end of a run before going on
            without it; what was not uploaded stays on disk for `wandb sync`.
    """

    backend: Literal["none", "tensorboard", "wandb"] = "none"
    project: str = Field(default="raysplit", min_length=1)
    entity: str | None = None
    mode: Literal["auto", "online", "offline"] = "auto"
    timeout_s: float = Field(default=30.0, gt=0)

    @field_validator("project")
    @classmethod
    def _project_that_wandb_takes(cls, project: str) -> str:
        if len(project) > _LONGEST_PROJECT or set(project) & set(_NOT_IN_A_PROJECT):
            raise ValueError(
                f"a W&B project has up to {_LONGEST_PROJECT} characters and none of "
                f"{' '.join(_NOT_IN_A_PROJECT)}"
            )
        return project

    @field_validator("entity")
    @classmethod
    def _entity_that_wandb_knows(cls, entity: str | None) -> str | None:
        if entity is not None and not _ENTITY.fullmatch(entity):
            raise ValueError("a W&B user or team has letters, digits, '-' and '_' in its name")
        return entity
