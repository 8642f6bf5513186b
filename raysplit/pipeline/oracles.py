"""The exact optimum on the surrogate and on measured perplexity: what agents are compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from envs.oracle import Oracle
from envs.params import LayerSplitParams
from envs.policies import Policy
from envs.sources import TableSource
from raysplit.base.sealed_json import read_sealed
from raysplit.measure.table import Measurements
from raysplit.pipeline.over_radio import as_observed, surrogate_source
from raysplit.pipeline.problem import measured_problem
from raysplit.pipeline.run_folder import RunFolder, write_again
from raysplit.radio.transport import TokenLoss
from tuning.policy import ExportedPolicy

EVALUATION_TABLE, EVALUATION = "evaluation.parquet", "evaluation.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Oracles:
    """A run's problem, solved on both sources, and its agents' policies by name and seed.

    `table` is that of the codec that decisions are made for, the first of `table_by_codec`. In
    `link.mode: digital` the problem observes the SNR, tables are over loss, and `loss` says which
    SNR loses what.
    """

    params: LayerSplitParams
    table: Measurements
    table_by_codec: dict[str, Measurements]
    surrogate: Oracle
    measured: Oracle
    agents: dict[str, dict[int, Policy]]
    loss: TokenLoss | None = None


def load_oracles(folder: RunFolder) -> Oracles:
    """Read what the stages before left and solve the problem on both sources."""
    params, _ = measured_problem(folder)
    by_codec = Measurements.from_parquet(folder.path / EVALUATION_TABLE).by_codec()
    table = by_codec[folder.experiment.problem.codec.name]
    loss = folder.experiment.token_loss()
    return Oracles(
        params=params,
        table=table,
        table_by_codec=by_codec,
        surrogate=Oracle(params, surrogate_source(folder)),
        measured=measured_oracle(params, table, loss=loss),
        loss=loss,
        agents={
            name: {
                seed: exported_policy(folder, params, name, seed, "policy") for seed in config.seeds
            }
            for name, config in folder.experiment.agents.items()
        },
    )


def exported_policy(
    folder: RunFolder, params: LayerSplitParams, name: str, seed: int, kind: str
) -> Policy:
    """Load one of an agent's policies: "policy", or what it was "untrained"."""
    return ExportedPolicy.load(folder.agent_folder(name, seed) / kind).for_problem(params)


def read_evaluation(folder: RunFolder) -> dict[str, Any]:
    """Read the scores that stage evaluate wrote.

    Raises:
        UserError: If the file is missing or damaged.
    """
    return read_sealed(folder.path / EVALUATION, write_again(folder))


def measured_oracle(
    params: LayerSplitParams,
    table: Measurements,
    error: np.random.Generator | None = None,
    *,
    loss: TokenLoss | None = None,
) -> Oracle:
    """Solve the problem on the measured table, or on one that its error bars allow as well."""
    log_ppl_N = table.log_ppl_N
    if error is not None:
        log_ppl_N = log_ppl_N + table.stderr_N * error.standard_normal(len(table))
    source = TableSource.from_rows(
        table.split_points_N, table.link_states_NK, log_ppl_N, table.link_names
    )
    return Oracle(params, as_observed(source, loss))
