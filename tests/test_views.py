"""What the report shows of a solved problem."""

import numpy as np

from envs.oracle import Oracle
from envs.policies import StayPolicy
from raysplit.pipeline.views.answer import answer_map
from tests.test_uncertainty import PARAMS, oracles


def test_the_answer_shows_the_best_fixed_split_point_and_solves_for_it_once(monkeypatch):
    solved = oracles(0.0, {"stay": {0: StayPolicy(PARAMS)}})
    fixed, _ = solved.measured.best_fixed()
    calls, best_fixed = [], Oracle.best_fixed_place
    monkeypatch.setattr(
        Oracle, "best_fixed_place", lambda self: calls.append(self) or best_fixed(self)
    )
    objective = answer_map(solved).objectives[f"fixed p = {fixed}"]
    rewards_PG = solved.measured.static_rewards_PG
    np.testing.assert_allclose(objective, -rewards_PG[fixed - solved.params.min_split_point])
    assert calls == [solved.measured]
