"""Benchmark problems that ship: measured tables as environments, and exact scores of any agent.

    env = gymnasium.make("envs:raysplit/Embedded-Noise-v0")
    benchmark("raysplit/Embedded-Noise-v0").score_agent(lambda obs: np.full(len(obs), 1))

Every file NAME-vN.json in `envs/tables` is the problem `raysplit/NAME-vN`; a table that is measured
again gets a new N. No language model is needed, nor torch.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envs import BENCHMARK_IDS
from envs.benchmark_table import BenchmarkTable
from envs.layer_split import LayerSplitEnv
from envs.oracle import Oracle
from envs.policies import Policy
from envs.score import ObservationPolicy, Predict, Score, score
from envs.vector import LayerSplitVectorEnv
from raysplit.base.errors import UserError, suggest

TABLES = Path(__file__).parent / "tables"


@dataclass(frozen=True, slots=True, eq=False)
class Benchmark:
    """A problem that ships, solved exactly on its measured link states.

    Attributes:
        env_id: Its id with Gymnasium.
        table: Problem, measured perplexities and where they come from.
        datasheet: What optimum and baselines return (`BenchmarkTable.datasheet`).
        oracle: Optimum and exact returns.
    """

    env_id: str
    table: BenchmarkTable
    datasheet: dict[str, Any]
    oracle: Oracle

    def score(self, policy: Policy) -> Score:
        """Return the exact score of a policy of (split points, link states, steps).

        A start is a measured link state with its share of the range; nothing is interpolated and
        nothing drawn. Of a policy with `action_probabilities`, the expectation.
        """
        return score(self.oracle, policy)

    def score_agent(self, predict: Predict) -> Score:
        """Return the exact score of an agent that sees the environment's observations.

        Args:
            predict: Float32 observations, shape (N, I), to actions 0, 1 or 2, shape (N,); of
                Stable-Baselines3 `lambda obs: model.predict(obs, deterministic=True)[0]`.

        Raises:
            UserError: If an action is none.
        """
        return self.score(ObservationPolicy(predict, self.oracle.params))


@functools.cache
def benchmark(env_id: str) -> Benchmark:
    """Return a problem that ships.

    Raises:
        UserError: If there is none of that id, or its file was changed.
    """
    if env_id not in BENCHMARK_IDS:
        raise UserError(
            f"'{env_id}' is no benchmark problem, only {', '.join(BENCHMARK_IDS)}"
            f"{suggest(env_id, BENCHMARK_IDS)}"
        )
    table, datasheet = BenchmarkTable.load(TABLES / f"{env_id.rpartition('/')[2]}.json")
    return Benchmark(env_id, table, datasheet, Oracle(table.params(), table.source()))


def make_env(env_id: str) -> LayerSplitEnv:
    """Return the environment of a problem that ships; Gymnasium's registry calls this."""
    oracle = benchmark(env_id).oracle
    return LayerSplitEnv(oracle.params, oracle.source)


def make_vector_env(env_id: str, num_envs: int = 1) -> LayerSplitVectorEnv:
    """Return N copies of it, stepped together."""
    oracle = benchmark(env_id).oracle
    return LayerSplitVectorEnv(oracle.params, oracle.source, num_envs)
