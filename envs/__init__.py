"""The decision problem: environments, sources of perplexity, the exact optimum and baselines.

Importing this package registers `raysplit/LayerSplit-v0` with Gymnasium, and one problem for each
measured table that ships (`envs/benchmarks.py`); its parts load when asked.
Any callable can say how good a split is:

    >>> import gymnasium, numpy as np
    >>> from envs import ENV_ID
    >>> from envs.params import params_from
    >>> from envs.oracle import Oracle
    >>> from envs.sources import as_source
    >>> from envs.link_config import LinkRange
    >>> from envs.problem import ProblemConfig
    >>> loss = LinkRange(low=0.0, high=0.3)
    >>> problem = ProblemConfig(case="H", link={"loss_probability": loss}, reward="authors")
    >>> params = params_from(problem)
    >>> gain = as_source(lambda p, link: link[:, 0] * np.log(p), quantity="relative_gain")
    >>> env = gymnasium.make(ENV_ID, params=params, source=gain)
    >>> oracle = Oracle(params, gain)
    >>> round(oracle.random_return, 2), round(oracle.optimal_return, 2)
    (21.36, 22.78)
"""

from __future__ import annotations

from pathlib import Path

import gymnasium

ENV_ID = "raysplit/LayerSplit-v0"
BENCHMARK_IDS = tuple(
    f"raysplit/{path.stem}" for path in sorted((Path(__file__).parent / "tables").glob("*.json"))
)
"""One for each table; only its name is looked at here."""


_ENTRY_POINTS: dict[str, tuple[str, str, dict[str, str]]] = {
    ENV_ID: ("envs.layer_split:LayerSplitEnv", "envs.vector:LayerSplitVectorEnv", {}),
    **{
        env_id: ("envs.benchmarks:make_env", "envs.benchmarks:make_vector_env", {"env_id": env_id})
        for env_id in BENCHMARK_IDS
    },
}

for _env_id, (_single, _vector, _kwargs) in _ENTRY_POINTS.items():
    if _env_id not in gymnasium.registry:
        gymnasium.register(  # pyright: ignore[reportUnknownMemberType] - kwargs is a bare dict there
            _env_id, _single, kwargs=_kwargs, vector_entry_point=_vector
        )
