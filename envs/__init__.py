"""The decision problem: environments, sources of perplexity, the exact optimum and baselines.

Importing this package registers `raysplit/LayerSplit-v0` with Gymnasium; its parts load when asked.
Any callable can say how good a split is:

    >>> import gymnasium, numpy as np
    >>> from envs import ENV_ID
    >>> from envs.params import params_from
    >>> from envs.oracle import Oracle
    >>> from envs.sources import as_source
    >>> from envs.problem import LinkRange, ProblemConfig
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

import gymnasium

ENV_ID = "raysplit/LayerSplit-v0"

if ENV_ID not in gymnasium.registry:
    gymnasium.register(  # pyright: ignore[reportUnknownMemberType] - kwargs is a bare dict there
        ENV_ID,
        entry_point="envs.layer_split:LayerSplitEnv",
        vector_entry_point="envs.vector:LayerSplitVectorEnv",
    )
