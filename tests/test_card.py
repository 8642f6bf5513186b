"""The protocol card: whatever decides a value is in it, so no row is served for another one's."""

import dataclasses
import json
import platform
import shutil
from pathlib import Path

import pytest
import torch

from raysplit.base.errors import UserError
from raysplit.corpus import cpython_docs
from raysplit.corpus.batches import TokenCorpus
from raysplit.corpus.config import CorpusConfig
from raysplit.corpus.sequences import ProtocolConfig
from raysplit.link.config import LinkConfig
from raysplit.link.state import LinkState
from raysplit.measure.card import protocol_card
from raysplit.measure.config import BackendConfig, MeasuringConfig
from raysplit.measure.gpu import gpu_model
from raysplit.measure.ledger import Ledger
from raysplit.measure.on_ray import session
from raysplit.measure.prepare import prepare_job
from raysplit.measure.service import MeasuringService
from raysplit.measure.setting import Setting
from raysplit.measure.shards.local import LocalBackend
from raysplit.measure.shards.reference import CleanReference
from raysplit.model.chain import shard_devices
from raysplit.model.checkpoint import open_checkpoint
from raysplit.model.config import ModelConfig
from raysplit.model.tokenizer import load_tokenizer
from tests import fault_driver
from tests.tiny_models import ARCHITECTURES, save_tiny


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    fault_driver.save_model(folder)
    return folder


def copied(folder, tmp_path, name="copy"):
    return Path(shutil.copytree(folder, tmp_path / name))


def rewrite(path, **changes):
    """Change keys of a JSON file; a dotted key reaches within."""
    content = json.loads(path.read_text())
    for key, value in changes.items():
        *outer, last = key.split(".")
        inner = content
        for part in outer:
            inner = inner[part]
        inner[last] = value
    path.write_text(json.dumps(content))


def job_and_card(folder, *, text=None, **changes):
    corpus = {"source": "file", "path": text or folder / "text.txt"} | changes.get("corpus", {})
    return prepare_job(
        model=ModelConfig(name=str(folder), **changes.get("model", {})),
        corpus=CorpusConfig(**corpus),
        protocol=ProtocolConfig(**{"context": 24, "stride": 10} | changes.get("protocol", {})),
        link=LinkConfig(**changes.get("link", {})),
        measuring=MeasuringConfig(**{"target_stderr": 0.0} | changes.get("measuring", {})),
        split_points=(1, 5),
        device=changes.get("device", "cpu"),
        gpu=changes.get("gpu"),
    )


def clean_nll_of(job):
    backend = LocalBackend(job, BackendConfig(kind="inprocess"))
    blocks = dict(backend.clean_blocks())
    backend.close()
    return CleanReference.gather(blocks, job.corpus.tokens_N, 1).corpus.nll_N.tolist()


@pytest.mark.slow
def test_a_config_edited_after_measuring_gets_rows_of_its_own(llama, tmp_path):
    folder = copied(llama, tmp_path)
    wanted = [Setting(2, LinkState(noise_std=0.4))]

    def measured(ledger):
        job, card = job_and_card(folder)
        with (
            Ledger(tmp_path / ledger) as opened,
            MeasuringService(job, card, opened, BackendConfig(kind="inprocess")) as service,
        ):
            (row,) = service.measure(wanted).values()
            return row.log_ppl

    before = measured("shared.sqlite")
    rewrite(folder / "config.json", **{"rope_parameters.rope_theta": 500.0})
    shared = measured("shared.sqlite")
    assert shared == measured("fresh.sqlite")
    assert shared != before


def other(value):
    """Another value of the same kind."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value * 2 or 1
        case str():
            return "relu" if value in ("silu", "gelu_pytorch_tanh") else f"{value}x"
        case list():
            return value[::-1] if value != value[::-1] else [*value, *value]
        case _:
            return 3


def paths_in(config, before=""):
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from paths_in(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.slow
def test_every_value_of_a_config_is_in_the_card_or_changes_nothing(llama, architecture, tmp_path):
    whole = save_tiny(tmp_path, architecture).config.to_dict()
    config_file = tmp_path / "config.json"
    for key in ("_name_or_path", "transformers_version"):
        whole.pop(key)
    whole |= {"architectures": json.loads(config_file.read_text())["architectures"]}
    other_job, _ = job_and_card(llama)
    tokenizer = load_tokenizer(other_job.checkpoint)
    few = TokenCorpus(other_job.corpus.sequences[:8])
    job = dataclasses.replace(other_job, checkpoint=open_checkpoint(tmp_path), corpus=few)
    true = clean_nll_of(job)

    def card_of(checkpoint):
        return protocol_card(
            checkpoint=checkpoint,
            model=job.model,
            corpus=CorpusConfig(),
            tokens=job.corpus,
            protocol=ProtocolConfig(),
            link=job.link,
            tokenizer=tokenizer,
            prefix_id=1,
            target_stderr=0.0,
            anchors=None,
            device="cpu",
        )

    first = card_of(job.checkpoint)
    seen, unseen = [], {}
    for path, value in paths_in(whole):
        config_file.write_text(json.dumps(whole))
        rewrite(config_file, **{path: other(value)})
        try:
            checkpoint = open_checkpoint(tmp_path)
        except UserError:
            continue
        if card_of(checkpoint) != first:
            seen.append(path)
        else:
            unseen[path] = other(value)
    config_file.write_text(json.dumps(whole))
    rewrite(config_file, **unseen)
    changed = dataclasses.replace(job, checkpoint=open_checkpoint(tmp_path))
    assert clean_nll_of(changed) == true, unseen
    assert {"hidden_size", "max_position_embeddings", "num_attention_heads"} <= set(seen)
    assert any("rope_theta" in path for path in seen)
    assert any("eps" in path for path in seen)
    assert "use_cache" in unseen  # what cannot matter costs nobody his rows


@pytest.mark.parametrize(
    "changes",
    [
        {"corpus": {"min_words": 6}},
        {"corpus": {"max_words": 12}},
        {"corpus": {"max_sentences": 50}},
        {"corpus": {"seed": 1}},
        {"protocol": {"context": 12}},
        {"protocol": {"unit": "sliding_window"}},
        {"protocol": {"prefix": "none"}},
        {"link": {"exempt_prefix": False}},
        {"link": {"packet": "sentence"}},
        {"link": {"concealment": "corpus_mean"}},
        {"model": {"dtype": "bfloat16"}},
        {"model": {"attention": "eager"}},
        {"measuring": {"target_stderr": 0.1}},
        {"device": "cuda"},
        {"device": "cuda", "gpu": "NVIDIA H200"},
    ],
)
def test_every_rule_is_in_the_card(llama, changes):
    _, card = job_and_card(llama)
    assert job_and_card(llama, **changes)[1] != card


def test_the_stride_of_windows_is_in_the_card(llama):
    cards = [
        job_and_card(llama, protocol={"unit": "sliding_window", "stride": stride})[1]
        for stride in (10, 5)
    ]
    assert [card["protocol"]["stride"] for card in cards] == [10, 5]
    assert cards[0]["corpus"]["sha256"] != cards[1]["corpus"]["sha256"]


@pytest.mark.parametrize(
    "edit",
    [
        lambda folder: rewrite(folder / "tokenizer_config.json", bos_token="w7"),
        lambda folder: rewrite(folder / "tokenizer_config.json", eos_token="w7"),
        lambda folder: rewrite(folder / "tokenizer.json", normalizer={"type": "Lowercase"}),
        lambda folder: rewrite(folder / "tokenizer.json", pre_tokenizer={"type": "Whitespace"}),
        lambda folder: rewrite(folder / "tokenizer.json", **{"model.vocab.w9": 10}),
        lambda folder: rewrite(folder / "tokenizer.json", **{"model.unk_token": "w1"}),
    ],
)
def test_the_tokenizer_s_files_are_in_the_card(llama, tmp_path, edit):
    folder = copied(llama, tmp_path)
    before = job_and_card(folder)[1]
    edit(folder)
    assert job_and_card(folder)[1] != before


def test_the_text_and_the_weights_are_in_the_card_and_their_place_is_not(llama, tmp_path):
    _, card = job_and_card(llama)
    moved = tmp_path / "elsewhere.txt"
    moved.write_text((llama / "text.txt").read_text())
    assert job_and_card(llama, text=moved)[1] == card
    moved.write_text((llama / "text.txt").read_text().replace("w2 w", "w3 w"))
    assert job_and_card(llama, text=moved)[1] != card
    folder = copied(llama, tmp_path)
    before = job_and_card(folder)[1]["model"]
    assert before["weights_sha256"] == card["model"]["weights_sha256"]
    save_tiny(folder, "llama", seed=1, tie_word_embeddings=False)
    after = job_and_card(folder)[1]["model"]
    assert {key for key in after if after[key] != before[key]} == {"weights_sha256"}


def test_the_embedded_text_is_that_of_one_python(llama, monkeypatch):
    sentences = tuple(f"w2 w3 w4 w5 w6 w{i}" for i in range(2, 90))
    monkeypatch.setattr(cpython_docs, "held_out_paragraphs", lambda: sentences)
    _, card = job_and_card(llama, corpus={"source": "embedded", "path": None})
    assert card["corpus"]["python"] == platform.python_version()
    assert "python" not in job_and_card(llama)[1]["corpus"]


def test_what_people_look_for_stands_in_the_card_by_name(llama):
    _, card = job_and_card(llama)
    assert card["model"]["config"]["rope_parameters"] == {
        "rope_theta": 10000.0,
        "rope_type": "default",
    }
    assert card["model"]["config"]["rms_norm_eps"] == 1e-6
    assert card["corpus"]["max_words"] == 60
    assert "revision" not in card["corpus"]  # that of another source


def test_the_model_of_gpu_is_in_the_card_and_another_one_measures_nothing(llama, monkeypatch):
    """CUDA's random numbers depend on it, so an H100's rows are no H200's."""
    job, card = job_and_card(llama, device="cuda", gpu="NVIDIA H200")
    assert card["device"] == "cuda (NVIDIA H200)"
    assert job_and_card(llama, device="cuda", gpu="NVIDIA H100 PCIe")[1] != card
    assert job_and_card(llama)[1]["device"] == "cpu"  # as ever
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i=0: "NVIDIA H100 PCIe")
    with pytest.raises(UserError, match=r"names the GPU NVIDIA H200, and here is NVIDIA H100 PCIe"):
        LocalBackend(job, BackendConfig(kind="inprocess", gpus_per_edge=1))
    assert shard_devices(2, "NVIDIA H100 PCIe") == ("cuda:0", "cuda:1")
    assert shard_devices(0, None) == ("cpu",)


def test_the_gpu_is_this_machines_or_the_clusters(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    assert gpu_model(BackendConfig(gpus_per_edge=0.7)) == "NVIDIA H200"
    assert gpu_model(BackendConfig()) is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(session, "gpu_model_of_cluster", lambda config: f"of {config.address}")
    assert gpu_model(BackendConfig(gpus_per_edge=0.7, address="auto")) == "of auto"
    assert gpu_model(BackendConfig(gpus_per_edge=0.7)) is None
