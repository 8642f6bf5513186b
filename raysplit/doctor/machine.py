"""This machine: GPUs, disk, shared memory, Ray's ports and token."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
import subprocess
from pathlib import Path

from raysplit.doctor.check import Check
from raysplit.model.cache import cache_folder, imported_models

GIB = 1024**3
# What a head opens: the cluster's store, the dashboard and jobs, and Ray Client.
RAY_PORTS = {6379: "cluster", 8265: "dashboard and jobs", 10001: "Ray Client"}
_NVIDIA_SMI = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]


def check_gpus(torch_version: str, command: list[str] | None = None) -> Check:
    """Return what GPUs there are, and whether the installed torch could use them.

    Args:
        torch_version: The installed version with its local part, e.g. "2.13.0+cpu"; "" for none.
        command: What lists the GPUs, one line each (nvidia-smi).
    """
    try:
        listed = subprocess.run(
            command or _NVIDIA_SMI, capture_output=True, text=True, timeout=4, check=False
        )
    except OSError:
        return Check(
            "GPUs", "warning", "none: models run on the CPU", "fine for the demo; else add a GPU"
        )
    except subprocess.TimeoutExpired:
        return Check(
            "GPUs", "warning", "nvidia-smi takes more than 4 s", "start nvidia-persistenced"
        )
    gpus = [line.strip() for line in listed.stdout.splitlines() if line.strip()]
    if listed.returncode or not gpus:
        said = " ".join((listed.stderr or listed.stdout).split())[:120]
        return Check(
            "GPUs", "error", f"nvidia-smi fails: {said}", "reinstall the driver, or reboot"
        )
    detail = f"{len(gpus)}: {'; '.join(sorted(set(gpus)))}"
    if torch_version.endswith("+cpu"):
        return Check(
            "GPUs",
            "error",
            f"{detail}; but torch {torch_version} is built without CUDA",
            "install torch's CUDA build of the same version",
        )
    return Check("GPUs", "ok", detail)


def check_disk(name: str, folder: Path, needed_gib: float) -> Check:
    """Return whether the folder can be written and has room; it need not exist yet."""
    place = folder.expanduser().absolute()
    while not place.exists():
        place = place.parent
    title = f"disk: {name}"
    if not place.is_dir() or not os.access(place, os.W_OK):
        return Check(
            title, "error", f"{place} cannot be written", "choose another folder, or chown"
        )
    usage = shutil.disk_usage(place)
    free_gib = usage.free / GIB
    detail = f"{free_gib:.1f} GiB free in {place}"
    if free_gib < needed_gib:
        status = "error" if free_gib < needed_gib / 10 else "warning"
        return Check(
            title, status, f"{detail}; {needed_gib:g} GiB wanted", f"free space in {place}"
        )
    if usage.free < 0.05 * usage.total:
        return Check(
            title, "warning", f"{detail}, under 5 %: Ray stops spilling", f"free space in {place}"
        )
    return Check(title, "ok", detail)


def ray_folder() -> Path:
    """Return where Ray puts logs and spilled objects, by Ray's own order of variables."""
    return Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp") / "ray"


def check_shared_memory(folder: Path = Path("/dev/shm")) -> Check:
    """Return whether Ray's object store (30 % of the memory by default) fits into /dev/shm."""
    title = "shared memory"
    if not folder.is_dir():
        return Check(title, "ok", f"{folder} is not used on this system")
    free = shutil.disk_usage(folder).free
    wanted = 0.3 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    detail = f"{free / GIB:.1f} GiB free in {folder}, Ray's object store takes {wanted / GIB:.1f}"
    if free < wanted:
        return Check(
            title,
            "warning",
            f"{detail}: it falls back to the disk and crawls",
            "start the container with --shm-size, or set object_store_memory lower",
        )
    return Check(title, "ok", detail)


def check_ports(ports: dict[int, str] | None = None) -> Check:
    """Return whether the ports of a Ray head are free on every interface of this machine."""
    wanted = ports if ports is not None else RAY_PORTS
    taken = [f"{port} ({use})" for port, use in wanted.items() if not _is_free(port)]
    if taken:
        return Check(
            "Ray's ports",
            "warning",
            f"in use: {', '.join(taken)}",
            "`ray status` tells whether it is a Ray; join it (backend.address: auto), or stop it",
        )
    return Check("Ray's ports", "ok", f"{', '.join(map(str, wanted))} are free")


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Without it a port of a connection that has just been closed counts as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as reason:
            return reason.errno not in (errno.EADDRINUSE, errno.EACCES)
    return True


def check_models() -> Check:
    """Return which imported models lie on this machine, and where."""
    names = imported_models()
    found = f"{len(names)} ({', '.join(names)})" if names else "none (see `raysplit import --help`)"
    return Check("imported models", "ok", f"{found} in {cache_folder()}")


def check_token(path: Path | None = None) -> Check:
    """Return whether Ray's token exists and only its owner may read it; never its value."""
    given = os.environ.get("RAY_AUTH_TOKEN_PATH")
    token = path or Path(given or "~/.ray/auth_token").expanduser()
    if path is None and os.environ.get("RAY_AUTH_TOKEN"):
        return Check("Ray's token", "ok", "given by RAY_AUTH_TOKEN")
    if not token.is_file() or token.stat().st_size == 0:
        return Check(
            "Ray's token",
            "warning",
            f"{token} is missing or empty: a cluster cannot be joined",
            "`ray get-auth-token --generate > /dev/null`, or copy the cluster's token",
        )
    mode = stat.S_IMODE(token.stat().st_mode)
    if mode & 0o077:
        return Check(
            "Ray's token",
            "warning",
            f"{token} has mode {mode:o}: others on this machine may run code on the cluster",
            f"chmod 600 {token}",
        )
    return Check("Ray's token", "ok", f"{token}, mode {mode:o}")
