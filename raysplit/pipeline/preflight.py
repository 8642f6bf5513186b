"""What can be known to be wrong within a second: before a run folder is made or torch is loaded."""

from __future__ import annotations

import os
from pathlib import Path

from envs.link_path import link_path, refuse_short_parts, trained_rows
from raysplit.base.errors import UserError
from raysplit.base.files import at_home
from raysplit.base.progress import say
from raysplit.corpus.texts import draw_sentences, read_paragraphs
from raysplit.model import zoo
from raysplit.model.families import family_of
from raysplit.model.location import local_folder
from raysplit.model.sizes import sizes_of
from raysplit.model.tensor_files import CONFIG_FILE, index_of, read_json
from raysplit.pipeline.budget import budget_terms
from raysplit.pipeline.experiment import Experiment

_QUICKLY_READ_BYTES = 4_000_000


def refuse_early(experiment: Experiment) -> None:
    """Check that model, text and tables are there and that split points and codecs fit the model.

    A model whose config is not known yet (on the hub, not named here) is checked when opened.

    Raises:
        UserError: With the first thing that is wrong.
    """
    name, problem = experiment.model.name, experiment.problem
    sizes = _layers_and_hidden_size(zoo.find(name))
    if sizes is not None:
        layers, hidden_size = sizes
        zoo.check_split_points(name, layers, (problem.min_split_point, problem.max_split_point))
        for codec in problem.all_codecs:
            codec.check_hidden_size(hidden_size)
        experiment.token_loss()
        if experiment.budget is not None:
            budget_terms(experiment, sizes_of(name))
    _check_text(experiment)
    _check_ledger(experiment.measuring.ledger)
    rows = len(link_path(problem))
    if problem.dynamics.kind == "trace":
        refuse_short_parts(rows, trained_rows(problem, rows), problem.episode_steps)
    if experiment.plan.kind == "list":
        experiment.planned_settings()


def say_if_too_few(experiment: Experiment, *, to_fit: bool) -> None:
    """Say before measuring that a plan is too small for the surrogate's folds.

    Args:
        experiment: With its plan.
        to_fit: Whether a surrogate is wanted now.

    Raises:
        UserError: It is too small, and a surrogate is wanted.
    """
    settings, folds = _settings_of_a_codec(experiment), experiment.surrogate.folds
    if settings >= 2 * folds:
        return
    fault = (
        f"the plan has {settings} setting(s), and surrogate.folds {folds} needs at least "
        f"{2 * folds}, two a fold: add settings, or lower surrogate.folds (2 at the least)"
    )
    if to_fit:
        raise UserError(fault)
    say("too few   ", "yellow", f" for stage fit: {fault}")


def _settings_of_a_codec(experiment: Experiment) -> int:
    """Return how many different settings a plan has, as far as that is known before it begins."""
    plan, problem = experiment.plan, experiment.problem
    match plan.kind:
        case "sobol":
            return plan.settings
        case "active":
            return plan.first_settings
        case "grid":
            split_points = problem.max_split_point - problem.min_split_point + 1
            coordinates = 1 if experiment.radio else len(problem.link)
            return int(split_points * plan.grid_points**coordinates)
        case "list":
            settings = experiment.planned_settings()
            return len({(s.split_point, s.link) for s in settings})


def _layers_and_hidden_size(model: zoo.Model) -> tuple[int, int] | None:
    if model.shape is not None:
        return model.shape.layers, model.shape.hidden_size
    folder = local_folder(model.location)
    if folder is None:
        return None
    config = read_json(folder / CONFIG_FILE)
    family_of(config, model.name)
    index_of(folder)
    try:
        return int(config["num_hidden_layers"]), int(config["hidden_size"])
    except (ValueError, KeyError, TypeError):
        return None  # opening it says what is wrong with it


def _check_text(experiment: Experiment) -> None:
    """Read a file of the user's as measuring will; a large one is only opened."""
    corpus = experiment.corpus
    if corpus.path is None:
        return
    try:
        with corpus.path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise UserError(f"corpus.path {corpus.path} cannot be read ({error.strerror})") from None
    if size > _QUICKLY_READ_BYTES:
        return
    if experiment.protocol.unit == "sentence":
        draw_sentences(corpus)
    else:
        read_paragraphs(corpus)


def _check_ledger(ledger: str | None) -> None:
    if ledger is not None and at_home(Path(ledger)).is_dir():
        raise UserError(
            f"measuring.ledger {ledger} is a folder: name a file, such as {ledger}/ledger.sqlite"
        )
