"""The order of the link coordinates decides which column is which: names go with the columns."""

import numpy as np
import pytest

from envs.checks import fingerprint
from envs.grid import Grid
from envs.grid_sources import MeasuredSource, TableSource
from envs.layer_split import LayerSplitEnv
from envs.oracle import Oracle
from envs.params import params_from
from envs.problem import ProblemConfig
from envs.sources import SurrogateSource, as_source
from envs.vector import LayerSplitVectorEnv
from raysplit.base.errors import UserError
from raysplit.measure.table import Measurements
from raysplit.pipeline.oracles import measured_oracle
from raysplit.surrogate import Surrogate, SurrogateConfig, fit
from tests.test_policy_export import make_policy
from tuning.algorithm1 import Algorithm1Source
from tuning.rllib.local import SharedSource

LOSS, NOISE = np.array([0.0, 0.1, 0.25, 0.3]), np.array([0.0, 0.5, 1.0])


NAMES = ("loss_probability", "noise_std")
PROBLEM = {
    "link": {"loss_probability": [0.0, 0.3], "noise_std": [0.0, 1.0]},
    "reward": "authors",
    "max_split_point": 3,
}


def two_columns(split_points_N, link_states_NK):
    """Log PPL rises with the loss and falls with the noise, so that exchanged columns differ."""
    return np.exp(3 + link_states_NK[:, 0] - 0.5 * link_states_NK[:, 1] - 0.1 * split_points_N)


class NamedModel:
    """A surrogate that knows its columns."""

    link_names = NAMES

    def predict_log_ppl(self, split_points_N, link_states_NK):
        return np.log(two_columns(split_points_N, link_states_NK)), np.ones(len(split_points_N))


def named_sources():
    axes = [LOSS, NOISE]
    split_points, links = Grid((1, 3), axes).rows()
    log_ppl = np.log(two_columns(split_points, links))
    measured = MeasuredSource(two_columns, (1, 3), axes, NAMES)
    return {
        "callable": as_source(two_columns, quantity="ppl", link_names=NAMES),
        "surrogate": SurrogateSource(NamedModel()),
        "table": TableSource.from_rows(split_points, links, log_ppl, NAMES),
        "measured": measured,
        "shared": SharedSource(measured),
        "algorithm 1": Algorithm1Source(measured, lambda *rows: measured, 10),
    }


@pytest.mark.parametrize("name", named_sources())
def test_a_source_of_other_columns_is_refused_wherever_it_meets_a_problem(name):
    source = named_sources()[name]
    params = params_from(ProblemConfig.model_validate(PROBLEM))
    swapped = dict(reversed(PROBLEM["link"].items()))
    exchanged = params_from(ProblemConfig.model_validate(PROBLEM | {"link": swapped}))
    assert np.isfinite(Oracle(params, source).optimal_return)
    message = (
        "expects the link coordinates loss_probability, noise_std and the problem has "
        "noise_std, loss_probability: list them alike"
    )
    for use in (Oracle, LayerSplitEnv, LayerSplitVectorEnv, fingerprint):
        use(params, source)
        with pytest.raises(UserError, match=message):
            use(exchanged, source)


def test_a_callable_has_no_names_and_gets_the_problems_order():
    exchanged = PROBLEM | {"link": dict(reversed(PROBLEM["link"].items()))}
    seen = []
    source = as_source(
        lambda p, link: seen.append(link.max(axis=0)) or np.ones(len(p)), quantity="ppl"
    )
    Oracle(params_from(ProblemConfig.model_validate(exchanged)), source)
    assert [x.tolist() for x in seen] == [[1.0, 0.3]] * len(seen)


def table(names):
    """The measured grid with its columns in the order of `names`."""
    split_points, links = Grid((1, 3), [LOSS, NOISE]).rows()
    order = [NAMES.index(name) for name in names]
    return Measurements(
        split_points_N=split_points,
        link_names=names,
        link_states_NK=links[:, order],
        log_ppl_N=np.log(two_columns(split_points, links)),
        stderr_N=np.full(len(links), 0.01),
        clean_log_ppl=3.0,
    )


def test_the_evaluation_of_another_order_is_no_table_of_the_problem():
    params = params_from(ProblemConfig.model_validate(PROBLEM))
    assert measured_oracle(params, {"identity": table(NAMES)}, {}).source.link_names == NAMES
    with pytest.raises(UserError, match="expects the link coordinates noise_std, loss_prob"):
        measured_oracle(params, {"identity": table(NAMES[::-1])}, {})


def test_a_surrogate_keeps_the_names_of_its_columns(tmp_path):
    fit(table(NAMES), SurrogateConfig(steps=2), 0)[0].save(tmp_path)
    source = SurrogateSource(Surrogate.load(tmp_path))
    assert source.link_names == NAMES
    exchanged = PROBLEM | {"link": dict(reversed(PROBLEM["link"].items()))}
    with pytest.raises(UserError, match="expects the link coordinates loss_probability, noise"):
        Oracle(params_from(ProblemConfig.model_validate(exchanged)), source)


def test_a_policy_of_other_columns_is_refused():
    policy = make_policy()
    noise = {"link": {"noise_std": [0, 1]}, "reward": "authors"}
    params = params_from(ProblemConfig.model_validate(noise))
    assert policy.for_problem(params) == policy.actions
    loss = params_from(ProblemConfig.model_validate(noise | {"link": {"loss_probability": [0, 1]}}))
    with pytest.raises(UserError, match="trained on the link coordinates noise_std and"):
        policy.for_problem(loss)
