"""What the report shows of a solved problem."""

import dataclasses

import numpy as np

from envs.oracle import Oracle
from envs.policies import StayPolicy
from envs.sources import as_source
from raysplit.pipeline.baselines import best_fixed_name
from raysplit.pipeline.views.answer import answer_map
from tests.test_uncertainty import PARAMS, oracles


def test_the_answer_shows_the_headlines_fixed_split_point_and_solves_for_it_once(monkeypatch):
    """The one that is best on the surrogate: it was chosen as agents are, before the judging."""
    rising = as_source(lambda p, links: 10.0 ** p.astype(float), quantity="ppl")
    solved = dataclasses.replace(
        oracles(0.0, {"stay": {0: StayPolicy(PARAMS)}}), surrogate=Oracle(PARAMS, rising)
    )
    fixed = PARAMS.min_split_point
    assert best_fixed_name(solved) == f"fixed {fixed}"
    assert solved.measured.best_fixed()[0] != fixed
    calls, best_fixed = [], Oracle.best_fixed_place
    monkeypatch.setattr(
        Oracle, "best_fixed_place", lambda self: calls.append(self) or best_fixed(self)
    )
    objective = answer_map(solved).objectives[f"fixed p = {fixed}"]
    np.testing.assert_allclose(objective, -solved.measured.static_rewards_PG[0])
    assert len(calls) == 1
