"""Episodes played on measured perplexity, for the paper's Fig. 6: episodes.parquet, a row each.

Every policy plays the same episodes: the same starts, the same draws of the link at every step.

Shape suffixes: N episodes, K link coordinates.
"""

# pandas leaves the types of what is selected open:
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from envs.actions import number_of_actions
from envs.oracle import Oracle
from envs.params import LayerSplitParams
from envs.policies import Policy, RandomPolicy, asked_of_policy
from envs.sources import PPLSource
from envs.vector import LayerSplitVectorEnv
from raysplit.base.arrays import FloatArray
from raysplit.base.files import replacing
from raysplit.pipeline.oracles import Oracles, exported_policy
from raysplit.pipeline.run_folder import RunFolder

EPISODES_TABLE = "episodes.parquet"
EPISODES = 500  # of each policy and seed
_PLANNED_SETTINGS, _MOST_POINTS = 20_000, 201  # of the optimum: in all, and a coordinate
_SEED = 2**20  # of the starts and the link; no agent's

Player = tuple[str, str, int, Policy]  # kind, name, seed, policy


def write_episodes(folder: RunFolder, oracles: Oracles) -> Path:
    """Let every policy play and write the table: kind, policy, seed, episode, return."""
    params, source = oracles.params, oracles.measured.source
    parts = [
        pd.DataFrame(
            {
                "kind": kind,
                "policy": name,
                "seed": seed,
                "episode": np.arange(EPISODES),
                "return": played_returns(params, source, policy, EPISODES, _SEED),
            }
        )
        for kind, name, seed, policy in _players(folder, oracles)
    ]
    path = folder.path / EPISODES_TABLE
    with replacing(path) as new:
        pd.concat(parts, ignore_index=True).to_parquet(new, index=False)
    return path


def played_returns(
    params: LayerSplitParams, source: PPLSource, policy: Policy, episodes: int, seed: int
) -> FloatArray:
    """Return the returns (N,) of a policy; equal seeds give equal starts and equal links."""
    env = LayerSplitVectorEnv(params, source, episodes)
    observation_NI, _ = env.reset(seed=seed)
    returns_N, links = np.zeros(episodes), len(params.link_names)
    for step in range(params.episode_steps):
        links_NK = observation_NI[:, :links].astype(np.float64)
        places_N = params.observed_places(observation_NI)
        codecs = asked_of_policy(params, params.codecs_P[places_N])
        split_points_N = params.split_points_P[places_N]
        actions_N = policy(split_points_N, links_NK, np.full(episodes, step), *codecs)
        observation_NI, rewards_N, *_ = env.step(actions_N)
        returns_N += params.discount**step * rewards_N
    return returns_N


def _players(folder: RunFolder, oracles: Oracles) -> Iterator[Player]:
    for name, by_seed in oracles.agents.items():
        for seed, policy in by_seed.items():
            yield "agent", name, seed, policy
            untrained = exported_policy(folder, oracles.params, name, seed, "untrained")
            yield "untrained", name, seed, untrained
    yield "random", "random", 0, RandomPolicy(0, number_of_actions(oracles.params))
    params = oracles.params
    if params.link_dynamics != "trace":  # its optimum knows the future and is no policy
        planner = _fine_oracle(params, oracles.measured.source)
        yield "optimum", "optimum", 0, planner.optimal_policy()


def _fine_oracle(params: LayerSplitParams, source: PPLSource) -> Oracle:
    """Solve the problem between the measured link states too, where episodes are played."""
    settings = _PLANNED_SETTINGS / len(params.split_points_P)
    points = min(_MOST_POINTS, int(settings ** (1 / len(params.link_names))))
    return Oracle(params, source, grid_points=[max(points, n) for n in params.grid_points])
