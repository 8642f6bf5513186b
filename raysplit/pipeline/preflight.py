"""What can be known to be wrong within a second: before a run folder is made or torch is loaded."""

from __future__ import annotations

import json
from typing import Any

from envs.trace import read_trace
from raysplit.base.errors import UserError
from raysplit.corpus.config import CorpusConfig
from raysplit.measure.plan import make_plan
from raysplit.model import zoo
from raysplit.model.location import local_folder
from raysplit.pipeline.experiment import Experiment


def refuse_early(experiment: Experiment) -> None:
    """Check that model, text and tables are there and that the split points lie in the model.

    A model whose depth is not known yet (on the hub, not named here) is checked once it is opened.

    Raises:
        UserError: With the first thing that is wrong.
    """
    name, problem = experiment.model.name, experiment.problem
    layers = _layers(zoo.find(name))
    if layers is not None:
        zoo.check_split_points(name, layers, (problem.min_split_point, problem.max_split_point))
    _check_text(experiment.corpus)
    read_trace(problem)
    if experiment.plan.kind == "list":
        ends = (problem.min_split_point, problem.max_split_point)
        make_plan(experiment.plan, ends, problem.ranges("A"))


def _layers(model: zoo.Model) -> int | None:
    if model.shape is not None:
        return model.shape.layers
    folder = local_folder(model.location)
    if folder is None:
        return None
    try:
        config: Any = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return int(config["num_hidden_layers"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # opening it says what is wrong with it


def _check_text(corpus: CorpusConfig) -> None:
    if corpus.path is None:
        return
    try:
        with corpus.path.open("rb"):
            pass
    except OSError as error:
        raise UserError(f"corpus.path {corpus.path} cannot be read ({error.strerror})") from None
