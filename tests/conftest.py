"""Fixtures shared by all tests, and their order."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

# Some libraries read these when they are first imported, so they are set before any test module.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Tests run in two processes: threads of one would wait for those of the other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bring the files that take long to the front: what is left for the end is short."""
    long = Counter(
        item.path
        for item in items
        if not item.get_closest_marker("thorough")
        and (item.get_closest_marker("ray") or item.get_closest_marker("slow"))
    )
    items.sort(key=lambda item: -long[item.path])  # the order within a file stays


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache folder of the session's own, here and in the commands that tests start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYSPLIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of the embedded model, as small as can be; for copies only."""
    from tests.finished_run import finish

    folder = tmp_path_factory.mktemp("finished") / "run"
    finish(folder)
    return folder


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One local Ray for the whole session, with two GPUs that are not there: to share out."""
    import ray

    ray.init(address="local", num_cpus=2, num_gpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
