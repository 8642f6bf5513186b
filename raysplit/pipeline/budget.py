"""What a run's `budget` section says of its split points, and what the reward makes of it.

Shape suffix: P split points; in `moving_objective` places (`envs.params`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raysplit.base.arrays import FloatArray
from raysplit.base.errors import UserError
from raysplit.budget.costs import Costs, refuse_unless_some_fit, split_costs
from raysplit.budget.moving import moving_costs
from raysplit.budget.setup import Setup
from raysplit.model.sizes import Sizes
from raysplit.pipeline.experiment import Experiment
from raysplit.radio.transport import late_probability, sustained_rate_mbit_s


@dataclass(frozen=True, slots=True, eq=False)
class BudgetTerms:
    """A run's request at each of the problem's split points, and what the reward makes of it.

    Attributes:
        costs: Seconds, joules and bytes.
        late_P: Probability that the first token misses the deadline.
        seconds_P: What the time to the first token adds to the objective: a share of the clean PPL.
        joules_P: The same of the phone's energy.
        misses_P: The same of missed deadlines.
    """

    costs: Costs
    late_P: FloatArray
    seconds_P: FloatArray
    joules_P: FloatArray
    misses_P: FloatArray

    @property
    def total_P(self) -> FloatArray:
        """All three."""
        return self.seconds_P + self.joules_P + self.misses_P


def budget_terms(
    experiment: Experiment, sizes: Sizes, snr_db: float | None = None, codec: str | None = None
) -> BudgetTerms:
    """Return what the budget of an experiment adds to its objective.

        (a TTFT + b E + c P(late)) / 100, each term for itself

    Args:
        experiment: With a budget.
        sizes: Its model's.
        snr_db: Only `link.mode: digital`: the radio's SNR, whose rate replaces the network's; None:
            the problem's highest.
        codec: What hidden states are sent as; None: what decisions are made for.

    Raises:
        UserError: The experiment has no budget, or a split point of its problem does not fit.
    """
    problem, budget = experiment.problem, experiment.budget
    if budget is None:
        raise UserError("this experiment has no section budget")
    setup, codec = setup_at(experiment, snr_db), codec or problem.codec.name
    _refuse_what_does_not_fit(experiment, sizes, setup)
    split_points = range(problem.min_split_point, problem.max_split_point + 1)
    costs = split_costs(sizes, setup, codec, split_points)
    late_P = _late(experiment, costs, snr_db)
    return BudgetTerms(
        costs=costs,
        late_P=late_P,
        seconds_P=problem.percent_per_second / 100 * costs.ttft_s_P,
        joules_P=problem.percent_per_joule / 100 * costs.ue_energy_j_P,
        misses_P=problem.percent_per_miss / 100 * late_P,
    )


def moving_objective(
    experiment: Experiment, sizes: Sizes, snr_db: float | None = None
) -> FloatArray:
    """Return what moving between places takes off the reward `budget`, (P, P).

        (a seconds + b joules) / 100

    of `problem.switching.context_tokens`, sent in the codec of the place that is moved to. Another
    codec costs nothing: what is sent from then on is sent in it.

    Args:
        experiment: With a budget.
        sizes: Its model's.
        snr_db: As for `budget_terms`.
    """
    problem, tokens = experiment.problem, experiment.problem.switching.context_tokens
    assert tokens is not None
    setup, codecs = setup_at(experiment, snr_db), problem.decision_codecs
    rows = problem.max_split_point - problem.min_split_point + 1
    moving_PP = np.zeros((rows * len(codecs), rows * len(codecs)))
    row_P, codec_P = np.divmod(np.arange(len(moving_PP)), len(codecs))
    up_PP = row_P - row_P[:, None]  # from, to
    for index, codec in enumerate(codecs):
        into_P = codec_P == index
        for layers in range(1, rows):
            costs = moving_costs(sizes, setup, codec, tokens, layers)
            for move, found_PP in ((costs.up, up_PP == layers), (costs.down, up_PP == -layers)):
                moving_PP[found_PP & into_P] = (
                    problem.percent_per_second * move.seconds
                    + problem.percent_per_joule * move.ue_energy_j
                ) / 100
    return moving_PP


def setup_at(experiment: Experiment, snr_db: float | None = None) -> Setup:
    """Return phone, edge, network and request; in digital mode with the radio's rate at an SNR."""
    assert experiment.budget is not None
    setup = experiment.budget.setup()
    if experiment.radio is None:
        return setup
    rate = sustained_rate_mbit_s(experiment.radio, _snr_db(experiment, snr_db))
    network = setup.network.model_copy(update={"uplink_mbit_s": rate})
    return setup.model_copy(update={"network": network})


def _snr_db(experiment: Experiment, snr_db: float | None) -> float:
    return experiment.problem.link["snr_db"].high if snr_db is None else snr_db


def _late(experiment: Experiment, costs: Costs, snr_db: float | None) -> FloatArray:
    """Return the probability that the first token misses the deadline, (P,)."""
    assert experiment.budget is not None
    deadline_s = experiment.budget.deadline_s
    if deadline_s is None:
        return np.zeros(len(costs.ttft_s_P))
    if experiment.radio is None:  # a constant rate leaves nothing to chance
        return (costs.ttft_s_P > deadline_s).astype(np.float64)
    left_s_P = deadline_s - (costs.ttft_s_P - costs.prefill.air_s_P)
    bits = float(costs.prefill.bits_P[0])
    return late_probability(experiment.radio, _snr_db(experiment, snr_db), bits, left_s_P)


def _refuse_what_does_not_fit(experiment: Experiment, sizes: Sizes, setup: Setup) -> None:
    problem = experiment.problem
    first, last = problem.min_split_point, problem.max_split_point
    costs = split_costs(sizes, setup, problem.codec.name)
    refuse_unless_some_fit(sizes, setup, costs)
    fitting = costs.split_points_P[costs.fits_P]
    if fitting[0] <= first and last <= fitting[-1]:
        return
    raise UserError(
        f"split points {first} to {last} of the problem do not all fit: phone.memory_gb = "
        f"{setup.phone.memory_gb:g} and edge.memory_gb = {setup.edge.memory_gb:g} hold "
        f"{fitting[0]} to {fitting[-1]} of {sizes.name}; set problem.min_split_point and "
        "problem.max_split_point to these, or budget.overrides"
    )
