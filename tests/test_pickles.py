"""The finder of pickles finds them wherever they hide, and nothing else."""

import base64
import gzip
import io
import json
import pickle
import random
import shutil
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from tests.finished_run import finish_sweep
from tests.pickles import pickles_in

VALUE = {"a": [1, 2.5, "text"], "b": np.zeros(2)}


def zipped(content):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner/file", content)
    return file.getvalue()


def tarred(content):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        member = tarfile.TarInfo("file")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def by_torch(_):
    file = io.BytesIO()
    torch.save({"weights": torch.zeros(2)}, file)
    return file.getvalue()


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_of_any_protocol_is_found(tmp_path, protocol):
    (tmp_path / "a.bin").write_bytes(pickle.dumps(VALUE, protocol))
    assert pickles_in(tmp_path) == ["a.bin"]


@pytest.mark.parametrize(
    "hide",
    [
        zipped,
        tarred,
        gzip.compress,
        lambda content: zipped(tarred(content)),
        by_torch,
        lambda content: b"a header of another format" + content + b" and more",
        lambda content: json.dumps({"_type": "FALLBACK", "value": content.hex()}).encode(),
        lambda content: json.dumps({"value": base64.b64encode(content).decode()}).encode(),
    ],
)
def test_a_hidden_pickle_is_found(tmp_path, hide):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/file").write_bytes(hide(pickle.dumps(VALUE)))
    found = pickles_in(tmp_path)
    assert found
    assert all(place.startswith("sub/file") for place in found)


def test_other_files_are_no_pickles(tmp_path):
    rng = random.Random(0)
    for name, content in {
        "table.csv": b"0.5,1\n2.0,3\n",
        "record.json": json.dumps({"a": [1, 2], "sha": "800495" * 4}).encode(),
        "noise": rng.randbytes(2_000_000),
        "weights.safetensors": save({"0": np.arange(9.0)}),
        "text.zip": zipped(b"nothing"),
        "empty": b"",
    }.items():
        (tmp_path / name).write_bytes(content)
    assert pickles_in(tmp_path) == []


@pytest.mark.slow
def test_a_run_its_checkpoints_and_a_sweep_leave_no_pickle(finished_run, tmp_path):
    """Who goes on with a stranger's folder runs nothing of theirs."""
    run = shutil.copytree(finished_run, tmp_path / "run")
    finish_sweep(run)
    checkpoints = [path for path in run.rglob("state.json") if "checkpoints" in path.parts]
    assert {path.relative_to(run).parts[0] for path in checkpoints} == {"agents", "sweep"}
    assert pickles_in(run) == []
