"""In its users' hands: damaged run folders, pickles, readers, lm-eval, the report's panel.

Nothing here is a speed: what is counted must not happen, or must have been tried often enough.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections import Counter
from pathlib import Path

from bench.report import BenchReport, Options
from tests.corruption import corrupt
from tests.explorer_page import report_difference, why_not
from tests.finished_run import finish, finish_sweep
from tests.pickles import pickles_in
from tests.reader_properties import check_examples, readers

_TARGETS = {
    "silent_changes": ("<=", 0.0),
    "corruption_tracebacks": ("<=", 0.0),
    "pickles": ("<=", 0.0),
    "property_examples": (">=", 2000.0),
    "lm_eval_difference": ("<=", 1e-6),
    "lm_eval_batch_difference": ("<=", 0.0),
    "report_difference": ("<=", 1e-9),
}


def run(options: Options) -> BenchReport:
    """Damage a run, look for pickles, try the readers, compare with lm-eval and with a browser."""
    mutations, examples, draws = (4, 40, 3) if options.quick else (200, 2000, 100)
    config = {
        "mutations": mutations,
        "examples_a_reader": examples,
        "positions_a_report": draws,
        "quick": options.quick,
    }
    report = BenchReport("users", _TARGETS, config)
    with tempfile.TemporaryDirectory() as folder:
        _damage(report, Path(folder), mutations)
        report.add({"property_examples": min(_examples(Path(folder), examples).values())})
        if reason := why_not():
            report.skip("report_difference", reason)
        else:
            report.add({"report_difference": report_difference(folder, draws)})
    if importlib.util.find_spec("lm_eval"):
        from bench.lm_eval import exactness

        report.add(exactness())
    else:
        for name in ("lm_eval_difference", "lm_eval_batch_difference"):
            report.skip(name, "needs lm-eval: pip install 'raysplit[lm-eval]'")
    return report


def _damage(report: BenchReport, folder: Path, mutations: int) -> None:
    run, copies = folder / "run", folder / "copies"
    copies.mkdir()
    finish(run)
    outcomes = Counter[str]()
    for one in corrupt(run, copies, mutations):
        outcomes[one.outcome] += 1
        if one.outcome in {"silent", "traceback"}:
            print(f"{one.name} ({one.kind}): {one.outcome}: {one.said}", flush=True)
    finish_sweep(run)
    report.add(
        {
            "mutations": outcomes.total(),
            "mutations_told": outcomes["told"],
            "mutations_made_good": outcomes["made good"],
            "silent_changes": outcomes["silent"],
            "corruption_tracebacks": outcomes["traceback"],
            "pickles": len(pickles_in(run)),
        }
    )


def _examples(folder: Path, examples: int) -> dict[str, int]:
    """Return how many contents each reader was given; one that reads wrongly raises."""
    found: dict[str, int] = {}
    for name in readers(folder):
        home = folder / f"reader {name}"
        home.mkdir()
        found[name] = check_examples(readers(home)[name], home, examples)
    return found
