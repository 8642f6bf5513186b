"""The presets: which hyper-parameters `tuned` changes; `paper` is what the settings default to.

docs/learning.md gives the reasons.
"""

from __future__ import annotations

from typing import Any, Literal

Algorithm = Literal["ppo", "a2c", "dqn"]

# What `tuned` changes. ReLU draws the sharp borders between neighbouring split points that tanh
# smears; a falling learning rate and entropy bonus explore first and settle at the end.
_TUNED_NETWORKS = {
    "hidden_sizes": (128, 128),
    "activation": "relu",
    "scale_observations": True,
    "scale_rewards": True,
    "link_knots": 8,
}
TUNED: dict[Algorithm, dict[str, Any]] = {
    "ppo": {
        **_TUNED_NETWORKS,
        "step_seen_by": "critic",
        "learning_rate": (3e-3, 1e-4),
        "entropy_coefficient": (0.03, 0.0),
        "gae_lambda": 0.9,
        "epochs": 20,
        "num_envs": 40,
    },
    "a2c": {
        **_TUNED_NETWORKS,
        "step_seen_by": "critic",
        "learning_rate": (2e-3, 1e-4),
        "entropy_coefficient": (0.2, 0.0),
        "standardise_advantages": True,
    },
    "dqn": {
        **_TUNED_NETWORKS,
        "step_seen_by": "all",
        "learning_rate": (2e-3, 1e-4),
        "minibatch_size": 128,
        "target_update_steps": 200,
        "exploration_fraction": 0.5,
    },
}


# What it changes further where the source answers any setting at no cost. Without the link's draws
# in the advantages, steps may be larger; what is left of them averages out over the link paths of
# an update, so it plays twice as many.
TUNED_HINDSIGHT: dict[Algorithm, dict[str, Any]] = {
    "ppo": {
        "advantages": "hindsight",
        "learning_rate": (5e-3, 1e-4),
        "steps_per_update": 800,
        "minibatch_size": 200,
        "epochs": 10,
        "num_envs": 80,
    },
    "a2c": {"advantages": "hindsight"},
    "dqn": {"targets": "hindsight", "loss": "mse"},
}
