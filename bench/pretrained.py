"""The pretrained LLaMA and its text, as far as they are on this machine."""

from __future__ import annotations

from bench.report import NEEDS_WIKITEXT2, Options
from raysplit.base.errors import UserError
from raysplit.measure.prepare import open_model
from raysplit.pipeline.experiment import load_experiment


def what_is_missing(options: Options) -> str:
    """Return why smollm2-135m cannot be measured on WikiText-2 here; empty where it can."""
    if options.wikitext2 is None:
        return NEEDS_WIKITEXT2
    try:
        open_model(load_experiment("smollm2").model)
    except UserError as error:
        return str(error)
    return ""
