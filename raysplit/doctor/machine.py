"""This machine: software, GPUs, disk, shared memory, Ray's ports and token, servers in reach."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import socket
import stat
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from raysplit.base.cache_folder import cache_folder
from raysplit.base.files import at_home, nearest_existing
from raysplit.base.offline_runs import sync_all_command
from raysplit.base.packages import package_homes
from raysplit.base.ray_folder import fault_of, ray_folder
from raysplit.doctor.check import Check, error, named, ok, warning
from raysplit.model.cache import imported_models

GIB = 1024**3
# What a head opens: the cluster's store, the dashboard and jobs, and Ray Client.
RAY_PORTS = {6379: "cluster", 8265: "dashboard and jobs", 10001: "Ray Client"}
_NVIDIA_SMI = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
# By name: the variable that says offline, the one with the address, its default.
_SERVERS = {
    "Hugging Face": ("HF_HUB_OFFLINE", "HF_ENDPOINT", "https://huggingface.co"),
    "W&B": ("WANDB_MODE", "WANDB_BASE_URL", "https://api.wandb.ai"),
}
_OFFLINE_VALUES = {"1", "true", "yes", "on", "offline", "disabled", "dryrun"}


def check_packages() -> Check:
    """Return whether raysplit, envs and tuning are one project and not a stranger's `envs`."""
    homes = package_homes()
    if None not in homes.values() and len(set(homes.values())) == 1:
        return ok(f"raysplit, envs and tuning lie in {homes['raysplit']}")
    listed = ", ".join(f"{name} in {home or 'none'}" for name, home in homes.items())
    remedy = "uninstall the foreign package, or run in the project's folder"
    return error(f"not from one project: {listed}", remedy)


def check_versions(path: Path) -> list[Check]:
    """Return one row for each installed distribution that differs from its constraint."""
    constraints = read_constraints(path)
    if not constraints:
        remedy = "work in a checkout of the project, or pass on its constraints.txt"
        return [warning(f"{path} is missing or empty: nothing to compare with", remedy)]
    installed = {name: version for name in constraints if (version := installed_version(name))}
    differing: list[Check] = []
    for name, version in installed.items():
        pin = constraints[name].specifier
        finding = error if name == "ray" else warning  # nodes of a cluster refuse another Ray
        if not pin.contains(version, prereleases=True):
            fault = f"{version} is installed, {pin} is pinned"
            found = finding(fault, shlex.join(["pip", "install", "-c", str(path), f"{name}{pin}"]))
            differing += named(f"version: {name}", found)
    return differing or [ok(f"{len(installed)} installed packages match {path.name}")]


def installed_version(distribution: str) -> str:
    """Return the installed version, or "" where the distribution is absent."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def read_constraints(path: Path) -> dict[str, Requirement]:
    """Return the requirements that apply to this interpreter, by name; {} for a missing file."""
    requirements: dict[str, Requirement] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            requirement = Requirement(line.partition(" #")[0].strip())
        except InvalidRequirement:  # comments, blank lines, pip options
            continue
        if requirement.marker is None or requirement.marker.evaluate():
            requirements[requirement.name] = requirement
    return requirements


def pinned_ray_version(constraints: dict[str, Requirement]) -> str:
    """Return the Ray that cluster images must have: the pinned one, else the installed one."""
    pins = [s.version for s in constraints["ray"].specifier] if "ray" in constraints else []
    return pins[0] if pins else installed_version("ray")


def check_gpus(torch_version: str, command: Sequence[str] = _NVIDIA_SMI) -> Check:
    """Return what GPUs `command` lists, and whether torch, e.g. "2.13.0+cpu", could use them."""
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=4, check=False)
    except OSError:
        return warning("none: models run on the CPU", "fine for the demo; else add a GPU")
    except subprocess.TimeoutExpired:
        return warning("nvidia-smi takes more than 4 s", "start nvidia-persistenced")
    gpus = [line.strip() for line in listed.stdout.splitlines() if line.strip()]
    if listed.returncode or not gpus:
        said = " ".join((listed.stderr or listed.stdout).split())[:120]
        return error(f"nvidia-smi fails: {said}", "reinstall the driver, or reboot")
    detail = f"{len(gpus)}: {'; '.join(sorted(set(gpus)))}"
    if torch_version.endswith("+cpu"):
        fault = f"{detail}; but torch {torch_version} is built without CUDA"
        return error(fault, "install torch's CUDA build of the same version")
    return ok(detail)


def check_disk(folder: Path, needed_gib: float) -> Check:
    """Return whether the folder can be written and has room; it need not exist yet."""
    place = nearest_existing(at_home(folder).absolute())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        return error(f"{place} cannot be written", "choose another folder, or chown")
    usage = shutil.disk_usage(place)
    free_gib = usage.free / GIB
    detail, remedy = f"{free_gib:.1f} GiB free in {place}", f"free space in {place}"
    if free_gib < needed_gib:
        finding = error if free_gib < needed_gib / 10 else warning
        return finding(f"{detail}; {needed_gib:g} GiB wanted", remedy)
    if usage.free < 0.05 * usage.total:
        return warning(f"{detail}, under 5 %: Ray stops spilling", remedy)
    return ok(detail)


def check_ray_folder() -> Check:
    """Return whether a Ray can start here: its folder, and the disk below it."""
    fault = fault_of(ray_folder())
    if fault is not None:
        found, _, remedy = fault.partition(": ")
        return error(found, remedy)
    return check_disk(ray_folder(), needed_gib=10)


def check_shared_memory(folder: Path = Path("/dev/shm")) -> Check:
    """Return whether Ray's object store (30 % of the memory by default) fits into /dev/shm."""
    if not folder.is_dir():
        return ok(f"{folder} is not used on this system")
    free = shutil.disk_usage(folder).free
    wanted = 0.3 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    detail = f"{free / GIB:.1f} GiB free in {folder}, Ray's object store takes {wanted / GIB:.1f}"
    if free < wanted:
        remedy = "start the container with --shm-size, or set object_store_memory lower"
        return warning(f"{detail}: it falls back to the disk and crawls", remedy)
    return ok(detail)


def check_ports(ports: Mapping[int, str] = RAY_PORTS) -> Check:
    """Return whether the ports of a Ray head are free on every interface of this machine."""
    taken = [f"{port} ({use})" for port, use in ports.items() if not _is_free(port)]
    if taken:
        remedy = (
            "`ray status` tells whether it is a Ray; join it (backend.address: auto), or stop it"
        )
        return warning(f"in use: {', '.join(taken)}", remedy)
    return ok(f"{', '.join(map(str, ports))} are free")


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Without it a port of a connection that has just been closed counts as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as reason:
            return reason.errno not in (errno.EADDRINUSE, errno.EACCES)
    return True


def check_token(path: Path | None = None) -> Check:
    """Return whether Ray's token exists and only its owner may read it; never its value."""
    if path is None and os.environ.get("RAY_AUTH_TOKEN"):
        return ok("given by RAY_AUTH_TOKEN")
    token = path or at_home(Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token"))
    if not os.path.isfile(token) or token.stat().st_size == 0:
        remedy = "`ray get-auth-token --generate > /dev/null`, or copy the cluster's token"
        return warning(f"{token} is missing or empty: a cluster cannot be joined", remedy)
    mode = stat.S_IMODE(token.stat().st_mode)
    if mode & 0o077:
        fault = f"{token} has mode {mode:o}: others on this machine may run code on the cluster"
        return warning(fault, shlex.join(["chmod", "600", str(token)]))
    return ok(f"{token}, mode {mode:o}")


def check_models() -> Check:
    """Return which imported models lie on this machine, and where."""
    names = imported_models()
    found = f"{len(names)} ({', '.join(names)})" if names else "none (see `raysplit import --help`)"
    return ok(f"{found} in {cache_folder()}")


def check_hub(timeout_s: float = 2.0) -> Check:
    """Return whether the hub answers, unless the user wants to work offline; it is not needed."""
    return _check_server(
        "Hugging Face", "the embedded model works; else use a local folder", timeout_s
    )


def check_tracking(run_root: Path, timeout_s: float = 2.0) -> Check:
    """Return the same of W&B; the remedy sends what the runs in a folder kept offline."""
    remedy = f"runs are kept offline; send them later: {sync_all_command(run_root)}"
    return _check_server("W&B", remedy, timeout_s)


def _check_server(name: str, remedy: str, timeout_s: float) -> Check:
    offline, variable, default = _SERVERS[name]
    if os.environ.get(offline, "").lower() in _OFFLINE_VALUES:
        return ok(f"offline by {offline}")
    url = os.environ.get(variable, default)
    problem = within(timeout_s, lambda: _request_problem(url, timeout_s))
    if problem is None:
        return warning(f"{url} gave no answer in {timeout_s:g} s", remedy)
    return (
        warning(f"{url} is out of reach ({problem})", remedy) if problem else ok(f"{url} answers")
    )


def _request_problem(url: str, timeout_s: float) -> str:
    """Return why the server cannot be reached, or ""; a refusal (4xx) is an answer."""
    try:
        request = urllib.request.Request(url, method="HEAD")
        urllib.request.urlopen(request, timeout=timeout_s).close()
    except urllib.error.HTTPError as answer:
        return f"status {answer.code}" if answer.code >= 500 else ""
    except (OSError, ValueError) as reason:
        return str(getattr(reason, "reason", reason))[:100]
    return ""


def within(timeout_s: float, work: Callable[[], str]) -> str | None:
    """Return what `work` returns, or None after the timeout, which a name look-up has not."""
    results: list[str] = []
    # A daemon, which is left behind: it does not hold up the end of the process.
    thread = threading.Thread(target=lambda: results.append(work()), daemon=True)
    thread.start()
    thread.join(timeout_s)
    return results[0] if results else None
