"""`model.dtype: auto`: the faster format that the device really has, decided once."""

import pytest
import torch

from raysplit.model import precision
from raysplit.model.precision import bfloat16_speedup, resolve_dtype


@pytest.fixture
def cpu(monkeypatch):
    """Say what the CPU can do and how much faster bfloat16 is."""

    def is_(has_it, speedup):
        monkeypatch.setattr(precision, "_cpu_multiplies_it", lambda: has_it)
        monkeypatch.setattr(precision, "bfloat16_speedup", lambda: speedup)

    return is_


@pytest.mark.parametrize("asked", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_format_that_is_named_is_taken(asked, device, cpu):
    cpu(True, 6.0)
    assert resolve_dtype(asked, device) == asked


@pytest.mark.parametrize(
    ("has_it", "speedup", "expected"),
    [(True, 5.0, "bfloat16"), (True, 1.1, "float32"), (False, 5.0, "float32")],
)
def test_a_cpu_takes_bfloat16_where_it_has_it_and_gains_by_it(
    has_it, speedup, expected, cpu, capsys
):
    cpu(has_it, speedup)
    assert resolve_dtype("auto", "cpu") == expected
    assert f"auto is {expected}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("available", "capability", "expected"),
    [(True, (9, 0), "bfloat16"), (True, (7, 5), "float32"), (False, None, "bfloat16")],
)
def test_a_gpu_takes_bfloat16_unless_it_is_too_old(available, capability, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert resolve_dtype("auto", "cuda") == expected


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("fma avx2 amx_bf16", True), ("fp asimd bf16", True), ("avx2 avx512f", False), (None, False)],
)
def test_a_cpus_features_are_read(flags, expected, tmp_path):
    if flags is not None:
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    assert precision._cpu_multiplies_it(tmp_path / "cpuinfo") == expected


def test_the_trial_gives_one_answer_in_a_process():
    assert bfloat16_speedup() == bfloat16_speedup() > 0.0
