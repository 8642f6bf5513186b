"""Anchors in the measuring engine: which they are, kept once, the same rows wherever they run."""

import dataclasses
import math

import numpy as np
import pytest
from pydantic import ValidationError

from raysplit.base.errors import UserError
from raysplit.base.files import sha256_of
from raysplit.corpus.config import CorpusConfig
from raysplit.corpus.sequences import ProtocolConfig
from raysplit.link.codec import Codec
from raysplit.link.config import LinkConfig
from raysplit.link.state import LinkState
from raysplit.measure.anchors import AnchorPlan, choose_anchors
from raysplit.measure.config import BackendConfig, MeasuringConfig
from raysplit.measure.ledger import Ledger
from raysplit.measure.prepare import prepare_job
from raysplit.measure.rows import AnchorBlock
from raysplit.measure.service import MeasuringService
from raysplit.measure.setting import Setting
from raysplit.measure.shards.edge import EdgeShard
from raysplit.measure.shards.local import LocalBackend
from raysplit.measure.shards.sample import Sample
from raysplit.model.config import ModelConfig
from raysplit.pipeline.experiment import load_experiment
from raysplit.pipeline.problem import anchor_plan
from tests import fault_driver

INPROCESS = BackendConfig(kind="inprocess")
NOISE = {"noise_std": (0.0, 1.0)}
SETTINGS = [Setting(p, LinkState(noise_std=s)) for p in (1, 2, 4) for s in (0.2, 0.7)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    fault_driver.save_model(folder)
    return folder


def prepared(folder, *, link=None, target_stderr=0.002, ranges=None, anchored=True, settings=1000):
    return prepare_job(
        model=ModelConfig(name=str(folder)),
        corpus=CorpusConfig(source="file", path=folder / "text.txt"),
        protocol=ProtocolConfig(context=24),
        link=link or LinkConfig(),
        measuring=MeasuringConfig(target_stderr=target_stderr),
        split_points=(1, 5),
        device="cpu",
        anchors=choose_anchors((1, 5), ranges or NOISE, settings) if anchored else None,
    )


def measured(folder, path, settings=SETTINGS, backend=INPROCESS, **options):
    job, card = prepared(folder, **options)
    with Ledger(path) as ledger, MeasuringService(job, card, ledger, backend) as service:
        return service.measure(settings)


# --- which they are ----------------------------------------------------------------------


def test_anchors_are_spread_over_split_points_and_badness():
    plan = choose_anchors((1, 10), {"noise_std": (0.0, 6.0)}, 96)
    found = [(p, link.noise_std) for p, link in plan.points]
    assert found == [(1, 6.0), (1, 3.0), (10, 6.0), (4, 4.5)]
    fading = choose_anchors((2, 8), {"snr_db": (-5.0, 15.0), "loss_probability": (0.0, 0.2)}, 96)
    found = [(p, link.snr_db, link.loss_probability) for p, link in fading.points]
    assert found[:4] == [(2, -5.0, 0.2), (2, 5.0, 0.1), (8, -5.0, 0.2), (4, 0.0, 0.15)]
    assert found[4:] == [(2, -5.0, 0.0), (2, 15.0, 0.2)]  # each coordinate on its own
    assert [setting.seed for setting in plan.with_seed(7)] == [7] * 4


def test_an_experiment_has_anchors_where_it_asks_for_them():
    assert anchor_plan(load_experiment("demo", ["measuring.anchors=false"])) is None
    plan = anchor_plan(load_experiment("demo", ["measuring.anchors=true", "plan.settings=40"]))
    assert plan == choose_anchors((1, 10), {"noise_std": (0.0, 6.0)}, 40)


def test_anchors_without_shared_noise_or_without_anything_to_save_are_refused():
    with pytest.raises(UserError, match=r"needs plan\.paired: true.*leave one of them out"):
        load_experiment("demo", ["measuring.anchors=true", "plan.paired=false"])
    with pytest.raises(ValidationError, match="nothing to save at target_stderr: 0"):
        MeasuringConfig(anchors=True, target_stderr=0)


# --- the card ----------------------------------------------------------------------------


def test_another_estimator_is_another_card_and_none_is_the_card_of_before(folder):
    cards = [
        prepared(folder, anchored=False)[1],
        prepared(folder)[1],
        prepared(folder, settings=2000)[1],
        prepared(folder, ranges={"noise_std": (0.0, 2.0)})[1],
    ]
    assert len({sha256_of(card) for card in cards}) == 4
    assert "anchors" not in cards[0]["estimate"]
    assert cards[1]["estimate"].pop("anchors")["settings"].startswith("p=1, noise_std=1.0; p=1, ")
    assert cards[1] == cards[0]


# Measured before there were anchors: log PPL, its standard error, sequences, tokens, recomputed.
BEFORE = {
    Setting(1, LinkState(noise_std=0.4)): (5.10908510408, 0.0018127176036, 192, 2383, 192),
    Setting(2, LinkState(noise_std=0.5), 3): (5.08575235118, 0.0012118241010, 192, 2383, 192),
    Setting(5, LinkState(noise_std=1.5)): (5.11203671343, 0.0016267384119, 192, 2383, 192),
    Setting(3, LinkState(loss_probability=0.2)): (5.10678211137, 0.0024009497843, 192, 2383, 172),
    Setting(4, LinkState(snr_db=2.0, loss_probability=0.1), 9): (
        5.09733592599,
        0.0033467283203,
        192,
        2383,
        192,
    ),
}


def test_without_anchors_rows_are_those_of_before(folder, tmp_path):
    rows = measured(folder, tmp_path / "l.sqlite", BEFORE, anchored=False, target_stderr=0.05)
    for setting, (log_ppl, stderr, *counts) in BEFORE.items():
        row = rows[setting]
        assert row.log_ppl == pytest.approx(log_ppl, rel=1e-6)
        assert row.stderr == pytest.approx(stderr, rel=1e-3)
        assert [row.sequences, row.tokens, row.recomputed] == counts
        assert row.anchor_sequences == 0


# --- rows --------------------------------------------------------------------------------

LINKS = {
    "noise": (LinkConfig(), NOISE, SETTINGS),
    "fading": (
        LinkConfig(fading="rayleigh", gain_threshold=0.3, equaliser="zero_forcing"),
        {"fading_scale": (0.5, 3.0)},
        [Setting(p, LinkState(fading_scale=s)) for p in (1, 5) for s in (0.6, 2.0)],
    ),
    "erasures": (
        LinkConfig(concealment="hold_last"),
        {"loss_probability": (0.0, 0.4)},
        [Setting(p, LinkState(loss_probability=s)) for p in (1, 5) for s in (0.02, 0.3)],
    ),
}


@pytest.mark.parametrize("kind", LINKS)
def test_an_anchored_row_agrees_with_the_whole_corpus(folder, tmp_path, kind):
    link, ranges, settings = LINKS[kind]
    options = {"link": link, "ranges": ranges}
    full = measured(folder, tmp_path / "full", settings, anchored=False, target_stderr=0, link=link)
    rows = measured(folder, tmp_path / "part", settings, target_stderr=0.004, **options)
    assert min(row.sequences for row in rows.values()) < 192
    for setting, row in rows.items():
        assert row.status == "done"
        assert abs(row.log_ppl - full[setting].log_ppl) <= 4 * row.stderr + 1e-12
        assert row.stderr <= 0.004
        assert row.recomputed <= row.sequences
        if row.anchor_sequences:
            assert row.sequences < row.anchor_sequences <= 200
    assert any(row.anchor_sequences for row in rows.values())


def test_a_seed_s_rows_do_not_depend_on_the_seeds_beside_it(folder, tmp_path):
    others = [dataclasses.replace(setting, seed=5) for setting in SETTINGS[:2]]
    together = measured(folder, tmp_path / "together", [*SETTINGS, *others])
    alone = measured(folder, tmp_path / "alone", others)
    assert any(row.anchor_sequences for row in alone.values())
    assert fault_driver.facts(together)[-2:] == fault_driver.facts(alone)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_ray_gives_the_anchored_and_the_coded_rows_of_one_process(folder, tmp_path):
    settings = [*SETTINGS[1:3], *(dataclasses.replace(setting, seed=5) for setting in SETTINGS[:2])]
    codecs = (Codec("int4-rotated/16"), Codec("top25%"))
    settings += [dataclasses.replace(SETTINGS[0], codec=codec) for codec in codecs]
    one = measured(folder, tmp_path / "one", settings)
    many = measured(folder, tmp_path / "many", settings, BackendConfig(edge_shards=2))
    assert any(one[setting].anchor_sequences for setting in settings[:4])
    assert fault_driver.facts(many) == fault_driver.facts(one)


def test_a_span_within_a_block_is_measured_as_in_the_whole_block(folder):
    """The link's randomness is the whole batch's, so who else is drawn changes no sequence."""
    job, _ = prepared(folder)
    backend = LocalBackend(job, INPROCESS)
    blocks = dict(backend.clean_blocks())
    from raysplit.measure.shards.reference import CleanReference

    reference = CleanReference.gather(blocks, job.corpus.tokens_N, 1)
    setting = Setting(2, LinkState(noise_std=0.7))
    units = [(setting, block) for block in range(len(job.corpus.blocks))]
    whole = np.concatenate([b.damages_B for b in backend.anchor_blocks(units, reference)])
    lengths = np.array([len(s.token_ids) for s in job.corpus.sequences])
    for stop in (32, 48, 80):
        nll_n = _nll_of_first(backend, setting, stop, reference)
        assert nll_n - reference.corpus.nll_N[:stop] == pytest.approx(whole[:stop], abs=1e-3)
    # They are the first in drawing order, of all lengths, and no batch of short ones.
    assert np.corrcoef(lengths, np.arange(len(lengths)) < 32)[0, 1] == pytest.approx(0, abs=0.2)


def _nll_of_first(backend, setting, stop, reference):
    sample = Sample()
    hidden_of = lambda block: backend._cache.get((block, setting.split_point))  # noqa: E731
    middle = stop // 2 + 3
    backend._edge._draw(sample, setting, (0, middle), hidden_of, reference)
    backend._edge._draw(sample, setting, (middle, stop), hidden_of, reference)
    return sample.in_drawing_order()


def test_an_anchor_that_gives_no_number_is_left_out(folder, tmp_path, monkeypatch):
    plain = EdgeShard.anchor_block

    def failing_at_5(self, setting, block, *arguments):
        found = plain(self, setting, block, *arguments)
        if setting.split_point != 5:
            return found
        return dataclasses.replace(found, damages_B=np.full_like(found.damages_B, math.nan))

    at_all = measured(folder, tmp_path / "all", SETTINGS)
    with monkeypatch.context() as patch:
        patch.setattr(EdgeShard, "anchor_block", failing_at_5)
        # The last anchor is at p = 5: the rows rest on the others.
        found = measured(folder, tmp_path / "some", SETTINGS)
    plan = choose_anchors((1, 5), NOISE, 1000)
    others = AnchorPlan(tuple(point for point in plan.points if point[0] != 5), plan.settings)
    assert 0 < len(others.points) < len(plan.points)
    monkeypatch.setattr("tests.test_anchors.choose_anchors", lambda *_: others)
    expected = measured(folder, tmp_path / "others", SETTINGS)
    assert any(row.anchor_sequences for row in expected.values())
    assert fault_driver.facts(found) == fault_driver.facts(expected)
    assert fault_driver.facts(found) != fault_driver.facts(at_all)


def test_where_no_anchor_gives_a_number_settings_are_measured_without(folder, tmp_path):
    deadly = {"noise_std": (0.0, 3e38)}
    rows = measured(folder, tmp_path / "l.sqlite", SETTINGS[:2], ranges=deadly, target_stderr=0.01)
    assert {row.status for row in rows.values()} == {"done"}
    assert all(math.isfinite(row.log_ppl) for row in rows.values())


ANCHOR = Setting(1, LinkState(noise_std=1.0))


def never_measured(*arguments):
    raise AssertionError("an anchor's own row is measured again")


@pytest.mark.parametrize(
    ("blocks", "target_stderr", "sequences"),
    [
        pytest.param(99, 0.002, 200, id="on the whole corpus"),
        pytest.param(2, 1.0, 128, id="precise enough on two blocks"),
    ],
)
def test_an_anchor_s_own_row_is_what_it_was_measured_as(
    folder, tmp_path, monkeypatch, blocks, target_stderr, sequences
):
    assert (ANCHOR.split_point, ANCHOR.link) in choose_anchors((1, 5), NOISE, 1000).points
    whole = measured(folder, tmp_path / "whole", [ANCHOR], anchored=False, target_stderr=0)[ANCHOR]
    monkeypatch.setattr("raysplit.measure.anchored._PILOT_BLOCKS", blocks)
    monkeypatch.setattr(EdgeShard, "measure", never_measured)
    row = measured(folder, tmp_path / "own", [ANCHOR], target_stderr=target_stderr)[ANCHOR]
    assert (row.status, row.sequences, row.anchor_sequences) == ("done", sequences, 0)
    assert row.recomputed == sequences
    if sequences == whole.sequences:
        assert row.stderr == 0
        assert row.log_ppl == pytest.approx(whole.log_ppl, rel=1e-7)
    else:
        assert 0 < row.stderr <= target_stderr
        assert abs(row.log_ppl - whole.log_ppl) <= 4 * row.stderr


# --- the ledger --------------------------------------------------------------------------


@pytest.mark.slow
def test_anchors_are_measured_once_and_an_interruption_repeats_a_block(
    folder, tmp_path, monkeypatch
):
    expected = measured(folder, tmp_path / "unbroken")
    started = []
    plain = EdgeShard.anchor_block

    def breaking(self, setting, block, *arguments):
        started.append((setting, block))
        if len(started) == 6:
            raise KeyboardInterrupt
        return plain(self, setting, block, *arguments)

    monkeypatch.setattr(EdgeShard, "anchor_block", breaking)
    with pytest.raises(KeyboardInterrupt):
        measured(folder, tmp_path / "broken")
    found = measured(folder, tmp_path / "broken")
    assert fault_driver.facts(found) == fault_driver.facts(expected)
    assert len(started) == len(set(started)) + 1  # the one that was broken off
    before = len(started)
    # Another setting of the seed finds them; another seed has its own.
    more = [Setting(3, LinkState(noise_std=0.5)), Setting(3, LinkState(noise_std=0.5), 8)]
    measured(folder, tmp_path / "broken", more[:1])
    assert len(started) == before
    measured(folder, tmp_path / "broken", more[1:])
    assert {setting.seed for setting, _ in started[before:]} == {8}


def test_a_changed_anchor_block_is_measured_anew(folder, tmp_path, capsys):
    path = tmp_path / "l.sqlite"
    first = measured(folder, path)
    with Ledger(path) as ledger:
        ledger._connection.execute("UPDATE anchors SET damages = zeroblob(512) WHERE rowid = 2")
        ledger._connection.execute("DELETE FROM settings")
    assert fault_driver.facts(measured(folder, path)) == fault_driver.facts(first)
    assert "anchors" in capsys.readouterr().err


def test_blocks_come_back_as_they_were(tmp_path):
    setting = Setting(1, LinkState(noise_std=0.5))
    block = AnchorBlock(setting, 3, np.array([0.25, -1e-300, math.nan]), 2, 0.5)
    with Ledger(tmp_path / "l.sqlite") as ledger:
        ledger.add_anchor_block("card", block)
        assert ledger.anchor_blocks("card", [setting], 3) == {}
        assert ledger.anchor_blocks("other", [setting], 4) == {}
        (found,) = ledger.anchor_blocks("card", [setting], 4).values()
    assert found.damages_B.tobytes() == block.damages_B.tobytes()
    assert (found.setting, found.block, found.recomputed, found.seconds) == (setting, 3, 2, 0.5)


def test_a_plan_names_its_anchors_exactly():
    plan = AnchorPlan(((2, LinkState(noise_std=0.1234567, loss_probability=0.25)),), 10)
    assert plan.describe() == ["p=2, noise_std=0.1234567, loss_probability=0.25"]
