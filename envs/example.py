"""The built-in example problem: what `gymnasium.make("raysplit/LayerSplit-v0")` gives by itself.

A closed form with the shape of the paper's Fig. 3: loss hurts less the later the model is cut.
"""

from __future__ import annotations

import numpy as np

from envs.link_config import LinkRange
from envs.params import LayerSplitParams, params_from
from envs.problem import ProblemConfig
from envs.sources import as_source
from raysplit.base.arrays import FloatArray, IntArray

_CLEAN_PPL = 16.0
_LAYERS = 16


def example_ppl(split_points_N: IntArray, link_states_NK: FloatArray) -> FloatArray:
    """Return a perplexity that rises with the loss probability and falls with the split point."""
    return _CLEAN_PPL * np.exp(4.0 * link_states_NK[:, 0] / np.sqrt(split_points_N))


example_source = as_source(example_ppl, quantity="ppl")


def example_params() -> LayerSplitParams:
    """Return case A over a loss probability of 0 to 0.3, 16 layers, lambda 1."""
    problem = ProblemConfig(
        link={"loss_probability": LinkRange(low=0.0, high=0.3)}, cost_weight=1.0
    )
    return params_from(problem, _CLEAN_PPL, [p / _LAYERS for p in range(1, 11)])
