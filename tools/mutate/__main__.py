"""Would the tests notice wrong code? `python -m tools.mutate [MODULE ...] [--survivors]`.

Changes one thing in a module (another number, comparison, operator, argument, string, a dropped
`case`, ...: `changes.py`), runs the tests that execute the changed lines (`forks.py`), and counts
the changes that no test notices.

`equivalent_mutants.yaml` names the changes that leave behaviour as it is, with the reason. Writes
`bench/reports/mutants.json`.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from tools.mutate.changes import ROOT, mutants
from tools.mutate.forks import verdicts

REPORT = ROOT / "bench" / "reports" / "mutants.json"
EQUIVALENT = Path(__file__).with_name("equivalent_mutants.yaml")
_LINK = ("tests/test_link.py", "tests/test_fading.py")
_ENVS = ("tests/test_oracle.py", "tests/test_vector_env.py")
_PHYSICS = (*_ENVS, "tests/test_envs.py", "tests/test_integer_types.py")
_PLAN = ("tests/test_plan.py", "tests/test_axis.py", "tests/test_tables.py")
TARGETS = {  # module -> the tests that are about it
    **{f"raysplit.link.{name}": _LINK for name in ("channel", "config", "coordinates")},
    **{f"raysplit.link.{name}": _LINK for name in ("fading", "gains", "signal", "state")},
    "raysplit.perplexity.estimate": ("tests/test_estimate.py",),
    "raysplit.perplexity.nll": ("tests/test_perplexity.py",),
    "raysplit.measure.plan": _PLAN,
    "raysplit.link.axis": _PLAN,
    "envs.checks": _PHYSICS,
    "envs.dynamics": _PHYSICS,
    "envs.oracle": _ENVS,
}


def run_module(module: str, only: list[dict[str, Any]] | None) -> dict[str, Any]:
    """Return a module's entry in the report; with `only`, everything else counts as killed."""
    equivalent = [e for e in yaml.safe_load(EQUIVALENT.read_text()) if e["module"] == module]
    everything = mutants(module)
    todo = [m for m in everything if not m.is_in(equivalent) and (only is None or m.is_in(only))]
    found = dict(verdicts(module, todo, TARGETS[module]))
    left: list[dict[str, Any]] = []
    counts = Counter[str]()
    for mutant in everything:
        known = mutant.is_in(equivalent)
        verdict = "equivalent" if known else found.get(mutant, "killed")
        counts[verdict] += 1
        if verdict in ("survived", "equivalent"):
            entry = {"line": mutant.lines[0], "before": mutant.before, "after": mutant.after}
            left.append(entry | {"verdict": verdict} | ({"why": known["why"]} if known else {}))
    noticed, all_of_them = counts["killed"] + counts["timeout"], len(everything)
    return {
        "mutants": all_of_them,
        **{verdict: counts[verdict] for verdict in ("killed", "timeout", "survived", "equivalent")},
        "share": round(noticed / all_of_them, 4),
        "share_without_equivalent": round(noticed / (all_of_them - counts["equivalent"]), 4),
        "left": left,
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("modules", nargs="*", default=list(TARGETS))
    parser.add_argument("--survivors", action="store_true", help="run the report's survivors only")
    options = parser.parse_args()
    os.chdir(ROOT)
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    for module in options.modules:
        entries = json.loads(REPORT.read_text())["modules"] if REPORT.exists() else {}
        entries[module] = run_module(module, entries[module]["left"] if options.survivors else None)
        print(
            module,
            {k: v for k, v in entries[module].items() if k not in ("left", "commit")},
            flush=True,
        )
        commit = subprocess.check_output(["git", "rev-parse", "HEAD"], text=True).strip()
        entries[module] = {"commit": commit} | entries[module]
        report = {
            "operators": f"mutmut {importlib.metadata.version('mutmut')}",
            "python": platform.python_version(),
            "modules": {name: entries[name] for name in TARGETS if name in entries},
        }
        REPORT.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
