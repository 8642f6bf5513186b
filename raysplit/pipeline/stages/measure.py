"""Stage 1: measure the perplexity of the plan's settings."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from raysplit.base.errors import UserError
from raysplit.base.progress import say
from raysplit.base.sealed_json import write_sealed
from raysplit.measure.service import as_table
from raysplit.measure.shards.reference import CleanReference
from raysplit.pipeline.active import measure_actively, write_choices
from raysplit.pipeline.problem import PROTOCOL_CARD, measuring_service
from raysplit.pipeline.run_folder import RunFolder
from raysplit.pipeline.tracked import tracker_of


def run(folder: RunFolder) -> list[Path]:
    """Measure and export: measurements.parquet, protocol_card.json; what an active plan chose."""
    experiment = folder.experiment
    outputs: list[Path] = []
    with measuring_service(folder) as service:
        if service.sentence_use is not None:
            say(f"{'text':<10}", "", f" {service.sentence_use.describe()}")
        if experiment.plan.kind == "active":
            rows, steps = measure_actively(experiment, service)
            outputs.append(write_choices(folder, steps))
        else:
            rows = service.measure(experiment.planned_settings())
        reference = service.reference()
        card: dict[str, Any] = (
            service.card
            | _findings(reference, service.tokens_per_sequence)
            | {"card_sha256": service.card_sha256}
        )
    status = Counter(row.status for row in rows.values())
    for row in rows.values():
        if row.status != "done":
            say(row.status, "yellow", f" {row.setting}: {row.reason}")
    if not status["done"]:
        raise UserError("no setting could be measured; the reasons stand above and in the ledger")
    table_path = folder.path / "measurements.parquet"
    problem = experiment.problem
    names = tuple(experiment.measured_ranges())
    table = as_table(rows, names, reference.corpus.log_ppl, problem.all_codecs)
    table.to_parquet(table_path)
    card_path = folder.path / PROTOCOL_CARD
    write_sealed(card_path, card)
    with tracker_of(folder, "measure") as tracker:
        counts = {name: float(status[name]) for name in ("done", "invalid", "quarantined")}
        tracker.log_metrics({**counts, "clean_log_ppl": reference.corpus.log_ppl}, step=0)
        tracker.log_artifact(table_path, name="measurements", kind="dataset")
    return [table_path, card_path, *outputs]


def _findings(reference: CleanReference, tokens_per_sequence: float) -> dict[str, Any]:
    """What the clean pass found; not part of any key, but needed to read the numbers."""
    first = reference.first_split_point
    return {
        "clean_log_ppl": reference.corpus.log_ppl,
        "tokens_per_sequence": round(tokens_per_sequence, 2),
        "signal_rms": {str(first + i): round(float(v), 4) for i, v in enumerate(reference.rms_P)},
    }
