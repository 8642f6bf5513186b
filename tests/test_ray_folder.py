"""What is known to keep a Ray from starting, or a cluster from answering, is said in one line."""

import os
import socket
import tempfile
import time
from pathlib import Path

import pytest

from raysplit.base.errors import UserError
from raysplit.base.ray_folder import fault_of, ray_folder
from raysplit.doctor import machine
from raysplit.measure.config import BackendConfig
from raysplit.measure.on_ray import session
from raysplit.measure.on_ray.token import give_token_without_home
from tests.closed_folder import forbid


@pytest.fixture(autouse=True)
def _no_ray_of_another_test(monkeypatch):
    monkeypatch.setattr(session.ray, "is_initialized", lambda: False)


def folder_of_bytes(count):
    return Path("/" + "x" * (count - 5) + "/ray")


def test_a_folder_too_long_for_sockets_is_refused_to_the_byte():
    # Ray: "/session_2026-11-29_20-25-44_374350_1773345/sockets/plasma_store" must end at byte 107.
    spare = 107 - len("/session_2026-11-29_20-25-44_374350_1773345/sockets/plasma_store")
    assert "too long" not in (fault_of(folder_of_bytes(spare)) or "")
    assert "1 byte(s) too long" in fault_of(folder_of_bytes(spare + 1))


def test_a_folder_of_another_user_and_closed_shared_memory_are_refused(monkeypatch):
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        there, folder = Path(short), Path(short) / "ray"
        folder.mkdir()
        assert fault_of(folder, there) is None
        assert fault_of(folder, there / "no such folder") is None
        forbid(monkeypatch, folder)
        assert f"Ray's folder {folder} cannot be written" in fault_of(folder, there)
        assert f"{folder}, where Ray keeps objects, cannot be" in fault_of(there / "other", folder)


def test_ray_and_the_doctor_refuse_it(monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / ("x" * 90)))
    assert ray_folder() == tmp_path / ("x" * 90) / "ray"
    with pytest.raises(UserError, match="too long for the paths of its sockets: set RAY_TMPDIR"):
        session.start_ray(BackendConfig())
    found = machine.check_ray_folder()
    assert (found.status, found.remedy[:14]) == ("error", "set RAY_TMPDIR")


@pytest.mark.parametrize("address", ["127.0.0.1:PORT", "ray://localhost:PORT"])
def test_a_cluster_that_does_not_answer_is_named_at_once(address):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = address.replace("PORT", str(unused.getsockname()[1]))
        started = time.monotonic()
        with pytest.raises(UserError, match=f"no Ray cluster answers at backend.address={address}"):
            session.start_ray(BackendConfig(address=address))
        assert time.monotonic() - started < 15


def test_who_listens_is_asked(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert session._answers(f"127.0.0.1:{server.getsockname()[1]}")
    assert session._answers("auto")
    assert not session._answers("127.0.0.1:99999999999")


def test_whatever_ends_rays_start_is_one_line(monkeypatch):
    def fail(**_):
        raise RuntimeError("The current node timed out during startup.\nAnd more.")

    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    monkeypatch.setattr(session.ray, "init", fail)
    with pytest.raises(UserError, match=r"could not be started .RuntimeError: The current node"):
        session.start_ray(BackendConfig())


@pytest.fixture
def no_token(monkeypatch):
    monkeypatch.setattr(os, "environ", dict(os.environ))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        os.environ.pop(name, None)


def test_a_home_that_keeps_no_token_gives_the_process_one(no_token, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    given = set()
    for home in ("/proc/none", file, file / "below"):
        os.environ["HOME"] = str(home)
        give_token_without_home()
        given.add(os.environ.pop("RAY_AUTH_TOKEN"))
    assert len(given) == 3
    assert all(len(token) == 64 for token in given)


def test_a_home_that_keeps_a_token_is_left_to_ray(no_token, tmp_path):
    os.environ["HOME"] = str(tmp_path)
    give_token_without_home()  # Ray will make one there
    assert "RAY_AUTH_TOKEN" not in os.environ
    os.environ["HOME"] = "/proc/none"
    for name, value in (("RAY_AUTH_MODE", "disabled"), ("RAY_AUTH_TOKEN_PATH", "/token")):
        os.environ[name] = value
        give_token_without_home()
        assert "RAY_AUTH_TOKEN" not in os.environ
        del os.environ[name]
