"""Measuring end to end on a tiny model: right numbers, once each, whatever the backend."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from raysplit.base.errors import UserError
from raysplit.corpus.config import CorpusConfig
from raysplit.corpus.sequences import ProtocolConfig
from raysplit.link.config import LinkConfig
from raysplit.link.state import LinkState
from raysplit.measure import prepare
from raysplit.measure.config import BackendConfig, MeasuringConfig
from raysplit.measure.ledger import Ledger
from raysplit.measure.prepare import prepare_job
from raysplit.measure.rows import Row
from raysplit.measure.service import MeasuringService, as_table
from raysplit.measure.setting import Setting
from raysplit.model.checkpoint import open_checkpoint
from raysplit.model.config import ModelConfig
from tests import fault_driver

CONTEXT = 24
NOISY = LinkState(noise_std=0.5)
SETTINGS = [Setting(p, LinkState(noise_std=s)) for p in (1, 3, 5) for s in (0.0, 0.4, 1.5)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A tiny Llama with a word tokenizer and a text of 200 sentences."""
    folder = tmp_path_factory.mktemp("model")
    fault_driver.save_model(folder)
    return folder


def prepared(
    folder, *, link=None, target_stderr=0.0, unit="sentence", split_points=(1, 5), **model
):
    return prepare_job(
        model=ModelConfig(name=str(folder), **model),
        corpus=CorpusConfig(source="file", path=folder / "text.txt"),
        protocol=ProtocolConfig(unit=unit, context=CONTEXT, stride=10),
        link=link or LinkConfig(),
        measuring=MeasuringConfig(target_stderr=target_stderr),
        split_points=split_points,
        device="cpu",
    )


def measured(folder, settings, tmp_path, *, kind="inprocess", **options):
    job, card = prepared(folder, **options)
    backend = BackendConfig(kind=kind, edge_shards=2 if kind == "ray" else None)
    with (
        Ledger(tmp_path / f"{kind}.sqlite") as ledger,
        MeasuringService(job, card, ledger, backend) as service,
    ):
        rows = service.measure(settings)
        return rows, service.reference()


def plain_log_ppl(folder, unit):
    """Perplexity by a plain transformers loop, one sequence at a time."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    job, _ = prepared(folder, unit=unit)
    nats, tokens = 0.0, 0
    for sequence in job.corpus.sequences:
        ids = torch.tensor([sequence.token_ids])
        with torch.no_grad():
            logp = model(ids).logits.log_softmax(-1)[0]
        for position in range(sequence.first_scored, len(sequence.token_ids)):
            nats -= logp[position - 1, sequence.token_ids[position]].item()
            tokens += 1
    return nats / tokens


@pytest.mark.parametrize("unit", ["sentence", "sliding_window"])
@pytest.mark.slow
def test_without_noise_it_is_the_plain_perplexity(folder, tmp_path, unit):
    settings = [Setting(p, LinkState()) for p in range(1, 6)]
    rows, reference = measured(folder, settings, tmp_path, unit=unit)
    expected = plain_log_ppl(folder, unit)
    assert reference.corpus.log_ppl == pytest.approx(expected, rel=1e-6)
    for row in rows.values():
        assert math.exp(row.log_ppl) == pytest.approx(math.exp(expected), rel=1e-5)
        assert row.recomputed == 0  # nothing was touched, so nothing was run


def test_experiments_with_other_split_points_share_a_ledger(folder, tmp_path):
    link = LinkConfig(concealment="corpus_mean", packet="token")
    lossy = LinkState(snr_db=3.0, loss_probability=0.4)
    wanted = [Setting(p, lossy) for p in (1, 3, 5)]
    (tmp_path / "alone").mkdir()
    alone, _ = measured(folder, wanted, tmp_path / "alone", link=link)
    shared = {}
    for split_points, settings in (((2, 4), wanted[1:2]), ((1, 5), wanted), ((3, 5), wanted[2:])):
        found, _ = measured(folder, settings, tmp_path, link=link, split_points=split_points)
        shared |= found
    assert {s: row.log_ppl for s, row in shared.items()} == {
        s: row.log_ppl for s, row in alone.items()
    }


def test_noise_changes_the_value_and_more_noise_changes_it_again(folder, tmp_path):
    rows, reference = measured(folder, SETTINGS, tmp_path)
    for p in (1, 3, 5):
        clean, low, high = (rows[Setting(p, LinkState(noise_std=s))] for s in (0.0, 0.4, 1.5))
        assert clean.log_ppl == pytest.approx(reference.corpus.log_ppl, abs=1e-12)
        assert clean.log_ppl != low.log_ppl != high.log_ppl
        assert (low.stderr, low.sequences) == (0.0, 200)  # target 0 takes the whole corpus


def test_an_estimate_stops_at_its_target_and_its_interval_holds_the_full_value(folder, tmp_path):
    settings = [Setting(2, NOISY, seed) for seed in range(5)]
    (tmp_path / "full").mkdir()
    full, _ = measured(folder, settings, tmp_path / "full")
    part, _ = measured(folder, settings, tmp_path, target_stderr=0.05)
    for setting in settings:
        assert part[setting].sequences < 200
        assert 0 < part[setting].stderr <= 0.05
        assert abs(part[setting].log_ppl - full[setting].log_ppl) < 4 * part[setting].stderr


def test_sentences_without_a_lost_packet_are_not_recomputed(folder, tmp_path):
    settings = [Setting(2, LinkState(loss_probability=0.02))]
    rows, _ = measured(folder, settings, tmp_path)
    (row,) = rows.values()
    lengths = [len(s.token_ids) - 1 for s in prepared(folder)[0].corpus.sequences]
    untouched = sum(0.98 ** (n - 1) for n in lengths)  # the BOS position is exempt
    assert 200 - row.recomputed == pytest.approx(untouched, abs=4 * math.sqrt(200 * 0.25))
    assert row.recomputed < 100


def test_snr_refers_to_the_corpus_signal_at_the_split_point(folder, tmp_path):
    snr_db = 6.0
    rows, reference = measured(folder, [Setting(3, LinkState(snr_db=snr_db))], tmp_path)
    noise_std = reference.rms(3) * 10 ** (-snr_db / 20)
    same, _ = measured(folder, [Setting(3, LinkState(noise_std=noise_std))], tmp_path)
    (a,), (b,) = rows.values(), same.values()
    assert a.log_ppl == pytest.approx(b.log_ppl, abs=1e-6)


def test_nothing_is_measured_twice(folder, tmp_path):
    job, card = prepared(folder)
    with Ledger(tmp_path / "shared.sqlite") as ledger:
        with MeasuringService(job, card, ledger, BackendConfig(kind="inprocess")) as service:
            first = service.measure(SETTINGS[:4])
            assert service.evaluations == 4
            service.measure(SETTINGS)
            assert service.evaluations == len(SETTINGS)
        with MeasuringService(job, card, ledger, BackendConfig(kind="inprocess")) as service:
            again = service.measure(SETTINGS[:4])
            assert service.evaluations == 0
    assert again == first


def test_a_row_that_was_changed_is_measured_anew(folder, tmp_path, capsys):
    job, card = prepared(folder)
    inprocess = BackendConfig(kind="inprocess")
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        with MeasuringService(job, card, ledger, inprocess) as service:
            true = service.measure(SETTINGS[:3])
        ledger._connection.execute("UPDATE settings SET log_ppl = 2 * log_ppl WHERE rowid = 1")
        with MeasuringService(job, card, ledger, inprocess) as service:
            again = service.measure(SETTINGS[:3])
            assert service.evaluations == 1
    assert [r.log_ppl for r in again.values()] == [r.log_ppl for r in true.values()]
    assert "measured anew" in capsys.readouterr().err


def test_the_cost_counts_what_the_device_runs(folder, tmp_path):
    """Nearly all windows are full, and score less than half of what they run."""
    job, card = prepared(folder, unit="sliding_window")
    with (
        Ledger(tmp_path / "ledger.sqlite") as ledger,
        MeasuringService(job, card, ledger, BackendConfig(kind="inprocess")) as service,
    ):
        assert service.tokens_per_sequence == CONTEXT - 1
    assert job.corpus.tokens_N.mean() < 11


def test_the_order_of_measuring_changes_no_value(folder, tmp_path):
    (tmp_path / "reversed").mkdir()
    settings = [dataclasses.replace(setting, seed=i) for i, setting in enumerate(SETTINGS)]
    one, _ = measured(folder, settings, tmp_path, target_stderr=0.05)
    other, _ = measured(folder, settings[::-1], tmp_path / "reversed", target_stderr=0.05)
    assert [row.log_ppl for row in one.values()] == [row.log_ppl for row in other.values()][::-1]


def test_weights_with_nan_make_invalid_rows_never_a_number(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    broken.mkdir()
    for file in folder.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.4.mlp.down_proj.weight"][0, 0] = float("nan")
    save_file(tensors, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="NaN"):
        measured(broken, [Setting(2, NOISY)], tmp_path)


def test_a_table_holds_valid_rows_only(folder, tmp_path):
    rows, reference = measured(folder, SETTINGS, tmp_path)
    rows[SETTINGS[0]] = dataclasses.replace(rows[SETTINGS[0]], status="invalid", log_ppl=None)
    table = as_table(rows, ("noise_std",), reference.corpus.log_ppl)
    assert len(table) == len(SETTINGS) - 1
    assert table.link_states_NK.shape == (len(SETTINGS) - 1, 1)


def test_a_split_point_outside_the_model_is_refused(folder):
    with pytest.raises(UserError, match="has 5 layers"):
        prepare_job(
            model=ModelConfig(name=str(folder)),
            corpus=CorpusConfig(source="file", path=folder / "text.txt"),
            protocol=ProtocolConfig(),
            link=LinkConfig(),
            measuring=MeasuringConfig(),
            split_points=(1, 6),
            device="cpu",
        )


@pytest.mark.ray
@pytest.mark.thorough  # tests/test_faults.py and test_anchors.py compare their rows, too
@pytest.mark.usefixtures("ray_session")
def test_ray_gives_the_rows_of_one_process(folder, tmp_path):
    link = LinkConfig(fading="rayleigh", gain_threshold=0.3)
    settings = [dataclasses.replace(s, seed=i) for i, s in enumerate(SETTINGS)]
    one, _ = measured(folder, settings, tmp_path, link=link)
    many, _ = measured(folder, settings, tmp_path, link=link, kind="ray")
    for setting in settings:
        assert many[setting].log_ppl == one[setting].log_ppl
        assert many[setting].stderr == one[setting].stderr


class StubBackend:
    """Answers without a model; the last ones fail, as retried settings do."""

    workers = 1

    def __init__(self, failing):
        self.failing = failing
        self.asked = []

    def run(self, settings, reference, anchors):
        settings = list(settings)
        self.asked.append(len(settings))
        good = len(settings) - self.failing
        for i, setting in enumerate(settings):
            if i < good:
                yield Row(setting=setting, status="done", log_ppl=1.0, stderr=0.0)
            else:
                yield Row(setting=setting, status="quarantined", attempts=3, reason="it dies")

    def close(self):
        pass


def stubbed(folder, path, failing, monkeypatch):
    job, card = prepared(folder)
    ledger = Ledger(path)
    service = MeasuringService(job, card, ledger, BackendConfig(kind="inprocess"))
    backend = StubBackend(failing)
    monkeypatch.setattr(service, "_running", lambda: backend)
    monkeypatch.setattr(service, "reference", lambda _keep: None)
    return service


MANY = [Setting(1, LinkState(noise_std=i / 100)) for i in range(1, 201)]


def test_a_few_poisoned_settings_at_the_end_stop_nothing(folder, tmp_path, monkeypatch):
    service = stubbed(folder, tmp_path / "ledger.sqlite", 12, monkeypatch)
    rows = service.measure(MANY)
    assert sum(row.status == "quarantined" for row in rows.values()) == 12


@pytest.mark.parametrize("failing", [200, 40])
def test_nothing_but_failures_stop_the_run(folder, tmp_path, monkeypatch, failing):
    service = stubbed(folder, tmp_path / "ledger.sqlite", failing, monkeypatch)
    with pytest.raises(UserError, match=r"settings all failed, this one because of it dies"):
        service.measure(MANY)


def test_a_setting_that_failed_is_tried_again_and_its_reason_kept_meanwhile(
    folder, tmp_path, monkeypatch
):
    service = stubbed(folder, tmp_path / "ledger.sqlite", 1, monkeypatch)
    few = MANY[:20]
    assert [r.reason for r in service.measure(few).values() if r.reason] == ["it dies"]
    # It is tried again, and put aside again.
    again = service.measure(few)
    assert [r.attempts for r in again.values() if r.status == "quarantined"] == [3]
    assert service._running().asked == [20, 1]
    service._running().failing = 0
    assert {row.status for row in service.measure(few).values()} == {"done"}


def test_a_corpus_without_a_token_to_score_is_refused(folder, tmp_path):
    text = tmp_path / "empty.txt"
    text.write_text(" = A heading alone = \n")
    corpus = CorpusConfig(source="file", path=text)
    protocol = ProtocolConfig(unit="sliding_window", context=CONTEXT, stride=10)
    with pytest.raises(UserError, match="no token to score by unit: sliding_window"):
        prepare_job(
            model=ModelConfig(name=str(folder)),
            corpus=corpus,
            protocol=protocol,
            link=LinkConfig(),
            measuring=MeasuringConfig(),
            split_points=(1, 5),
            device="cpu",
        )


def test_sequences_beyond_the_models_positions_are_refused(folder):
    class Short:
        max_position_embeddings = 8

    checkpoint = open_checkpoint(folder)
    job, _ = prepared(folder)
    short = dataclasses.replace(checkpoint, config=Short())
    with pytest.raises(UserError, match=r"knows 8 positions: set protocol\.context to 8"):
        prepare._check_lengths(short, job.corpus)


@pytest.mark.parametrize("faster", ["float32", "bfloat16"])
def test_auto_is_the_format_that_it_stands_for_in_job_and_key(faster, folder, monkeypatch):
    monkeypatch.setattr("raysplit.model.precision._cpu_multiplies_it", lambda: True)
    speedup = 5.0 if faster == "bfloat16" else 0.2
    monkeypatch.setattr("raysplit.model.precision.bfloat16_speedup", lambda: speedup)
    job, card = prepared(folder, dtype="auto")
    named_job, named_card = prepared(folder, dtype=faster)
    assert card == named_card
    assert job.model == named_job.model
    assert card["model"]["dtype"] == faster
