"""Stage 5: write the report and its figures."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from envs.problem import ProblemConfig
from raysplit.base.errors import command
from raysplit.base.number_texts import distinct_texts
from raysplit.figures import coordinate_value
from raysplit.link.codec import IDENTITY
from raysplit.measure.ledger import Ledger
from raysplit.model.checkpoint import DTYPE_BYTES
from raysplit.pipeline.active import measured_settings
from raysplit.pipeline.baselines import baseline_policies, decision_us
from raysplit.pipeline.oracles import Oracles, load_oracles, read_evaluation
from raysplit.pipeline.problem import ledger_path, model_sizes, protocol_card
from raysplit.pipeline.run_folder import RunFolder, versions
from raysplit.pipeline.tracked import tracker_of
from raysplit.pipeline.verdict import harmful_agents
from raysplit.pipeline.views.answer import answer_map, weight_sweep
from raysplit.pipeline.views.budget import budget_part
from raysplit.pipeline.views.decisions import best_agents_decisions
from raysplit.pipeline.views.episodes import episode_returns
from raysplit.pipeline.views.explorer import explorer
from raysplit.pipeline.views.panels import expected_shares, learning_panel, perplexity_panels
from raysplit.pipeline.views.scores import fidelity, member_rows, policy_results, training_costs
from raysplit.pipeline.views.walk import trace_walk
from raysplit.report import ReportData, write_report
from raysplit.surrogate import FitReport


def run(folder: RunFolder) -> list[Path]:
    """Write report.html and figures/."""
    data = report_data(folder)
    path = write_report(data, folder.path)
    with tracker_of(folder, "report") as tracker:
        for png in sorted((folder.path / "figures").glob("*.png")):
            tracker.log_figure(png.stem, png)
    return [path, *sorted((folder.path / "figures").iterdir())]


def report_data(folder: RunFolder) -> ReportData:
    """Gather what the report says from the run folder."""
    experiment = folder.experiment
    oracles = load_oracles(folder)
    card = protocol_card(folder)
    evaluation = read_evaluation(folder)
    sizes = model_sizes(experiment)
    return ReportData(
        title=experiment.name,
        model=f"{experiment.model.name} ({card['model']['architecture']}, "
        f"{card['model']['layers']} layers)",
        corpus=f"{experiment.corpus.source}, {card['corpus']['sequences']:,} sequences, "
        f"{card['corpus']['scored_tokens']:,} scored tokens",
        link=_link_phrase(folder) + _codecs_phrase(experiment.problem, card),
        created=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        clean_ppl=float(np.exp(card["clean_log_ppl"])),
        objective=_objective_phrase(experiment.problem),
        description=experiment.description,
        answer=answer_map(oracles),
        budget=budget_part(experiment, sizes, oracles),
        explorer=explorer(experiment, card, sizes, oracles),
        perplexity=perplexity_panels(oracles.table_by_codec),
        policies=policy_results(
            evaluation, len(measured_settings(folder)), decision_times(folder, oracles)
        ),
        members=member_rows(evaluation),
        episodes=episode_returns(folder, oracles.measured.optimal_return),
        decisions=best_agents_decisions(oracles, evaluation),
        walk=trace_walk(oracles, evaluation),
        learning=[learning_panel(folder)],
        training_costs=training_costs(evaluation),
        fit=FitReport.load(folder.path / "surrogate"),
        fidelity=fidelity(evaluation),
        not_usable=list(harmful_agents(evaluation).values()),
        seed_stderr=evaluation["seed_stderr"],
        active=expected_shares(folder),
        sweep=weight_sweep(oracles),
        settings=_settings_measured(folder, card["card_sha256"]),
        protocol=_flat(card),
        versions=versions(),
        seconds=_seconds(folder),
        reproduce=[
            command("run", folder.path / "experiment.yaml", "--out", "NEW_FOLDER").strip("`")
        ],
    )


def decision_times(folder: RunFolder, oracles: Oracles) -> dict[str, float]:
    """Return the time of a decision in microseconds, by policy; of an agent its first seed's."""
    steps = max(config.total_steps for config in folder.experiment.agents.values())
    agents = {name: next(iter(by_seed.values())) for name, by_seed in oracles.agents.items()}
    return decision_us(oracles.params, baseline_policies(oracles, steps) | agents)


def _link_phrase(folder: RunFolder) -> str:
    link, problem = folder.experiment.link, folder.experiment.problem
    fading = "no fading" if link.fading == "none" else f"{link.fading} fading"
    texts = {name: distinct_texts(ends) for name, ends in problem.ranges().items()}
    ranges = ", ".join(
        coordinate_value(name, f"{texts[name][low]} to {texts[name][high]}")
        for name, (low, high) in problem.ranges().items()
    )
    radio = folder.experiment.radio
    if radio is not None:
        fading = f"digital over {radio.cell}, " + (
            "no fading" if radio.nakagami_m is None else f"Nakagami-{radio.nakagami_m:g} fading"
        )
        if radio.packet_deadline_ms is not None:
            fading += f", packets lost after {radio.packet_deadline_ms:g} ms"
    return f"{fading}, one packet per {link.packet}; {ranges}"


def _codecs_phrase(problem: ProblemConfig, card: Mapping[str, Any]) -> str:
    """Name the codecs with their exact bits; the first is the one that decisions are made for."""
    if problem.all_codecs == (IDENTITY,):
        return ""
    size, computed = card["model"]["config"]["hidden_size"], card["model"]["dtype"]
    bits = 8 * DTYPE_BYTES[computed]
    first, *others = (
        f"{codec} ({codec.bits_per_token(size, computed_bits=bits):,} bits a token)"
        for codec in problem.all_codecs
    )
    if problem.actions == "split_and_codec":
        return f"; hidden states as {first} or {' or '.join(others)}, as is best"
    beside = f"; beside it {', '.join(others)}" if others else ""
    return f"; hidden states as {first}{beside}"


def _objective_phrase(problem: ProblemConfig) -> str:
    weight = f"λ = {problem.cost_weight:g}"
    if problem.reward == "authors":
        return (
            "maximises 10 g + the share of layers that the phone is spared, where g is the "
            "perplexity's relative fall below that of the smallest split point"
        )
    if problem.reward == "budget":
        terms = (
            f"{problem.percent_per_second:g} % a second until the first token",
            f"{problem.percent_per_joule:g} % a joule of the phone",
            f"{problem.percent_per_miss:g} % a missed deadline",
        )
        weighed = ", ".join(
            term
            for term, weight in zip(terms, problem.budget_weights.values(), strict=True)
            if weight
        )
        return f"minimises PPL / clean PPL, to which it adds {weighed}"
    if problem.raw:
        return f"minimises PPL + λ · (the phone's computation as Eq. 2 has it), {weight}"
    return f"minimises PPL / clean PPL + λ · (the phone's share of the computation), {weight}"


def _settings_measured(folder: RunFolder, card_sha256: str) -> tuple[int, int]:
    """Settings that were measured under this protocol card, and how many gave no value."""
    with Ledger(ledger_path(folder)) as ledger:
        status = Counter(row.status for row in ledger.rows(card_sha256).values())
    return status["done"], status.total() - status["done"]


def _flat(card: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    out: dict[str, str] = {}
    for key, value in card.items():
        if isinstance(value, dict):
            out |= _flat(cast("dict[str, Any]", value), f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = f"{value:.6g}" if isinstance(value, float) else str(value)
    return out


def _seconds(folder: RunFolder) -> dict[str, float]:
    stages = ("measure", "fit", "train", "evaluate")
    records = {stage: folder.stage_record(stage) for stage in stages}
    return {stage: record["seconds"] for stage, record in records.items() if record}
