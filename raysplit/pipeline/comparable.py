"""Which runs may stand side by side: what each was measured under, and where they differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from raysplit.base.errors import UserError, command
from raysplit.pipeline.problem import protocol_card
from raysplit.pipeline.run_folder import RunFolder, first_difference

_NEEDED = ("measure", "fit", "train", "evaluate")
# What the card tells of the clean pass, and of a text as one tokenizer cuts it.
_FINDINGS = {"card_sha256", "clean_log_ppl", "tokens_per_sequence", "signal_rms"}
_OF_THE_TOKENS = {"sha256", "sequences", "scored_tokens"}

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Run:
    """A run to compare, under a name that tells it from the others."""

    name: str
    folder: RunFolder

    @cached_property
    def card(self) -> dict[str, Any]:
        """What its perplexities depend on."""
        card = protocol_card(self.folder)
        del card["model"]["name"]  # its weights are there, wherever they lie
        return {key: value for key, value in card.items() if key not in _FINDINGS}

    def section(self, name: str) -> dict[str, Any]:
        """A section of its experiment, under its name."""
        return self.folder.experiment.model_dump(mode="json", by_alias=True, include={name})

    @property
    def model(self) -> str:
        """The end of its model's name."""
        return Path(self.folder.experiment.model.name).name

    @property
    def case(self) -> str:
        """L, H or A."""
        return self.folder.experiment.problem.case

    @property
    def channel(self) -> str:
        """The kind of link."""
        fading = self.folder.experiment.link.fading
        if fading != "none":
            return f"{fading.capitalize()} fading"
        return "AWGN" if self.impairment == "noise" else "No fading"

    @property
    def impairment(self) -> str:
        """What grows as the link gets worse."""
        experiment = self.folder.experiment
        if "loss_probability" in experiment.problem.link or experiment.link.gain_threshold > 0:
            return "loss"
        return "noise" if experiment.link.fading == "none" else "fading"


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """Return the runs of some folders.

    Raises:
        UserError: One is given twice, or is no finished run.
    """
    folders = [RunFolder.read(path) for path in paths]
    twice = [path for path, count in Counter(p.resolve() for p in paths).items() if count > 1]
    if twice:
        raise UserError(f"{twice[0]} is given twice: name each run once")
    for folder in folders:
        for stage in _NEEDED:
            record = folder.stage_record(stage)
            # What was computed elsewhere counts: its files must be as that run left them.
            if record is None or not folder.is_done(stage, record["inputs_sha256"]):
                raise UserError(
                    f"stage '{stage}' is not done in {folder.path}: finish it with "
                    f"{command('run', folder.path / 'experiment.yaml', '--out', folder.path)}"
                )
    return [Run(name, folder) for name, folder in zip(_names(paths), folders, strict=True)]


def _names(paths: Sequence[Path]) -> list[str]:
    """The ends of the paths, as long as it takes to tell them apart."""
    parts = [path.resolve().parts for path in paths]
    length = 1
    while len({path[-length:] for path in parts}) < len(parts):
        length += 1
    return ["/".join(path[-length:]) for path in parts]


def differences(runs: Sequence[Run]) -> Iterator[str]:
    """Say of each panel's runs what their numbers do not share with the first one's."""
    found: dict[str, None] = {}
    for group in grouped(runs, lambda run: run.channel + run.impairment).values():
        found |= dict.fromkeys(_from_first(group, _conditions))
        for of_model in grouped(group, lambda run: run.model).values():
            found |= dict.fromkeys(_from_first(of_model, lambda run: run.card))
    for group in grouped(runs, lambda run: case_title(run, runs)).values():
        found |= dict.fromkeys(_from_first(group, _problem))
        found |= dict.fromkeys(_from_first(group, lambda run: run.card))
    yield from found


def _problem(run: Run) -> dict[str, Any]:
    """What decides the reward of a split point and link state, besides perplexity."""
    weighed = run.folder.experiment.problem.reward == "budget"
    budget = run.section("budget") if weighed else {}
    return run.section("problem") | run.section("radio") | budget


def _from_first(runs: Sequence[Run], values: Callable[[Run], Mapping[str, Any]]) -> Iterator[str]:
    first, *others = [(run, values(run)) for run in runs]
    for run, mine in others:
        difference = first_difference(first[1], mine)
        if difference:
            yield f"{run.name} differs from {first[0].name}: {difference}"


def _conditions(run: Run) -> dict[str, Any]:
    """What runs of different models must share: the experiment's, and the card without its model.

    Another model cuts the same text into other tokens.
    """
    card = {key: value for key, value in run.card.items() if key != "tokenizer"}
    card["model"] = {"dtype": card["model"]["dtype"]}
    text = {key: value for key, value in card["corpus"].items() if key not in _OF_THE_TOKENS}
    return card | {"corpus": text | run.section("corpus")["corpus"]}


def case_title(run: Run, runs: Sequence[Run]) -> str:
    """Return the case, with the model and the link where runs of that case differ in them."""
    same = [other for other in runs if other.case == run.case]
    model = f"\n{run.model}" if len({other.model for other in same}) > 1 else ""
    channel = f"\n{run.channel}" if len({other.channel for other in same}) > 1 else ""
    return f"Case {run.case}{model}{channel}"


def grouped(items: Sequence[_Item], key: Callable[[_Item], str]) -> dict[str, list[_Item]]:
    """Return the items by key, in the order in which they come."""
    groups: dict[str, list[_Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups
