"""Run all checks at once, print them as one table and say how it stands."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from raysplit.doctor import machine
from raysplit.doctor.check import Check, named
from raysplit.doctor.cluster_file import check_cluster_file

_STYLES = {"ok": "green", "warning": "yellow", "error": "bold red"}


def doctor(
    cluster_files: Sequence[Path] | None = None,
    run_root: Path = Path("runs"),
    *,
    as_json: bool = False,
) -> int:
    """Print the table of all checks; return the exit code: 1 if one is an error, else 0.

    Args:
        cluster_files: Files of `ray up` to check; None for cluster*.yaml of the current folder.
        run_root: The folder that takes run folders.
        as_json: Print a JSON list of the checks instead.
    """
    files = sorted(Path().glob("cluster*.yaml")) if cluster_files is None else cluster_files
    checks = run_checks(files, run_root)
    if as_json:
        print(json.dumps([asdict(check) for check in checks], indent=2))
    else:
        # A file or pipe, which may be searched line by line, wraps nothing.
        print_table(checks, Console(width=None if sys.stdout.isatty() else 1000))
    return int(any(check.status == "error" for check in checks))


def run_checks(cluster_files: Sequence[Path] = (), run_root: Path = Path("runs")) -> list[Check]:
    """Return the rows of all checks, in a fixed order; arguments as `doctor` has them."""
    pins = Path(__file__).resolve().parents[2] / "constraints.txt"  # of the checkout
    ray_version = machine.pinned_ray_version(machine.read_constraints(pins))
    # A new check of this machine is a function that returns `ok`, `warning` or `error`, and a row.
    rows: dict[str, Callable[[], Check | Iterable[Check]]] = {
        "packages": machine.check_packages,
        "versions": lambda: machine.check_versions(pins),
        "GPUs": lambda: machine.check_gpus(machine.installed_version("torch")),
        "disk: run folder": lambda: machine.check_disk(run_root, needed_gib=5),
        "disk: Ray's folder": machine.check_ray_folder,
        "shared memory": machine.check_shared_memory,
        "Ray's ports": machine.check_ports,
        "Ray's token": machine.check_token,
        "imported models": machine.check_models,
        "Hugging Face": machine.check_hub,
        "W&B": lambda: machine.check_tracking(run_root),
        # One row for all files: Ray's validator prints, and its output is caught by process.
        "cluster files": lambda: [
            row for file in cluster_files for row in check_cluster_file(file, ray_version)
        ],
    }
    with ThreadPoolExecutor(len(rows)) as pool:
        running = {name: pool.submit(check) for name, check in rows.items()}
    return [row for name, checks in running.items() for row in named(name, checks.result())]


def print_table(checks: Sequence[Check], console: Console) -> None:
    """Print one line a check, then how many there are of each status."""
    table = Table(box=box.SIMPLE_HEAD, header_style="bold")
    for column in ("check", "status", "found", "remedy"):
        table.add_column(column, overflow="fold", no_wrap=column == "status")
    for check in checks:
        # Text, not markup: details quote YAML and paths, whose brackets are not styles.
        status = Text(check.status, style=_STYLES[check.status])
        table.add_row(Text(check.name), status, Text(check.detail), Text(check.remedy))
    console.print(table)
    counts = {status: sum(c.status == status for c in checks) for status in _STYLES}
    console.print(", ".join(f"{count} {status}" for status, count in counts.items()))
