"""The exact optimum on the surrogate and on measured perplexity: what agents are compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from envs.grid_sources import TableSource
from envs.oracle import Oracle
from envs.params import LayerSplitParams
from envs.policies import Policy
from envs.sources import PPLSource
from raysplit.base.errors import UserError
from raysplit.base.sealed_json import read_sealed
from raysplit.measure.table import Measurements
from raysplit.pipeline.over_radio import per_codec, surrogate_source
from raysplit.pipeline.problem import measured_problem
from raysplit.pipeline.run_folder import RunFolder, write_again
from raysplit.radio.transport import TokenLoss
from tuning.policy import ExportedPolicy

_SNR_POINTS = 61
EVALUATION_TABLE, EVALUATION = "evaluation.parquet", "evaluation.json"
EVALUATION_FORM = 2
"""Raised by hand when evaluation.json gets or loses a field that is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Oracles:
    """A run's problem, solved on both sources, and its agents' policies by name and seed.

    `params` are those that policies are judged on, `trained_params` those that they learned.
    `table` is that of the first codec that decisions are made among, of those in
    `table_by_codec`. In `link.mode: digital` the problem observes the SNR, tables are over loss,
    and `losses` say by codec which SNR loses what.
    """

    params: LayerSplitParams
    trained_params: LayerSplitParams
    table: Measurements
    table_by_codec: dict[str, Measurements]
    surrogate: Oracle
    measured: Oracle
    agents: dict[str, dict[int, Policy]]
    losses: Mapping[str, TokenLoss] = field(default_factory=dict[str, TokenLoss])


def load_oracles(folder: RunFolder) -> Oracles:
    """Read what the stages before left and solve the problem on both sources."""
    whole, _ = measured_problem(folder)
    params = whole.for_judging()
    by_codec = Measurements.from_parquet(folder.path / EVALUATION_TABLE).by_codec()
    losses = folder.experiment.losses()
    return Oracles(
        params=params,
        trained_params=whole.for_training(),
        table=by_codec[folder.experiment.problem.codec.name],
        table_by_codec=by_codec,
        surrogate=Oracle(params, surrogate_source(folder), grid_points=solved_grid(params, losses)),
        measured=measured_oracle(params, by_codec, losses),
        losses=losses,
        agents={name: exported_policies(folder, params, name) for name in folder.experiment.agents},
    )


def exported_policies(folder: RunFolder, params: LayerSplitParams, name: str) -> dict[int, Policy]:
    """Load what an agent learned, by seed, as policies of a problem."""
    seeds = folder.experiment.agents[name].seeds
    return {seed: exported_policy(folder, params, name, seed, "policy") for seed in seeds}


def exported_policy(
    folder: RunFolder, params: LayerSplitParams, name: str, seed: int, kind: str
) -> Policy:
    """Load one of an agent's policies: "policy", or what it was "untrained"."""
    return ExportedPolicy.load(folder.agent_folder(name, seed) / kind).for_problem(params)


def read_evaluation(folder: RunFolder) -> dict[str, Any]:
    """Read the scores that stage evaluate wrote.

    Raises:
        UserError: If the file is missing, damaged or of another form.
    """
    path, again = folder.path / EVALUATION, write_again(folder)
    evaluation = read_sealed(path, again)
    if evaluation.get("form") != EVALUATION_FORM:
        raise UserError(f"{path} was written by another build of raysplit: delete it; {again}")
    return evaluation


def measured_oracle(
    params: LayerSplitParams,
    table_by_codec: Mapping[str, Measurements],
    losses: Mapping[str, TokenLoss],
    error: np.random.Generator | None = None,
) -> Oracle:
    """Solve the problem on the measured tables, or on some that their error bars allow as well."""

    def of_codec(name: str) -> PPLSource:
        table = table_by_codec[name]
        log_ppl_N = table.log_ppl_N
        if error is not None:
            log_ppl_N = log_ppl_N + table.stderr_N * error.standard_normal(len(table))
        return TableSource.from_rows(
            table.split_points_N, table.link_states_NK, log_ppl_N, table.link_names
        )

    source = per_codec(params.codecs, losses, of_codec)
    return Oracle(params, source, grid_points=solved_grid(params, losses))


def solved_grid(params: LayerSplitParams, losses: Mapping[str, TokenLoss]) -> list[int] | None:
    """Return how finely the link is solved, None for the problem's own grid.

    In digital mode the tables lie over loss, and the SNR costs nothing to divide more finely; a
    moving link's chain on a grid of 5 dB would hardly move.
    """
    if not losses:
        return None
    return [max(points, _SNR_POINTS) for points in params.grid_points]
