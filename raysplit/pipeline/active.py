"""Active measuring (`plan.kind: active`): the settings that tell most about the decision.

    a few settings, spread -> fit the surrogate -> expected regret small, twice? -> done
                                   ^                    | no
                                   +-- measure a batch <-+-- the knowledge gradient chooses it

Everything follows from the rows that were measured and the plan's seed, so a run that was killed
finds its rows in the ledger and goes on with the settings that it would have chosen.

Shape suffixes: M members, P split points, G link states, S = P G settings, K link coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from envs.dynamics import reward
from envs.grid import Grid
from envs.knowledge_gradient import Beliefs, choose_settings, expected_regret
from envs.link_chain import grid_axes
from envs.params import LayerSplitParams
from envs.sources import PPLSource, SurrogateSource, as_source
from raysplit.base.arrays import BoolArray, FloatArray, IntArray
from raysplit.base.progress import console
from raysplit.base.sealed_json import read_sealed, write_sealed
from raysplit.measure.plan import settings_of
from raysplit.measure.rows import Row
from raysplit.measure.service import MeasuringService, as_table
from raysplit.measure.setting import Setting, with_each_codec
from raysplit.measure.table import Measurements
from raysplit.pipeline.experiment import Experiment
from raysplit.pipeline.problem import problem_of
from raysplit.pipeline.run_folder import RunFolder, write_again
from raysplit.surrogate import Surrogate, SurrogateConfig, fit

CHOICES = "active_plan.json"
_REPEATS = 4  # cuts into folds: with the usual 5 folds 20 members, whose covariances mean something

Measure = Callable[[Sequence[Setting]], Measurements]
"""The valid rows of all settings so far, measured where they were not before."""


@dataclass(frozen=True, slots=True)
class ActiveStep:
    """Where an active plan stands after a batch.

    Attributes:
        settings: All settings asked for so far, in the order of their choice.
        expected_regret: What planning on their surrogate is expected to lose, as a share of the
            gap random - optimum.
    """

    settings: tuple[Setting, ...]
    expected_regret: float


def measure_actively(
    experiment: Experiment, service: MeasuringService
) -> tuple[dict[Setting, Row], list[ActiveStep]]:
    """Measure the settings of an active plan, and say after each batch where it stands."""
    first = {setting.split_point for setting in experiment.planned_settings()}
    reference = service.reference(keep=first)
    params = problem_of(experiment, reference.corpus.log_ppl, service.tokens_per_sequence)
    rows: dict[Setting, Row] = {}

    def measure(settings: Sequence[Setting]) -> Measurements:
        rows.update(service.measure(settings))
        codecs = experiment.problem.all_codecs
        return as_table(rows, params.link_names, reference.corpus.log_ppl, codecs)

    steps: list[ActiveStep] = []
    for step in active_steps(experiment, params, measure):
        steps.append(step)
        console.print(
            f"active     {len(step.settings)} settings: planning on them is expected to lose "
            f"{step.expected_regret:.2%} of the gap (target {experiment.plan.target_regret:.2%}, "
            f"at most {experiment.plan.max_settings} settings)"
        )
    return rows, steps


def active_steps(
    experiment: Experiment, params: LayerSplitParams, measure: Measure
) -> Generator[ActiveStep]:
    """Yield where the plan stands, after the first settings and after each batch.

    Args:
        experiment: Its plan, the kind of link and the surrogate's settings.
        params: The decision problem.
        measure: What measures.
    """
    plan = experiment.plan
    perfect_link = experiment.perfect_link()
    candidates = _Candidates(params, plan.grid_points, perfect_link)
    settings = experiment.planned_settings()
    before = math.inf
    while True:
        table = measure(settings)
        surrogate = believed(table, params, experiment.surrogate, plan.seed, perfect_link)
        regret = expected_regret(params, SurrogateSource(surrogate), _members(surrogate))
        yield ActiveStep(tuple(settings), regret)
        count = min(plan.batch_settings, plan.max_settings - len(settings))
        # Twice: a few rows may please all networks by chance.
        if max(regret, before) <= plan.target_regret or count == 0:
            return
        before = regret
        chosen = choose_settings(
            candidates.beliefs(surrogate),
            candidates.open_after(settings),
            count,
            float(np.median(table.stderr_N**2)),
        )
        if not len(chosen):
            return
        settings += _settings(experiment, candidates.rows(chosen), first=len(settings))


def believed(
    table: Measurements,
    params: LayerSplitParams,
    config: SurrogateConfig,
    seed: int,
    perfect_link: tuple[float, ...] | None,
) -> Surrogate:
    """Fit the ensemble whose members stand for what is believed of every setting."""
    ends = (params.min_split_point, params.max_split_point)
    surrogate, _ = fit(
        table, config, seed, split_points=ends, perfect_link=perfect_link, repeats=_REPEATS
    )
    return surrogate


def _members(surrogate: Surrogate) -> list[PPLSource]:
    def source_of(member: int) -> PPLSource:
        def ppl(split_points_N: IntArray, link_states_NK: FloatArray) -> FloatArray:
            return np.exp(_log_ppl(surrogate, split_points_N, link_states_NK)[member])

        return as_source(ppl, quantity="ppl")

    return [source_of(member) for member in range(len(surrogate.weights.first_MIH))]


def _log_ppl(
    surrogate: Surrogate, split_points_N: IntArray, link_states_NK: FloatArray
) -> FloatArray:
    """Return each member's log PPL (M, N), of the plan's one codec."""
    codecs_N = np.zeros(len(split_points_N), dtype=np.int64)
    return surrogate.predict_members(split_points_N, link_states_NK, codecs_N)


def _settings(experiment: Experiment, rows: FloatArray, first: int = 0) -> list[Setting]:
    """Return the settings of rows (split point, link coordinates), the first at this place."""
    problem = experiment.problem
    settings = settings_of(experiment.plan, rows, problem.link_names, experiment.link, first)
    return with_each_codec(settings, problem.all_codecs)


class _Candidates:
    """The settings that may be chosen: every split point at every link state of a grid.

    Over a perfect link nothing is chosen, as its outcome is known.
    """

    def __init__(
        self, params: LayerSplitParams, grid_points: int, perfect_link: tuple[float, ...] | None
    ) -> None:
        self._params = params
        self._perfect_link = perfect_link
        ends = (params.min_split_point, params.max_split_point)
        grid = Grid(ends, grid_axes(params, [grid_points] * len(params.link_names)))
        self._points_S, self._links_SK = grid.rows()
        self._shape = (len(params.split_points_P), -1)

    def beliefs(self, surrogate: Surrogate) -> Beliefs:
        """What an ensemble says of them."""
        rewards_MS = [
            reward(self._params, member, self._points_S, self._links_SK)
            for member in _members(surrogate)
        ]
        return Beliefs(
            log_ppl_MS=_log_ppl(surrogate, self._points_S, self._links_SK),
            rewards_MPG=np.stack([values_S.reshape(self._shape) for values_S in rewards_MS]),
        )

    def open_after(self, settings: Sequence[Setting]) -> BoolArray:
        """Which were not asked for yet; one that failed is not asked for again."""
        names = self._params.link_names
        asked = {(s.split_point, *(getattr(s.link, name) for name in names)) for s in settings}
        rows = zip(self._points_S.tolist(), self._links_SK.tolist(), strict=True)
        return np.array(
            [tuple(link) != self._perfect_link and (p, *link) not in asked for p, link in rows]
        )

    def rows(self, chosen: IntArray) -> FloatArray:
        """Their split points and link coordinates, a row each."""
        points_B1 = self._points_S[chosen, None].astype(np.float64)
        return np.concatenate([points_B1, self._links_SK[chosen]], axis=1)


def write_choices(folder: RunFolder, steps: Sequence[ActiveStep]) -> Path:
    """Write what was chosen, in order, and where the plan stood after each batch."""
    names = folder.experiment.problem.link_names
    path = folder.path / CHOICES
    content = {
        "link_coordinates": list(names),
        "settings": [
            [s.split_point, *(getattr(s.link, name) for name in names)] for s in steps[-1].settings
        ],
        "steps": [
            {"settings": len(step.settings), "expected_regret": step.expected_regret}
            for step in steps
        ],
    }
    write_sealed(path, content)
    return path


def read_choices(folder: RunFolder) -> list[ActiveStep]:
    """Read what `write_choices` wrote.

    Raises:
        UserError: If the file is missing or damaged.
    """
    content = read_sealed(folder.path / CHOICES, write_again(folder))
    rows = np.array(content["settings"], dtype=np.float64)
    settings = tuple(_settings(folder.experiment, rows))
    return [
        ActiveStep(settings[: step["settings"]], step["expected_regret"])
        for step in content["steps"]
    ]


def measured_settings(folder: RunFolder) -> list[Setting]:
    """Return the settings that stage `measure` asked for, whatever became of them.

    Raises:
        UserError: If what an active plan chose is missing or damaged.
    """
    if folder.experiment.plan.kind == "active":
        return list(read_choices(folder)[-1].settings)
    return folder.experiment.planned_settings()
