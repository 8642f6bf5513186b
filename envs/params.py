"""The frozen parameters that the environments and the oracle compute with.

A *place* is where an episode may stand: a split point, and a codec where the problem chooses among
several; places are numbered by split points, the codecs of each side by side.

Shape suffixes: N settings, K link coordinates, P places (index 0 is the first split point and
codec), X link states at which costs are known, R rows of a path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from envs.link_config import LinkDynamics
from envs.link_path import link_path, refuse_short_parts, trained_rows
from envs.problem import ActionSpace, ProblemConfig, Reward
from raysplit.base.arrays import Float32Array, FloatArray, IntArray
from raysplit.base.errors import UserError


@dataclass(frozen=True, slots=True)
class ContextRange:
    """What differs between the members of a family (`envs.family`).

    Attributes:
        name: What it is.
        low: Lowest value in training.
        high: Highest.
        held_out: Values in between that no training draws.
    """

    name: str
    low: float
    high: float
    held_out: tuple[float, float] | None = None

    def drawn(self, uniform_N: FloatArray) -> FloatArray:
        """Return values of the range but for the held-out ones, for numbers uniform in [0, 1)."""
        if self.held_out is None:
            return self.low + uniform_N * (self.high - self.low)
        gap_low, gap_high = self.held_out
        value_N = self.low + uniform_N * (self.high - self.low - (gap_high - gap_low))
        return np.where(value_N < gap_low, value_N, value_N + (gap_high - gap_low))


FREE = np.zeros((0, 0, 0))
"""Moving costs nothing."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerSplitParams:
    """Everything that the transition, the observation and the reward depend on.

    Attributes:
        link_names: The link coordinates that vary.
        link_low_K: Lower end of each coordinate's range.
        link_high_K: Upper end.
        grid_points: Evaluation grid's points per coordinate.
        min_split_point: Fewest layers on the device.
        max_split_point: Most layers on the device.
        start_split_points: First and last split point that an episode starts from.
        episode_steps: Decisions in an episode.
        discount: Discount of reported returns.
        reward: Which reward.
        cost_weight: lambda of Eq. 7; 1 for the reward `budget`.
        cost_P: What is weighed against PPL at each place. C_UE as a share of the whole
            model, or raw; for the reward `budget` seconds, joules and misses, each weighted, as a
            share of the clean PPL.
        cost_PX: The same over the first link coordinate, where the cost depends on the link, too;
            linear between the values of `cost_axis_X`. No columns where it does not.
        cost_axis_X: Those values, ascending.
        moving_PPX: What moving from one place to another takes off the reward, over the link states
            of `cost_axis_X`, or one number for all (X = 1); `FREE` where it costs nothing.
        ppl_scale: The PPL that counts as 1 in the objective: the clean PPL, or 1 in the raw form.
        actions: What an agent may do (`envs.actions`).
        codecs: What decisions are made among; one, unless `actions` moves it.
        link_dynamics: How the link changes within an episode.
        drift_per_layer: Relative change of a constant link per layer moved.
        correlation: rho of the Gauss-Markov link, else 0.
        trace_RK: Link states of a trace, or of a simulated path of fading, one row a step; no rows
            for the other dynamics.
        trained_rows: Only `trace`: agents learn from the first rows, and are judged on the others.
        mean_snr_db: Of a path of fading, else 0.
        family: What agents learn besides: other values of these.
        contexts: How many of the last link names are values of a member of the family, which stay
            through an episode and no source knows.
        observe_step: Whether the observation ends with the number of steps taken.
    """

    link_names: tuple[str, ...]
    link_low_K: FloatArray
    link_high_K: FloatArray
    grid_points: tuple[int, ...]
    min_split_point: int
    max_split_point: int
    start_split_points: tuple[int, int]
    episode_steps: int
    discount: float
    reward: Reward
    cost_weight: float
    cost_P: FloatArray
    cost_PX: FloatArray
    cost_axis_X: FloatArray
    ppl_scale: float
    moving_PPX: FloatArray
    actions: ActionSpace
    codecs: tuple[str, ...]
    link_dynamics: LinkDynamics
    drift_per_layer: float
    correlation: float
    trace_RK: FloatArray
    trained_rows: int
    mean_snr_db: float
    family: tuple[ContextRange, ...]
    contexts: int = 0
    observe_step: bool

    @property
    def coordinates(self) -> int:
        """How many link coordinates there are, without the values of a family's member."""
        return len(self.link_names) - self.contexts

    def context_N(self, name: str, link_states_NK: FloatArray) -> FloatArray | None:
        """Return a family's value in each episode; None where it is the same in all."""
        names = self.link_names[self.coordinates :]
        if name not in names:
            return None
        return link_states_NK[:, self.coordinates + names.index(name)]

    @property
    def split_points(self) -> range:
        """All split points, ascending."""
        return range(self.min_split_point, self.max_split_point + 1)

    @property
    def split_points_P(self) -> IntArray:
        """The split point of each place."""
        return np.repeat(
            np.arange(self.min_split_point, self.max_split_point + 1), len(self.codecs)
        )

    @property
    def codecs_P(self) -> IntArray:
        """The codec of each place, as an index into `codecs`."""
        return np.tile(np.arange(len(self.codecs)), len(self.split_points))

    @property
    def chooses_codec(self) -> bool:
        """Whether the codec is a part of the place, of the observation and of what is asked."""
        return len(self.codecs) > 1

    @property
    def place_columns(self) -> int:
        """How many columns of an observation say the place: split point, and codec."""
        return 1 + self.chooses_codec

    def places(self, split_points_N: IntArray, codecs_N: IntArray | None = None) -> IntArray:
        """Return the index of each place."""
        rows_N = split_points_N - self.min_split_point
        return rows_N if codecs_N is None else rows_N * len(self.codecs) + codecs_N

    def observed_places(self, obs_NI: Float32Array) -> IntArray:
        """Return the place that each observation shows."""
        links = len(self.link_names)
        shown_NC = obs_NI[..., links : links + self.place_columns].astype(np.int64)
        codecs_N = shown_NC[..., 1] if self.chooses_codec else None
        return self.places(shown_NC[..., 0], codecs_N)

    def for_training(self) -> LayerSplitParams:
        """Return the problem as agents learn it: of a trace its first part.

        Raises:
            UserError: A part is shorter than an episode.
        """
        return self._with_rows(slice(None, self.trained_rows))

    def for_judging(self) -> LayerSplitParams:
        """Return the problem as policies are judged on it: of a trace what no agent has seen.

        Raises:
            UserError: A part is shorter than an episode.
        """
        return self._with_rows(slice(self.trained_rows, None))

    def _with_rows(self, part: slice) -> LayerSplitParams:
        if self.link_dynamics != "trace" or not self.trained_rows:
            return self
        refuse_short_parts(len(self.trace_RK), self.trained_rows, self.episode_steps)
        return replace(self, trace_RK=self.trace_RK[part], trained_rows=0)

    def link_states_at(self, shares_NK: FloatArray) -> FloatArray:
        """Return link states that lie at shares (0 to 1) of each coordinate's range."""
        return self.link_low_K + shares_NK * (self.link_high_K - self.link_low_K)


def params_from(
    problem: ProblemConfig,
    clean_ppl: float | None = None,
    cost_by_split_point: Sequence[float] | FloatArray | None = None,
    cost_by_link: tuple[FloatArray, FloatArray] | None = None,
    moving: FloatArray | None = None,
) -> LayerSplitParams:
    """Return the parameters of a problem.

    Args:
        problem: The YAML section.
        clean_ppl: PPL over a perfect link. All rewards but `authors` need it, unless `raw`.
        cost_by_split_point: C(p) for p = min_split_point .. max_split_point, or one for each place
            of those; all rewards but `authors` need it. C_UE(p) divided by the whole model's cost,
            or as it is with `raw`; for the reward `budget` the weighted sum of seconds, joules and
            misses, as a share of the clean PPL.
        cost_by_link: Values of the first link coordinate (X,), ascending and over its range, and
            C at each of them (P, X), in place of `cost_by_split_point`.
        moving: What moving costs, (P, P, X) or (P, P, 1); by default what the problem's own
            `switching.per_layer` says.

    Raises:
        UserError: If the reward lacks one of them, or the trace file does not serve.
    """
    codecs = problem.decision_codecs
    split_points = problem.max_split_point - problem.min_split_point + 1
    places = split_points * len(codecs)
    cost_P = np.zeros(places)
    cost_axis_X, cost_PX = np.zeros(0), np.zeros((places, 0))
    if problem.reward != "authors":
        has_cost = cost_by_split_point is not None or cost_by_link is not None
        if not has_cost or (clean_ppl is None and not problem.raw):
            raise UserError(
                f"reward: {problem.reward} needs the clean PPL and the cost of each split point"
            )
        if cost_by_link is not None:
            cost_axis_X, cost_PX = cost_by_link
        elif cost_by_split_point is not None:
            cost_P = np.array(cost_by_split_point, dtype=np.float64)
            if len(cost_P) == split_points:
                cost_P = np.repeat(cost_P, len(codecs))
        for costs in (len(cost_P), len(cost_PX)):
            if costs != places:
                raise UserError(
                    f"{costs} costs for {split_points} split points and {len(codecs)} codec(s): "
                    f"give one for each of {problem.min_split_point}..{problem.max_split_point}"
                )
    if moving is None:
        moving = _moving_by_layer(problem)
    ranges = problem.ranges()
    low_K, high_K = np.array(list(ranges.values()), dtype=np.float64).T
    dynamics = problem.dynamics
    path_RK = link_path(problem)
    return LayerSplitParams(
        link_names=problem.link_names,
        link_low_K=low_K,
        link_high_K=high_K,
        grid_points=tuple(link.grid_points for link in problem.link.values()),
        min_split_point=problem.min_split_point,
        max_split_point=problem.max_split_point,
        start_split_points=problem.start_split_points,
        episode_steps=problem.episode_steps,
        discount=problem.discount,
        reward=problem.reward,
        cost_weight=1.0 if problem.reward == "budget" else problem.cost_weight,
        cost_P=cost_P,
        cost_PX=cost_PX,
        cost_axis_X=cost_axis_X,
        moving_PPX=moving,
        ppl_scale=1.0 if problem.raw or clean_ppl is None else clean_ppl,
        actions=problem.actions,
        codecs=codecs,
        link_dynamics=dynamics.kind,
        drift_per_layer=dynamics.drift_per_layer,
        correlation=dynamics.correlation or 0.0,
        trace_RK=path_RK,
        trained_rows=trained_rows(problem, len(path_RK)),
        mean_snr_db=0.0 if dynamics.fading is None else dynamics.fading.mean_snr_db,
        family=tuple(
            ContextRange(name, one.low, one.high, one.held_out)
            for name, one in problem.family.items()
        ),
        observe_step=problem.observe_step,
    )


def _moving_by_layer(problem: ProblemConfig) -> FloatArray:
    """Return the plain cost of moving, (P, P, 1): so much for each layer that changes sides."""
    if not problem.switching.per_layer:
        return FREE
    rows_P = np.arange(problem.min_split_point, problem.max_split_point + 1)
    rows_P = np.repeat(rows_P, len(problem.decision_codecs))
    return problem.switching.per_layer * np.abs(rows_P[:, None, None] - rows_P[:, None])
