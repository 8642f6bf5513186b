"""One experiment = one YAML file = one run folder."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Self, cast, get_args

import yaml
from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator

from envs.link_config import ValueRange
from envs.problem import ProblemConfig
from raysplit.base.config import Config, check_name
from raysplit.base.errors import UserError, command, suggest, yaml_reason
from raysplit.base.explain import explain
from raysplit.base.overrides import apply_override
from raysplit.base.yaml_text import parse_yaml
from raysplit.budget.config import BudgetConfig
from raysplit.corpus.config import CorpusConfig
from raysplit.corpus.sequences import ProtocolConfig
from raysplit.link.codec import Codec
from raysplit.link.config import LinkConfig
from raysplit.link.coordinates import perfect_values
from raysplit.measure.config import BackendConfig, MeasuringConfig
from raysplit.measure.plan import PlanConfig, make_plan
from raysplit.measure.setting import Setting, with_each_codec
from raysplit.model.config import ModelConfig
from raysplit.model.sizes import sizes_of
from raysplit.pipeline.preset_names import PRESETS
from raysplit.radio.transport import RadioConfig, TokenLoss, token_loss
from raysplit.surrogate.config import SurrogateConfig
from raysplit.tracking.config import TrackingConfig
from tuning.settings import Algorithm, TrainConfig
from tuning.sweep.settings import SweepConfig

# Names that the report gives to baselines.
_NO_AGENTS = frozenset({"random", "stay", "greedy", "optimum", "untrained", "fixed"})

# What no stage's result depends on. (A sweep is recognised by its own records.)
_NO_RESULT: Any = {
    "name": True,
    "description": True,
    "backend": True,
    "tracking": True,
    "sweep": True,
    "measuring": {"ledger"},
    "agents": {"__all__": {"checkpoint_every_steps"}},
}


# What a description says nothing of: where the work runs, and a local copy of the same text.
_NOT_DESCRIBED = ("name", "backend", "tracking", "sweep", "measuring.ledger", "corpus.path")


class Experiment(Config):
    """Everything that decides a result, and where it is computed.

    Attributes:
        name: Names the run folder and the tracking group.
        description: Why these values; stands in the report.
        model: The language model that is cut.
        corpus: The text.
        protocol: How perplexity is counted.
        link: The kind of wireless link; its state is part of the problem.
        radio: What carries the bits in `link.mode: digital`.
        problem: The decision problem.
        budget: What seconds, joules and memory are counted for: shown in the report, and weighed
            by `problem.reward: budget`. Split points that do not fit are refused.
        plan: Which settings are measured for the surrogate.
        measuring: Precision of a measurement.
        surrogate: The learned model of the perplexity.
        agents: Agents to train, by name; one called ppo, a2c or dqn has that algorithm unless it
            names another.
        sweep: Hyper-parameters that `raysplit sweep` varies; no stage depends on it.
        tracking: Where metrics go besides the run folder.
        backend: Where the work runs. Only a GPU instead of a CPU changes results, and the card.
    """

    name: Annotated[str, AfterValidator(check_name)]
    description: str = ""
    model: ModelConfig = ModelConfig()
    corpus: CorpusConfig = CorpusConfig()
    protocol: ProtocolConfig = ProtocolConfig()
    link: LinkConfig = LinkConfig()
    radio: RadioConfig | None = None
    problem: ProblemConfig
    budget: BudgetConfig | None = None
    plan: PlanConfig = PlanConfig()
    measuring: MeasuringConfig = MeasuringConfig()
    surrogate: SurrogateConfig = SurrogateConfig()
    agents: dict[str, TrainConfig] = Field(default_factory=lambda: {"ppo": TrainConfig()})
    sweep: SweepConfig = SweepConfig()
    tracking: TrackingConfig = TrackingConfig()
    backend: BackendConfig = BackendConfig()

    @field_validator("agents", mode="before")
    @classmethod
    def _algorithm_by_name(cls, agents: Any) -> Any:  # noqa: ANN401 - whatever the YAML holds
        """Take the algorithm of an agent that is called as one and names none."""
        if not isinstance(agents, dict):
            return agents
        given = cast("dict[Any, Any]", agents)
        return {
            name: {"algorithm": name, **cast("dict[str, Any]", agent)}
            if name in get_args(Algorithm) and isinstance(agent, dict)
            else agent
            for name, agent in given.items()
        }

    @field_validator("agents")
    @classmethod
    def _names_of_agents(cls, agents: dict[str, TrainConfig]) -> dict[str, TrainConfig]:
        for name in agents:
            check_name(name)
            if name.lower() in _NO_AGENTS:
                raise ValueError(
                    f"an agent cannot be called '{name}', as a baseline of the report is: choose "
                    "another name"
                )
        return agents

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.agents:
            raise ValueError("agents is empty: name at least one, e.g. agents: {ppo: {}}")
        self.link.check_coordinates(self.problem.link_names)
        self._check_radio()
        self._check_budget()
        if self.measuring.anchors is True and not self.plan.paired:
            raise ValueError(
                "measuring.anchors: true needs plan.paired: true, as settings foretell each other "
                "by the noise that they share: leave one of them out"
            )
        if self.plan.kind == "active":
            self._check_active_plan()
        if self.problem.actions == "split_and_codec":
            self._check_choice_of_codec()
        if self.protocol.unit == "sliding_window":
            self.corpus.refuse_sentence_rules()
        return self

    def _check_choice_of_codec(self) -> None:
        for name, config in self.agents.items():
            if config.rewards == "algorithm_1":
                raise ValueError(
                    f"agents.{name}.rewards: algorithm_1 learns a surrogate of one codec, and "
                    "problem.actions: split_and_codec chooses among "
                    f"{len(self.problem.codecs)}: take rewards: surrogate or measured"
                )

    def _check_radio(self) -> None:
        if self.link.mode == "digital" and self.radio is None:
            raise ValueError("link.mode: digital needs a section radio, such as radio: {cell: lte}")
        names = self.problem.link_names
        if self.link.mode == "digital" and names != ("snr_db",):
            raise ValueError(
                f"link.mode: digital varies snr_db alone, and problem.link has {', '.join(names)}: "
                "rate, delay and loss follow from the radio's SNR"
            )
        if self.link.mode == "analogue" and self.radio is not None:
            raise ValueError(
                "a section radio goes with link.mode: digital, where snr_db is the radio's; in "
                "link.mode: analogue it is noise on the hidden states: set the mode, or leave "
                "radio out"
            )

    def _check_budget(self) -> None:
        if self.problem.reward == "budget" and self.budget is None:
            raise ValueError(
                "problem.reward: budget needs a section budget, such as "
                "budget: {phone: flagship, edge: h100, network: lte}"
            )
        without_deadline = self.budget is not None and self.budget.deadline_s is None
        if self.problem.percent_per_miss and without_deadline:
            raise ValueError(
                f"problem.percent_per_miss = {self.problem.percent_per_miss:g} needs a deadline: "
                "give budget.deadline_s, in seconds until the first token"
            )

    def token_loss(self, codec: Codec | None = None) -> TokenLoss | None:
        """Return the loss over the problem's SNRs, None in `link.mode: analogue`.

        Args:
            codec: What hidden states are sent as; None: what decisions are made for.

        Raises:
            UserError: The model's hidden size is not known on this machine.
        """
        if self.radio is None:
            return None
        snr_db = self.problem.link["snr_db"]
        hidden_size = sizes_of(self.model.name).hidden_size
        bits = (codec or self.problem.codec).bits_per_token(hidden_size)
        return token_loss(self.radio, bits, snr_db.low, snr_db.high)

    def losses(self) -> dict[str, TokenLoss]:
        """Return `token_loss` of each codec by its name; empty in `link.mode: analogue`.

        Raises:
            UserError: The model's hidden size is not known on this machine.
        """
        found = {codec.name: self.token_loss(codec) for codec in self.problem.all_codecs}
        return {name: loss for name, loss in found.items() if loss is not None}

    def measured_ranges(self) -> dict[str, ValueRange]:
        """Return what is measured: the problem's link coordinates, or the loss they come down to.

        Raises:
            UserError: The model's hidden size is not known on this machine.
        """
        up_to = [loss.measured_up_to for loss in self.losses().values()]
        return {"loss_probability": (0.0, max(up_to))} if up_to else self.problem.ranges("A")

    def _check_active_plan(self) -> None:
        first, folds = self.plan.first_settings, self.surrogate.folds
        if first < 2 * folds:
            raise ValueError(
                f"plan.first_settings {first} cannot be cut into surrogate.folds {folds} of at "
                "least 2: raise the one, or lower the other"
            )
        if self.radio is not None:
            raise ValueError(
                "plan.kind: active chooses link states as decisions see them, and "
                "link.mode: digital measures losses: take another plan"
            )
        if len(self.problem.codecs) > 1:
            raise ValueError(
                "plan.kind: active chooses for one codec, and problem.codecs has "
                f"{len(self.problem.codecs)}: name one there, or take another plan"
            )

    def planned_settings(self) -> list[Setting]:
        """Return the settings that stage `measure` measures; of an active plan, the first ones.

        A plan serves every case, an active one only the decisions of its own.

        Raises:
            UserError: If a listed plan cannot be read, or leaves the problem.
        """
        problem = self.problem
        split_points = (problem.min_split_point, problem.max_split_point)
        settings = make_plan(self.plan, split_points, self._planned_ranges(), self.link)
        return with_each_codec(settings, problem.all_codecs)

    def perfect_link(self) -> tuple[float, ...] | None:
        """Return the planned link coordinates' values that change nothing, if within their ranges.

        Raises:
            UserError: The model's hidden size is not known on this machine.
        """
        ranges = self._planned_ranges()
        values = perfect_values(tuple(ranges), self.link)
        if values is None:
            return None
        within = zip(ranges.values(), values, strict=True)
        return values if all(low <= value <= high for (low, high), value in within) else None

    def _planned_ranges(self) -> dict[str, ValueRange]:
        active = self.plan.kind == "active"
        return self.problem.ranges(None) if active else self.measured_ranges()

    def to_yaml(self) -> str:
        """Return the experiment with every value written out."""
        return yaml.safe_dump(self.model_dump(mode="json", by_alias=True), sort_keys=False)

    def results_part(self) -> dict[str, Any]:
        """Return what decides the stages' results: not where they run, nor what they are called."""
        return self.model_dump(mode="json", by_alias=True, exclude=_NO_RESULT)


def load_experiment(name_or_path: str, overrides: list[str] | None = None) -> Experiment:
    """Load a preset or a YAML file and apply `a.b=c` overrides.

    Raises:
        UserError: If it cannot be found or read, or a key or value is wrong.
    """
    values = _read(name_or_path)
    for override in overrides or []:
        apply_override(values, override)
    _note_what_was_changed(values, overrides or [])
    _refuse_odd_texts(values, f"{name_or_path}: ")
    try:
        return Experiment.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{name_or_path}: {explain(error, Experiment)}") from None


def _note_what_was_changed(values: dict[str, Any], overrides: list[str]) -> None:
    """Add to a description, which was written for other values, which of them are others here."""
    keys = [override.partition("=")[0].strip() for override in overrides]
    decisive = (key for key in keys if not key.endswith(".checkpoint_every_steps"))
    changed = sorted({key for key in decisive if not key.startswith(_NOT_DESCRIBED)})
    if changed and "description" not in keys and isinstance(values.get("description"), str):
        values["description"] += f" (Written before these were changed: {', '.join(changed)}.)"


def _read(name_or_path: str) -> dict[str, Any]:
    if name_or_path in PRESETS:
        text = resources.files("raysplit").joinpath(f"presets/{name_or_path}.yaml").read_text()
    else:
        path = Path(name_or_path)
        if (path / "experiment.yaml").is_file():
            raise UserError(
                f"'{name_or_path}' is a run folder: to go on in it, "
                f"{command('run', path / 'experiment.yaml', '--out', path)}"
            )
        if not path.is_file():
            raise UserError(
                f"'{name_or_path}' is neither a preset ({', '.join(PRESETS)}) nor a file"
                f"{suggest(name_or_path, PRESETS)}"
            )
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise UserError(f"{name_or_path} cannot be read ({error.strerror})") from None
    try:
        values = parse_yaml(text)
    except yaml.YAMLError as error:
        raise UserError(
            f"{name_or_path} is not valid YAML ({yaml_reason(error)}); check indentation, quotes "
            "and brackets"
        ) from None
    if not isinstance(values, dict):
        raise UserError(
            f"{name_or_path} must be a mapping of sections such as 'name' and 'problem'"
        )
    return cast("dict[str, Any]", values)


def _refuse_odd_texts(value: Any, where: str) -> None:  # noqa: ANN401 - any YAML value
    """Refuse keys that YAML takes for no text (`no`, `1`), and texts with a NUL (in no path)."""
    if isinstance(value, dict):
        for key, inner in cast("dict[Any, Any]", value).items():
            if not isinstance(key, str):
                raise UserError(
                    f"{where}{key}: YAML reads this key as no text but {key!r}: put it in quotes"
                )
            _refuse_odd_texts(key, where)
            _refuse_odd_texts(inner, f"{where}{key}.")
    elif isinstance(value, list):
        for inner in cast("list[Any]", value):
            _refuse_odd_texts(inner, where)
    elif isinstance(value, str) and "\0" in value:
        raise UserError(f"{where.rstrip('.')} = {value!r} holds a NUL character: take it out")
