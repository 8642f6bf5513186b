"""The decision problem's environment under its name, as RLlib looks for it."""

from __future__ import annotations

from typing import Any

from ray.tune import register_env  # pyright: ignore[reportUnknownVariableType] - Ray is untyped

from envs import ENV_ID
from envs.layer_split import LayerSplitEnv
from envs.vector import LayerSplitVectorEnv


def register_with_ray() -> str:
    """Register the environment with Ray under `ENV_ID`, which is returned.

    Its `env_config` holds `params` and `source`; with `gym_env_vectorize_mode="vector_entry_point"`
    RLlib adds `num_envs` and gets the vector environment.
    """

    def create(config: dict[str, Any]) -> LayerSplitEnv | LayerSplitVectorEnv:
        return (LayerSplitVectorEnv if "num_envs" in config else LayerSplitEnv)(**config)

    register_env(ENV_ID, create)
    return ENV_ID
