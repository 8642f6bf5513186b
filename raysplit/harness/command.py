"""`raysplit lm-eval`: lm-eval's own command, with the experiment as its model."""

# lm-eval is typed in part only:
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Sequence

from raysplit.base.errors import UserError
from raysplit.base.hub_requests import limit_hub_requests
from raysplit.pipeline.experiment import load_experiment


def run_harness(experiment: str, overrides: Sequence[str], words: Sequence[str]) -> None:
    """Run lm-evaluation-harness on an experiment's model, cut and over its link.

    Args:
        experiment: A preset or a file.
        overrides: `a.b=c`.
        words: lm-eval's own options; the split and the link are in its `--model_args`.

    Raises:
        UserError: lm-eval is not installed, the experiment is wrong, another model is named, or a
            task is not known.
    """
    load_experiment(experiment, list(overrides))
    if importlib.util.find_spec("lm_eval") is None:
        raise UserError("lm-eval is not installed: pip install 'raysplit[lm-eval]'")
    if any(word in ("--model", "-M") or word.startswith("--model=") for word in words):
        raise UserError("--model is raysplit here: leave it out, and name the model in EXPERIMENT")
    if not {"--tasks", "-t", "--config", "-C"} & {word.partition("=")[0] for word in words}:
        raise UserError("no task: give --tasks NAME, and what else `lm-eval run --help` lists")
    from lm_eval.__main__ import cli_evaluate

    from raysplit.harness import lm as _  # noqa: F401 - registers the model

    limit_hub_requests()  # tasks fetch their data sets
    named = json.dumps({"experiment": experiment, "overrides": list(overrides)})
    ours = sys.argv
    sys.argv = ["lm-eval", "run", "--model", "raysplit", "--model_args", named, *words]
    try:
        cli_evaluate()
    except ValueError as error:
        if not str(error).startswith("Tasks not found"):
            raise
        raise UserError(f"lm-eval: {error}; `lm-eval ls tasks` lists them") from None
    finally:
        sys.argv = ours
