"""Where an agent's rewards come from while it learns, and what its training costs.

Shape suffixes: N settings, K link coordinates.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from envs.grid_sources import MeasuredSource
from envs.link_chain import grid_axes
from envs.params import LayerSplitParams
from envs.sources import PPLSource
from raysplit.base.arrays import FloatArray, IntArray
from raysplit.base.files import write_atomically
from raysplit.base.progress import say
from raysplit.base.sealed_json import read_sealed, write_sealed
from raysplit.link.axis import grid_axis
from raysplit.link.codec import Codec
from raysplit.link.coordinates import link_state
from raysplit.measure.ledger import Ledger
from raysplit.measure.rows import Row
from raysplit.measure.service import MeasuringService
from raysplit.measure.setting import Setting
from raysplit.pipeline.active import measured_settings
from raysplit.pipeline.over_radio import per_codec, surrogate_source
from raysplit.pipeline.problem import ledger_path, protocol_card, same_measuring_service
from raysplit.pipeline.run_folder import RunFolder
from tuning.algorithm1 import Algorithm1Source, fit_surrogate
from tuning.settings import TrainConfig

_REWARD_SEED = 2**41  # apart from the plan's seeds and from the evaluation's


@dataclass(frozen=True, slots=True)
class TrainingCost:
    """What one training cost.

    Attributes:
        llm_evaluations: Settings that the language model was asked for: while training or, for a
            surrogate, before it.
        worker_seconds: What they took one worker, whether in this run or when the ledger got them.
        peak_resident_bytes: The most memory that the training process held, libraries and what
            earlier stages left in it included; None where that was not seen.
    """

    llm_evaluations: int
    worker_seconds: float
    peak_resident_bytes: int | None

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        write_sealed(path, asdict(self))

    @staticmethod
    def load(path: Path) -> TrainingCost:
        """Read what `save` wrote.

        Raises:
            UserError: If the file is missing or damaged.
        """
        return TrainingCost(**read_sealed(path, "stage train counts it anew"))


class RequestedSettings:
    """The settings that one training asked the language model for, each with its seconds.

    They are kept on disk, a line each, because a training that was killed goes on elsewhere.
    """

    def __init__(self, path: Path) -> None:
        """Take up what an earlier start of the same training noted."""
        self._path = path
        self.seconds: dict[str, float] = {}
        if path.exists():
            # The last line may be torn: it has no end, and is written again when asked again.
            whole, _, _ = path.read_text(errors="replace").rpartition("\n")
            for line in whole.splitlines():
                try:
                    key, seconds = line.split()
                    self.seconds[key] = float(seconds)
                except ValueError:
                    say(f"{path} is damaged", "yellow", f"; not counted: {line!r}")
            write_atomically(path, "".join(f"{k} {v}\n" for k, v in self.seconds.items()))

    def add(self, rows: Mapping[Setting, Row]) -> None:
        """Note answered settings; each counts once."""
        seconds = {setting.key(""): row.seconds for setting, row in rows.items()}
        new = {key: seconds[key] for key in seconds.keys() - self.seconds.keys()}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(f"{key} {value}\n" for key, value in new.items())
        self.seconds |= new


class RewardSources:
    """The sources of a run's trainings and what each of them was asked."""

    def __init__(
        self, folder: RunFolder, params: LayerSplitParams, service: MeasuringService | None
    ) -> None:
        self._folder = folder
        self._params = params
        self._service = service

    def source_of(self, config: TrainConfig, seed: int, home: Path) -> PPLSource:
        """Return the source of one training; its folder `home` lists what it asks to measure."""
        match config.rewards:
            case "surrogate":
                return self._surrogate
            case "measured":
                return self._measured(home)
            case "algorithm_1":
                fit = fit_surrogate(self._params, self._folder.experiment.surrogate, seed)
                return Algorithm1Source(self._measured(home), fit, config.true_steps)

    def cost(self, config: TrainConfig, peak_resident_bytes: int | None) -> TrainingCost:
        """Return what the training that has just finished cost."""
        if config.rewards == "surrogate":
            seconds = [row.seconds for row in self._plan_rows]
        else:
            seconds = list(self._requested.seconds.values())
        return TrainingCost(len(seconds), round(sum(seconds), 2), peak_resident_bytes)

    @cached_property
    def _surrogate(self) -> PPLSource:
        return surrogate_source(self._folder)

    @cached_property
    def _plan_rows(self) -> list[Row]:
        plan = measured_settings(self._folder)
        card = protocol_card(self._folder)["card_sha256"]
        with Ledger(ledger_path(self._folder)) as ledger:
            known = ledger.rows(card)
        return [known[key] for setting in plan if (key := setting.key(card)) in known]

    def _measured(self, home: Path) -> PPLSource:
        self._requested = RequestedSettings(home / "requested_settings.txt")
        params, experiment = self._params, self._folder.experiment
        points = experiment.measuring.reward_grid_points
        names, axes = params.link_names, grid_axes(params, [points] * len(params.link_names))
        if experiment.radio is not None:
            names, ranges = zip(*experiment.measured_ranges().items(), strict=True)
            axes = [grid_axis(low, high, points) for low, high in ranges]
        ends = (params.min_split_point, params.max_split_point)

        def of_codec(name: str) -> PPLSource:
            return MeasuredSource(partial(self._measure, Codec(name)), ends, axes, names)

        return per_codec(params.codecs, experiment.losses(), of_codec)

    def _measure(
        self, codec: Codec, split_points_N: IntArray, link_states_NK: FloatArray
    ) -> FloatArray:
        """Return measured PPL; NaN where a setting gave none."""
        assert self._service is not None
        experiment = self._folder.experiment
        names = tuple(experiment.measured_ranges())
        link = experiment.link
        settings = [
            Setting(int(p), link_state(names, state, link), _REWARD_SEED, codec)
            for p, state in zip(split_points_N, link_states_NK, strict=True)
        ]
        rows = self._service.measure(settings, title="rewards")
        self._requested.add(rows)
        done = [rows[setting].status == "done" for setting in settings]
        log_ppl_N = np.array([rows[setting].log_ppl for setting in settings], dtype=np.float64)
        return np.where(done, np.exp(log_ppl_N), np.nan)


@contextmanager
def reward_sources(folder: RunFolder, params: LayerSplitParams) -> Generator[RewardSources]:
    """Open the sources of a run's trainings; the language model only where one measures."""
    if all(config.rewards == "surrogate" for config in folder.experiment.agents.values()):
        yield RewardSources(folder, params, None)
        return
    with same_measuring_service(folder) as service:
        yield RewardSources(folder, params, service)
