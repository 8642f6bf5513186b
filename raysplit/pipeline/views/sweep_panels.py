"""Fig. 8 of a sweep: from its table of learning curves to one panel a hyper-parameter."""

# pandas leaves the types of what is selected open:
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownLambdaType=false, reportArgumentType=false

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from raysplit.base.number_texts import distinct_texts
from raysplit.figures import Band, SweepPanel, band_over_seeds
from tuning.sweep.settings import SweepConfig

_MOST_CURVES = 8  # in a panel; more values are drawn as groups
_GROUPS = 4


def sweep_panels(config: SweepConfig, curves: pd.DataFrame) -> list[SweepPanel]:
    """Return one panel a hyper-parameter.

    Where several vary at once, a curve is taken over all settings that share the panel's value.
    """
    panels: list[SweepPanel] = []
    for name in config.space:
        part = curves[curves["panel"] == name] if config.method == "panels" else curves
        if len(part):
            bands = _bands(part, name, list(config.space))
            panels.append(SweepPanel(title=name.replace("_", " "), curves=bands))
    return panels


def _bands(curves: pd.DataFrame, name: str, space: list[str]) -> Mapping[str, Band]:
    labels, groups = _groups(curves[name])
    bands: dict[str, Band] = {}
    for label in labels:
        trainings = curves[groups == label].groupby(["seed", *space])
        runs = [np.asarray(one[["step", "judged_return"]], float) for _, one in trainings]
        if runs:
            bands[label] = band_over_seeds(runs)
    return bands


def _groups(values: pd.Series) -> tuple[list[str], pd.Series]:
    """Labels in ascending order, and each row's: the value, or a range of values where many."""
    distinct = np.unique(values).astype(np.float64)
    if len(distinct) <= _MOST_CURVES:
        texts = distinct_texts(distinct)
        return [texts[value] for value in distinct], values.map(texts)
    chunks = np.array_split(distinct, _GROUPS)
    texts = distinct_texts((end for chunk in chunks for end in (chunk[0], chunk[-1])), digits=2)
    label_of = {v: f"{texts[chunk[0]]} to {texts[chunk[-1]]}" for chunk in chunks for v in chunk}
    return list(dict.fromkeys(label_of.values())), values.map(label_of)
