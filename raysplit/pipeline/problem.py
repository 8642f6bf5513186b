"""What the stages share about measuring: the service of a run, and the problem's parameters."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from envs.params import LayerSplitParams, params_from
from raysplit.base.arrays import FloatArray
from raysplit.base.errors import UserError
from raysplit.base.files import at_home
from raysplit.base.sealed_json import read_sealed
from raysplit.measure.anchors import FEWEST_SETTINGS, AnchorPlan, choose_anchors
from raysplit.measure.gpu import gpu_model
from raysplit.measure.ledger import Ledger
from raysplit.measure.prepare import open_model, prepare_job
from raysplit.measure.service import MeasuringService
from raysplit.model import flops
from raysplit.model.sizes import Sizes, sizes_from_config
from raysplit.pipeline.budget import budget_terms, moving_objective
from raysplit.pipeline.experiment import Experiment
from raysplit.pipeline.run_folder import RunFolder, first_difference, write_again

PROTOCOL_CARD = "protocol_card.json"


def protocol_card(folder: RunFolder) -> dict[str, Any]:
    """Read what the run was measured under, and what the clean pass found.

    Raises:
        UserError: If the file is missing or damaged.
    """
    return read_sealed(folder.path / PROTOCOL_CARD, write_again(folder))


def ledger_path(folder: RunFolder) -> Path:
    """The run's own ledger, or the one that it shares."""
    shared = folder.experiment.measuring.ledger
    return at_home(Path(shared)) if shared else folder.path / "measurements.sqlite"


@contextmanager
def measuring_service(folder: RunFolder) -> Generator[MeasuringService]:
    """Open the run's measuring service; Ray starts only if something has to be measured."""
    experiment = folder.experiment
    problem = experiment.problem
    split_points = (problem.min_split_point, problem.max_split_point)
    job, card = prepare_job(
        model=experiment.model,
        corpus=experiment.corpus,
        protocol=experiment.protocol,
        link=experiment.link,
        measuring=experiment.measuring,
        split_points=split_points,
        device="cuda" if experiment.backend.gpus_per_edge else "cpu",
        gpu=gpu_model(experiment.backend),
        anchors=anchor_plan(experiment),
        codecs=problem.all_codecs,
    )
    if experiment.budget is not None:  # a model of the hub was not known before
        budget_terms(experiment, model_sizes(experiment))
    with (
        Ledger(ledger_path(folder)) as ledger,
        MeasuringService(job, card, ledger, folder.workers or experiment.backend) as service,
    ):
        yield service


@contextmanager
def same_measuring_service(folder: RunFolder) -> Generator[MeasuringService]:
    """Open the service for what stands beside the rows of stage `measure`: under the same card.

    Raises:
        UserError: It would measure on another device or with other versions than that stage did.
    """
    card = protocol_card(folder)
    with measuring_service(folder) as service:
        if service.card_sha256 != card["card_sha256"]:
            before = {name: card.get(name) for name in service.card}
            raise UserError(
                f"{folder.path} was measured under other conditions: "
                f"{first_difference(before, service.card)}. Go on under those, or delete its "
                f"{PROTOCOL_CARD} to measure anew under these"
            )
        yield service


def anchor_plan(experiment: Experiment) -> AnchorPlan | None:
    """The anchors of the run's measurements, where it has any."""
    measuring, problem, plan = experiment.measuring, experiment.problem, experiment.plan
    # How many an active plan will have is not known: the most that they may have to serve.
    active = plan.kind == "active"
    settings = plan.max_settings if active else len(experiment.planned_settings())
    if measuring.anchors == "auto":
        able = experiment.plan.paired and measuring.target_stderr > 0
        if not able or settings < FEWEST_SETTINGS:
            return None
    elif not measuring.anchors:
        return None
    split_points = (problem.min_split_point, problem.max_split_point)
    return choose_anchors(
        split_points, experiment.measured_ranges(), settings, experiment.link, problem.codec
    )


def model_sizes(experiment: Experiment) -> Sizes:
    """Open the experiment's model and return its sizes."""
    model = experiment.model
    return sizes_from_config(open_model(model).config.to_dict(), model.name)


def cost_by_split_point(experiment: Experiment, tokens: int) -> list[float]:
    """What the reward weighs against PPL at each split point, or at each place.

    For the reward `budget` its weighted seconds, joules and misses; else C_UE: its share of the
    whole model, or Eq. 2 as printed if `raw`.

    Args:
        experiment: The model and the split points.
        tokens: Tokens that the UE runs for a sequence, scored or not.
    """
    if experiment.problem.reward == "budget":
        return _of_all_codecs(experiment, None).tolist()
    return ue_computation(experiment, tokens)


def ue_computation(experiment: Experiment, tokens: int) -> list[float]:
    """Return C_UE at each split point: its share of the whole model, or Eq. 2 if `raw`.

    Args:
        experiment: The model and the split points.
        tokens: Tokens that the UE runs for a sequence, scored or not.
    """
    problem = experiment.problem
    config = open_model(experiment.model).config
    split_points = range(problem.min_split_point, problem.max_split_point + 1)
    if problem.raw:
        return [
            float(flops.ue_flops_as_printed(p, d_in=tokens, d_mid=config.hidden_size))
            for p in split_points
        ]
    return [flops.ue_share(config, p, tokens) for p in split_points]


def cost_by_snr(experiment: Experiment, snr_db_X: FloatArray) -> FloatArray:
    """What the reward `budget` weighs against PPL in digital mode at each place, (P, X)."""
    costs = [_of_all_codecs(experiment, snr_db) for snr_db in snr_db_X.tolist()]
    return np.stack(costs, axis=1)


def _of_all_codecs(experiment: Experiment, snr_db: float | None) -> FloatArray:
    """What the reward `budget` weighs against PPL at each place, (P,)."""
    sizes = model_sizes(experiment)
    terms = [
        budget_terms(experiment, sizes, snr_db, codec)
        for codec in experiment.problem.decision_codecs
    ]
    return np.stack([one.total_P for one in terms], axis=1).ravel()


def _moving(experiment: Experiment, snr_db_X: FloatArray | None) -> FloatArray | None:
    """What moving costs by the budget, (P, P, X); None where the problem does not ask for it."""
    if experiment.problem.switching.context_tokens is None:
        return None
    sizes = model_sizes(experiment)
    states = [None] if snr_db_X is None else snr_db_X.tolist()
    return np.stack([moving_objective(experiment, sizes, snr_db) for snr_db in states], axis=-1)


def measured_problem(folder: RunFolder) -> tuple[LayerSplitParams, dict[str, Any]]:
    """The decision problem of a measured model, and the protocol card of its measurements."""
    card = protocol_card(folder)
    params = problem_of(folder.experiment, card["clean_log_ppl"], card["tokens_per_sequence"])
    return params, card


def problem_of(
    experiment: Experiment, clean_log_ppl: float, tokens_per_sequence: float
) -> LayerSplitParams:
    """The decision problem, given what the clean pass over the corpus found."""
    clean_ppl = float(np.exp(clean_log_ppl))
    loss = experiment.token_loss()
    if loss is not None and experiment.problem.reward == "budget":
        by_link = loss.snr_db_X, cost_by_snr(experiment, loss.snr_db_X)
        moving = _moving(experiment, loss.snr_db_X)
        return params_from(experiment.problem, clean_ppl, cost_by_link=by_link, moving=moving)
    costs = cost_by_split_point(experiment, round(tokens_per_sequence))
    return params_from(experiment.problem, clean_ppl, costs, moving=_moving(experiment, None))
