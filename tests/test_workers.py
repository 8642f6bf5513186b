"""Workers that outlive a service: one backend for all stages of a command."""

import pytest

from raysplit.measure import workers
from raysplit.pipeline.experiment import load_experiment
from raysplit.pipeline.problem import measuring_service
from raysplit.pipeline.run import run_stages
from raysplit.pipeline.run_folder import RunFolder
from tests.commands import SMALL


def small(*changes):
    return load_experiment("demo", [word.removeprefix("--set=") for word in SMALL] + [*changes])


@pytest.fixture
def opened(monkeypatch):
    """The backends that were opened, each with whether it is still open."""
    backends = []
    open_ = workers._open_backend

    def counted(job, config):
        backend = open_(job, config)
        close = backend.close

        def closing():
            backend.is_open = False
            close()

        backend.close, backend.is_open = closing, True
        backends.append(backend)
        return backend

    monkeypatch.setattr(workers, "_open_backend", counted)
    return backends


STAGES = ("measure", "fit", "train", "evaluate")


@pytest.mark.slow
def test_the_stages_of_a_command_measure_with_the_same_workers(tmp_path, opened):
    """And what those kept of one stage is not taken for what another asks."""
    run_stages(small(), tmp_path / "together", STAGES)
    assert [backend.is_open for backend in opened] == [False]
    for stage in STAGES:
        run_stages(small(), tmp_path / "apart", (stage,))
    assert [backend.is_open for backend in opened] == [False] * 3
    for name in ("measurements.parquet", "evaluation.parquet"):
        found = [(tmp_path / run / name).read_bytes() for run in ("together", "apart")]
        assert found[0] == found[1]


def test_remote_runners_get_the_cores_that_idle_workers_hold(tmp_path, opened, monkeypatch):
    from raysplit.pipeline.stages import train

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "measured_problem", lambda folder: (None, None))
    monkeypatch.setattr(train, "_remove_agents_of_another_surrogate", lambda *_: None)
    monkeypatch.setattr(train, "_judge", stop)
    for runners, is_open in ((0, True), (1, False)):
        chosen = small(f"agents.ppo.num_env_runners={runners}", "corpus.max_sentences=16")
        with RunFolder.open(tmp_path / str(runners), chosen) as folder:
            with measuring_service(folder) as service:
                service.reference()
            with pytest.raises(KeyboardInterrupt):
                train.run(folder)
            assert opened[-1].is_open == is_open
        assert not opened[-1].is_open


def test_another_job_opens_others(tmp_path, opened):
    with RunFolder.open(tmp_path, small("corpus.max_sentences=16")) as folder:
        for last in (4, 4, 5):
            chosen = small("corpus.max_sentences=16", f"problem.max_split_point={last}")
            with measuring_service(RunFolder(folder.path, chosen, folder.workers)) as service:
                service.reference()
        assert [backend.is_open for backend in opened] == [False, True]
