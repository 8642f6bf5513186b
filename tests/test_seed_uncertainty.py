"""What other random numbers of the link would change, and where anchors are taken."""

import numpy as np
import pytest

from raysplit.corpus.config import CorpusConfig
from raysplit.corpus.sequences import ProtocolConfig
from raysplit.link.config import LinkConfig
from raysplit.link.state import LinkState
from raysplit.measure.anchors import choose_anchors
from raysplit.measure.config import BackendConfig, MeasuringConfig
from raysplit.measure.ledger import Ledger
from raysplit.measure.prepare import prepare_job
from raysplit.measure.service import MeasuringService
from raysplit.measure.setting import Setting
from raysplit.model.config import ModelConfig
from raysplit.perplexity.anchored import seed_stderr
from raysplit.perplexity.estimate import CleanCorpus
from raysplit.pipeline.experiment import load_experiment
from raysplit.pipeline.problem import anchor_plan
from tests import fault_driver

RANGES = {"noise_std": (0.0, 1.0)}
WORST = Setting(1, LinkState(noise_std=1.0))


def test_it_is_what_the_corpus_varies_by_over_many_seeds():
    rng = np.random.default_rng(0)
    tokens_N = rng.integers(5, 60, 400)
    clean = CleanCorpus(3.0 * tokens_N, tokens_N)
    mean_N, spread_N = rng.gamma(3.0, 2.0, 400), rng.gamma(2.0, 1.0, 400)
    damages = mean_N + spread_N * rng.normal(size=(4000, 400))
    over_seeds = (clean.nll_N + damages).sum(axis=1) / tokens_N.sum()
    found = [
        seed_stderr(one[:256], other, clean)
        for one, other in zip(damages, damages[::-1], strict=True)
    ]
    assert np.sqrt(np.mean(np.square(found))) == pytest.approx(over_seeds.std(), rel=0.05)


def test_a_link_without_randomness_leaves_nothing_uncertain():
    tokens_N = np.array([4, 9, 7])
    assert seed_stderr(np.ones(3), np.ones(2), CleanCorpus(2.0 * tokens_N, tokens_N)) == 0.0


@pytest.fixture(scope="module")
def service_of(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    fault_driver.save_model(folder)

    def open_(path, *, anchored, target_stderr):
        job, card = prepare_job(
            model=ModelConfig(name=str(folder)),
            corpus=CorpusConfig(source="file", path=folder / "text.txt"),
            protocol=ProtocolConfig(context=24),
            link=LinkConfig(),
            measuring=MeasuringConfig(target_stderr=target_stderr),
            split_points=(1, 5),
            device="cpu",
            anchors=choose_anchors((1, 5), RANGES, 96) if anchored else None,
        )
        backend = BackendConfig(kind="inprocess")
        return MeasuringService(job, card, Ledger(path), backend)

    return open_


def test_the_service_tells_it_by_the_anchors(service_of, tmp_path):
    with service_of(tmp_path / "a", anchored=True, target_stderr=0.004) as service:
        found = service.seed_stderr((0, 7))
    whole = [Setting(WORST.split_point, WORST.link, seed) for seed in range(12)]
    with service_of(tmp_path / "b", anchored=False, target_stderr=0) as service:
        rows = service.measure(whole)
        assert service.seed_stderr((0, 7)) is None
    deviation = np.std([row.log_ppl for row in rows.values()], ddof=1)
    assert found is not None
    assert 0.5 < found / deviation < 2.0  # twelve seeds tell it within a factor of 1.5


@pytest.mark.parametrize(
    ("change", "anchored"),
    [
        ("plan.settings=32", True),
        ("plan.settings=31", False),
        ("plan.paired=false", False),
        ("measuring.target_stderr=0", False),
        ("measuring.anchors=false", False),
    ],
)
def test_anchors_are_taken_where_they_pay_and_can_be(change, anchored):
    assert (anchor_plan(load_experiment("demo", [change])) is not None) == anchored
