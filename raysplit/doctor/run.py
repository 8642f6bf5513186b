"""Run all checks at once and say how it stands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from raysplit.doctor import machine, reach, software
from raysplit.doctor.check import Check
from raysplit.doctor.cluster_file import check_cluster_file
from raysplit.doctor.table import print_table, table_console

_NETWORK_TIMEOUT_S = 2.0
_RUN_FOLDER_GIB = 5.0
_RAY_FOLDER_GIB = 10.0


def doctor(cluster_files: Sequence[Path] | None = None, run_root: Path = Path("runs")) -> int:
    """Print the table of all checks.

    Args:
        cluster_files: Files of `ray up` to check; None for cluster*.yaml of the current folder.
        run_root: The folder that takes run folders.

    Returns:
        The exit code: 1 if a check is an error, else 0.
    """
    files = sorted(Path().glob("cluster*.yaml")) if cluster_files is None else cluster_files
    checks = run_checks(files, run_root)
    print_table(checks, table_console())
    return int(any(check.status == "error" for check in checks))


def run_checks(
    cluster_files: Sequence[Path] = (),
    run_root: Path = Path("runs"),
    constraints: Path | None = None,
) -> list[Check]:
    """Return the rows of all checks, in a fixed order; takes a few seconds at most.

    Args:
        cluster_files: Files of `ray up` to check besides this machine.
        run_root: The folder that takes run folders; need not exist.
        constraints: The pinned versions; constraints.txt of the checkout by default.
    """
    pins = constraints or software.constraints_file()
    ray_version = software.pinned_ray_version(software.read_constraints(pins))
    tasks: list[Callable[[], list[Check]]] = [
        lambda: [software.check_packages()],
        lambda: software.check_versions(pins),
        lambda: [machine.check_gpus(software.installed_version("torch"))],
        lambda: [
            machine.check_disk("run folder", run_root, _RUN_FOLDER_GIB),
            machine.check_disk("Ray's folder", machine.ray_folder(), _RAY_FOLDER_GIB),
            machine.check_shared_memory(),
            machine.check_ports(),
            machine.check_token(),
            machine.check_models(),
        ],
        lambda: [reach.check_hugging_face(_NETWORK_TIMEOUT_S)],
        lambda: [reach.check_wandb(_NETWORK_TIMEOUT_S)],
        # One task for all files: Ray's validator prints, and its output is caught by process.
        lambda: [row for file in cluster_files for row in check_cluster_file(file, ray_version)],
    ]
    with ThreadPoolExecutor(len(tasks)) as pool:
        running = [pool.submit(task) for task in tasks]
        return [check for future in running for check in future.result()]
