"""Everything a report says, as plain records that the composition root fills."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from raysplit.base.statistics import Interval
from raysplit.figures import (
    AnswerLine,
    AnswerPlane,
    CodecMap,
    CostWeightSweep,
    Decisions,
    EpisodeReturns,
    EvaluationCurves,
    LearningPanel,
    OptimumTerms,
    PPLPanel,
    TimeStack,
    TraceWalk,
    TradePanel,
)
from raysplit.report.explorer import Explorer
from raysplit.surrogate import FitReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Performance:
    """How good a policy is on one source of perplexities.

    Attributes:
        episode_return: Return of an episode with its 95 % interval.
        regret: The exact optimum's return minus the policy's.
        share_of_gap: Share of the gap random -> exact optimum that it closes; 1 is the optimum.
            The interquartile mean where there are several seeds.
        shares_by_seed: The same of each seed; none for a policy without seeds.
        moving_cost: What moves took off the return; 0 where they are free.
    """

    episode_return: Interval
    regret: float
    share_of_gap: float
    shares_by_seed: tuple[float, ...] = ()
    moving_cost: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyResult:
    """One row of the table of policies.

    Attributes:
        name: "PPO", "optimum", "random", "best fixed p = 7" ...
        detail: What a reader must know of it, such as "tuned, 3 seeds"; may be empty.
        kind: `agent`, `fixed` (one fixed split point) or another `baseline`.
        surrogate: Its performance on the surrogate, None where it was not evaluated there.
        measured: The same on measured perplexity.
        decision_us: Time of one decision in microseconds, None where it was not taken.
        llm_evaluations: Settings that the language model was asked for before it could decide.
    """

    name: str
    detail: str = ""
    kind: Literal["agent", "fixed", "baseline"] = "baseline"
    surrogate: Performance | None = None
    measured: Performance | None = None
    decision_us: float | None = None
    llm_evaluations: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberRow:
    """Agents on a member of the family that no training drew.

    Attributes:
        values: What it is, by name.
        shares: Share of the gap on measured perplexity, by policy.
    """

    values: Mapping[str, float]
    shares: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingCostRow:
    """What one training cost and what it was good for: a row of the paper's Table IV.

    Attributes:
        agent: Its name.
        rewards: Where they came from: surrogate, measured, algorithm_1.
        llm_evaluations: Settings that the language model was asked for, mean over seeds.
        worker_seconds: What they took one worker, mean over seeds.
        first_seed_seconds: Wall clock of the first seed's training, measuring in it included.
        peak_resident_bytes: Most memory of the training process over the seeds, None if not seen.
        measured: Return of an episode on measured perplexity.
    """

    agent: str
    rewards: str
    llm_evaluations: float
    worker_seconds: float
    first_seed_seconds: float
    peak_resident_bytes: int | None
    measured: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class SurrogateCheck:
    """Whether decisions made on the surrogate hold on measured perplexity.

    Attributes:
        rank_correlation: Spearman's rho between predicted and measured rewards over the split
            points of a link state, averaged over the states.
        planned_share_of_gap: Share of the gap, on measured perplexity, that the surrogate's own
            optimal policy closes.
        warning: Why the surrogate misleads or may do so, or None where it does not.
    """

    rank_correlation: float
    planned_share_of_gap: float
    warning: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetRow:
    """What the best split point costs in one link state.

    Attributes:
        state: The link state in words.
        split_point: The best one.
        first_token_s: Time to the first token, in s.
        next_token_s: Time of each further one, in s.
        energy_j: Energy of the phone over the request, in J.
        memory_gb: What the phone keeps, in 10^9 bytes.
        late: Probability that the first token misses the deadline; None where there is none.
        perplexity_excess: Measured perplexity over the clean one, minus 1.
        codec: What hidden states are best sent as there; empty where that is no choice.
    """

    state: str
    split_point: int
    first_token_s: float
    next_token_s: float
    energy_j: float
    memory_gb: float
    late: float | None
    perplexity_excess: float
    codec: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BudgetPart:
    """Seconds, joules and memory, computed for the request of the experiment's `budget`.

    Attributes:
        network: Its name, "lte".
        codec: What hidden states are sent as.
        where: Devices, network and request in a phrase.
        output_tokens: Tokens of the answer, which the energy is divided by.
        rows: The optimum, link states from mild to harsh.
        stacks: Where the time to the first token goes.
        trades: Measured perplexity against time and energy.
        terms: What each term adds to the objective at the optimum; None for another reward.
        codecs: The best split point and codec over the link; None where there is no such choice.
    """

    network: str
    codec: str
    where: str
    output_tokens: int
    rows: Sequence[BudgetRow]
    stacks: Sequence[TimeStack]
    trades: Sequence[TradePanel]
    terms: OptimumTerms | None
    codecs: CodecMap | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReportData:
    """The content of a report; a part that is None or empty is left out.

    Attributes:
        title: The experiment's name.
        model: The language model, with its number of layers.
        corpus: The text that perplexity was measured on.
        link: The channel in one phrase.
        created: Date and time, UTC.
        clean_ppl: The whole model's perplexity over a perfect link.
        objective: What the best split point is best in, in a sentence.
        description: Why this objective and this range of the link.
        answer: The map of the best split point.
        budget: What the splits cost in seconds and joules.
        explorer: The interactive panel.
        perplexity: Panels of PPL against the split point.
        policies: Agents and baselines, best first; "optimum" and "random" among them.
        episodes: Returns of the same episodes under each policy, on measured perplexity.
        decisions: What the best agent chooses as the link gets worse.
        walk: What the best agent and the optimum choose along a trace; None of other links.
        learning: Learning curves by case.
        members: Agents on members of the family that no training drew.
        training_costs: What each agent's training cost.
        fit: The surrogate's held-out quality.
        fidelity: The check of the surrogate against measured perplexity.
        not_usable: What is wrong with agents that nobody should use, a sentence each.
        seed_stderr: Standard deviation of log PPL over seeds of the link, at the anchor where it is
            largest.
        active: What an active plan expected of its settings as it went on, None of other plans.
        sweep: The optimum under other weights.
        settings: This protocol card's settings in the ledger with a value, and without.
        protocol: The protocol card: what two perplexities must share to be compared.
        versions: Package -> version.
        seconds: Stage -> wall-clock seconds.
        reproduce: Shell commands that make this page again.
    """

    title: str
    model: str
    corpus: str
    link: str
    created: str
    clean_ppl: float
    objective: str
    description: str
    answer: AnswerLine | AnswerPlane
    budget: BudgetPart | None = None
    explorer: Explorer | None = None
    perplexity: Sequence[PPLPanel] = ()
    policies: Sequence[PolicyResult] = ()
    episodes: EpisodeReturns | None = None
    decisions: Decisions | None = None
    walk: TraceWalk | None = None
    learning: Sequence[LearningPanel] = ()
    members: Sequence[MemberRow] = ()
    training_costs: Sequence[TrainingCostRow] = ()
    fit: FitReport | None = None
    fidelity: SurrogateCheck | None = None
    not_usable: Sequence[str] = ()
    seed_stderr: float | None = None
    active: EvaluationCurves | None = None
    sweep: CostWeightSweep | None = None
    settings: tuple[int, int] = (0, 0)
    protocol: Mapping[str, str] = field(default_factory=dict[str, str])
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    seconds: Mapping[str, float] = field(default_factory=dict[str, float])
    reproduce: Sequence[str] = ()
