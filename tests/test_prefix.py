"""The token before each sequence: which it is, and that a sink at it spoils nothing sent."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from raysplit.base.errors import UserError
from raysplit.corpus.config import CorpusConfig
from raysplit.corpus.sequences import ProtocolConfig
from raysplit.link.config import LinkConfig
from raysplit.measure.config import BackendConfig, MeasuringConfig
from raysplit.measure.prepare import prepare_job
from raysplit.measure.shards.local import LocalBackend
from raysplit.measure.shards.reference import CleanReference
from raysplit.model.config import ModelConfig
from raysplit.pipeline.experiment import load_experiment
from tests import fault_driver

SINK_TOKEN, SINK_CHANNEL, SINK = 1, 3, 5_000.0


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    fault_driver.save_model(folder)
    return folder


def job_and_card(folder, prefix="auto", **link):
    return prepare_job(
        model=ModelConfig(name=str(folder)),
        corpus=CorpusConfig(source="file", path=folder / "text.txt", max_sentences=32),
        protocol=ProtocolConfig(context=24, prefix=prefix),
        link=LinkConfig(**link),
        measuring=MeasuringConfig(),
        split_points=(1, 3),
        device="cpu",
    )


def with_tokens(llama, tmp_path, *, template=None, **tokens):
    """A copy whose tokenizer names these special tokens and puts this template round a text."""
    folder = Path(shutil.copytree(llama, tmp_path / "model"))
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config.pop("bos_token")
    path.write_text(json.dumps(config | tokens))
    if template:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.post_processor = TemplateProcessing(
            single=template, special_tokens=[("<s>", 1), ("w2", 2)]
        )
        tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize(
    ("rule", "tokens", "template", "expected"),
    [
        ("auto", {"bos_token": "<s>", "eos_token": "w2"}, None, 1),
        ("auto", {"eos_token": "w2"}, None, 2),
        ("none", {"bos_token": "<s>"}, "<s> $A", None),
        ("tokenizer", {"bos_token": "<s>"}, None, None),  # names it, and does not put it there
        ("tokenizer", {"bos_token": "w2"}, "<s> $A", 1),
        ("tokenizer", {"bos_token": "<s>"}, "$A <s>", None),  # what stands behind is no prefix
    ],
)
def test_which_token_it_is(llama, tmp_path, rule, tokens, template, expected):
    folder = with_tokens(llama, tmp_path, template=template, **tokens)
    job, card = job_and_card(folder, rule)
    names = {1: "<s>", 2: "w2", None: None}
    assert card["tokenizer"]["prefix"] == names[expected]
    assert job.link.exempt_prefix == card["link"]["exempt_prefix"] == (expected is not None)
    first = {sequence.token_ids[0] for sequence in job.corpus.sequences}
    assert first == {expected} if expected else len(first) > 1


def test_a_prefix_that_cannot_be_is_refused(llama, tmp_path):
    folder = with_tokens(llama, tmp_path)
    with pytest.raises(UserError, match=r"neither a BOS nor an EOS .* protocol\.prefix to none"):
        job_and_card(folder)
    folder = with_tokens(llama, tmp_path / "two", template="<s> w2 $A")
    with pytest.raises(UserError, match="puts 2 tokens before a text"):
        job_and_card(folder, "tokenizer")


def reference_of(job):
    backend = LocalBackend(job, BackendConfig(kind="inprocess"))
    blocks = dict(backend.clean_blocks())
    backend.close()
    return CleanReference.gather(blocks, job.corpus.tokens_N, 1)


@pytest.mark.parametrize("tokens", [{"bos_token": "<s>"}, {"eos_token": "<s>"}])
def test_a_sink_at_the_prefix_spoils_neither_signal_nor_mean(llama, tmp_path, tokens):
    folder = with_tokens(llama, tmp_path, **tokens)
    plain = reference_of(job_and_card(folder)[0])
    weights = load_file(folder / "model.safetensors")
    weights["model.embed_tokens.weight"][SINK_TOKEN, SINK_CHANNEL] = SINK
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    exempt = reference_of(job_and_card(folder)[0])
    sent = reference_of(job_and_card(folder, exempt_prefix=False)[0])
    for p in (1, 2, 3):
        # The sink is what the others attend to, so they move a little; the channel does not leak.
        assert exempt.rms(p) == pytest.approx(plain.rms(p), rel=0.3)
        assert abs(exempt.mean_D(p)[SINK_CHANNEL]) < 10
        assert sent.rms(p) > 20 * plain.rms(p)
        assert abs(sent.mean_D(p)[SINK_CHANNEL]) > SINK / 30


def test_the_old_name_is_refused_with_the_new_one():
    with pytest.raises(UserError, match=r"unknown key link\.exempt_bos; did you mean 'exempt_pref"):
        load_experiment("demo", ["link.exempt_bos=true"])
