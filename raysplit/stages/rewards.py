"""Where an agent's rewards come from while it learns, and what they cost.

Shape suffixes: N settings, K link coordinates.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from envs.chain import grid_axes
from envs.grid import FloatArray, IntArray
from envs.params import LayerSplitParams
from envs.ppl_source import MeasuredSource, PPLSource, SurrogateSource
from raysplit.files import write_atomically
from raysplit.ledger import Ledger, Row
from raysplit.link.state import LinkState
from raysplit.measure.plan import make_plan
from raysplit.measure.service import MeasuringService
from raysplit.measure.setting import Setting
from raysplit.run_folder import RunFolder
from raysplit.stages.measuring import ledger_path, measuring_service
from raysplit.surrogate import Surrogate
from tuning.settings import TrainConfig
from tuning.switch import Algorithm1Source, fit_surrogate

_REWARD_SEED = 2**41  # apart from the plan's seeds and from the evaluation's


@dataclass(frozen=True, slots=True)
class RewardBill:
    """What the rewards of one training cost.

    Attributes:
        llm_evaluations: Settings that the language model was asked for: while training or, for a
            surrogate, before it.
        worker_seconds: What they took one worker, whether in this run or when the ledger got them.
    """

    llm_evaluations: int
    worker_seconds: float

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        write_atomically(path, json.dumps(asdict(self), indent=2) + "\n")

    @staticmethod
    def load(path: Path) -> RewardBill:
        """Read what `save` wrote."""
        return RewardBill(**json.loads(path.read_text()))


class RewardSources:
    """The sources of a run's trainings and what each of them was asked."""

    def __init__(
        self, folder: RunFolder, params: LayerSplitParams, service: MeasuringService | None
    ) -> None:
        self._folder = folder
        self._params = params
        self._service = service
        self._asked: dict[Setting, Row] = {}

    def source_of(self, config: TrainConfig, seed: int) -> PPLSource:
        """Return the source of one training and open its bill."""
        self._asked = {}
        match config.rewards:
            case "surrogate":
                return self._surrogate
            case "measured":
                return self._measured()
            case "algorithm_1":
                fit = fit_surrogate(self._params, self._folder.experiment.surrogate, seed)
                return Algorithm1Source(self._measured(), fit, config.true_steps)

    def bill(self, config: TrainConfig) -> RewardBill:
        """Return what the training that has just finished cost in measurements."""
        rows = self._plan_rows if config.rewards == "surrogate" else list(self._asked.values())
        return RewardBill(len(rows), round(sum(row.seconds for row in rows), 2))

    @cached_property
    def _surrogate(self) -> SurrogateSource:
        return SurrogateSource(Surrogate.load(self._folder.path / "surrogate"))

    @cached_property
    def _plan_rows(self) -> list[Row]:
        experiment = self._folder.experiment
        ends = (experiment.problem.min_split_point, experiment.problem.max_split_point)
        plan = make_plan(experiment.plan, ends, experiment.problem.ranges("A"))
        card = json.loads((self._folder.path / "protocol_card.json").read_text())["card_sha256"]
        with Ledger(ledger_path(self._folder)) as ledger:
            known = ledger.rows(card)
        return [known[key] for setting in plan if (key := setting.key(card)) in known]

    def _measured(self) -> MeasuredSource:
        params = self._params
        points = self._folder.experiment.measuring.reward_grid_points
        axes = grid_axes(params, [points] * len(params.link_names))
        return MeasuredSource(self._measure, (params.min_split_point, params.max_split_point), axes)

    def _measure(self, split_points_N: IntArray, link_states_NK: FloatArray) -> FloatArray:
        """Return measured PPL; NaN where a setting gave none."""
        assert self._service is not None
        names = self._params.link_names
        settings = [
            Setting(int(p), LinkState.from_coordinates(names, state), _REWARD_SEED)
            for p, state in zip(split_points_N, link_states_NK, strict=True)
        ]
        rows = self._service.measure(settings, title="rewards")
        self._asked |= rows
        done = [rows[setting].status == "done" for setting in settings]
        log_ppl_N = np.array([rows[setting].log_ppl for setting in settings], dtype=np.float64)
        return np.where(done, np.exp(log_ppl_N), np.nan)


@contextmanager
def reward_sources(folder: RunFolder, params: LayerSplitParams) -> Generator[RewardSources]:
    """Open the sources of a run's trainings; the language model only where one measures."""
    if all(config.rewards == "surrogate" for config in folder.experiment.agents.values()):
        yield RewardSources(folder, params, None)
        return
    with measuring_service(folder) as service:
        yield RewardSources(folder, params, service)
