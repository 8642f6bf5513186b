"""The zoo: names, pinned revisions, and the six models' real shapes at reduced width."""

import re

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from raysplit.base.errors import UserError
from raysplit.corpus.batches import TokenCorpus
from raysplit.corpus.sequences import TokenSequence
from raysplit.link.config import LinkConfig
from raysplit.link.state import LinkState
from raysplit.measure.config import BackendConfig
from raysplit.measure.setting import Setting
from raysplit.measure.shards.job import Job
from raysplit.measure.shards.local import LocalBackend
from raysplit.measure.shards.reference import CleanReference
from raysplit.model.checkpoint import open_checkpoint
from raysplit.model.config import ModelConfig
from raysplit.model.load import load_span
from raysplit.model.zoo import MODELS, PAPER_MODELS, config_of, find

# Parameters as published on the models' pages, in billions.
PUBLISHED_BILLIONS = {
    "LLaMA2-7B": 6.74,
    "LLaMA2-13B": 13.02,
    "Mistral-7B": 7.24,
    "Aya-23-8B": 8.03,
    "Openchat-8B": 8.03,
    "Prem-1B": 1.10,
}


def test_the_six_models_of_figure_3_are_listed_in_its_order():
    assert list(PAPER_MODELS) == list(PUBLISHED_BILLIONS)
    assert next(iter(MODELS)) == "embedded"


@pytest.mark.parametrize("model", PAPER_MODELS.values(), ids=PAPER_MODELS)
def test_revisions_are_pinned_commits(model):
    assert model.location.count("/") == 1
    assert re.fullmatch(r"[0-9a-f]{40}", model.revision)


@pytest.mark.parametrize("name", PAPER_MODELS)
def test_the_full_shape_has_the_published_number_of_parameters(name):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config_of(PAPER_MODELS[name].shape))
    billions = sum(p.numel() for p in set(model.parameters())) / 1e9
    assert billions == pytest.approx(PUBLISHED_BILLIONS[name], rel=0.005)


@pytest.mark.parametrize("name", PAPER_MODELS)
def test_a_reduced_shape_keeps_what_makes_the_model(name):
    shape = PAPER_MODELS[name].shape
    config = config_of(shape, hidden_size=64)
    assert config.num_hidden_layers == shape.layers
    assert config.tie_word_embeddings == shape.tied
    assert config.hidden_size == 64
    sharing = config.num_attention_heads / config.num_key_value_heads
    assert sharing == shape.heads / shape.kv_heads
    ffn = config.intermediate_size / config.hidden_size
    assert ffn == pytest.approx(shape.ffn_size / shape.hidden_size, rel=0.02)
    vocabulary = config.vocab_size / config.hidden_size
    assert vocabulary == pytest.approx(shape.vocabulary / shape.hidden_size, rel=0.02)


@pytest.mark.parametrize("name", PAPER_MODELS)
def test_a_reduced_model_goes_through_saving_loading_and_splitting(name, tmp_path):
    torch.manual_seed(0)
    config = config_of(PAPER_MODELS[name].shape, hidden_size=64)
    model = AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(tmp_path, max_shard_size="1MB")
    checkpoint = open_checkpoint(tmp_path)
    assert len(checkpoint.files) > 1
    ids_BT = torch.randint(0, config.vocab_size, (2, 9))
    ue, edge = load_span(checkpoint, 0, 10), load_span(checkpoint, 7, checkpoint.layers)
    hidden = ue.run(ue.embed(ids_BT), 0, 7)
    with torch.inference_mode():
        expected = model(ids_BT, use_cache=False).logits
    assert torch.equal(edge.logits(edge.finish(edge.run(hidden, 7, edge.stop))), expected)


def summed_nll(model, sequences):
    """NLL in nats of all tokens after the first, sentence by sentence."""
    nats = 0.0
    with torch.inference_mode():
        for sequence in sequences:
            ids_BT = torch.tensor([sequence.token_ids])
            log_probs_TV = model(ids_BT[:, :-1], use_cache=False).logits[0].log_softmax(-1)
            nats -= log_probs_TV.gather(1, ids_BT[0, 1:, None]).double().sum().item()
    return nats


@pytest.mark.parametrize("name", PAPER_MODELS)
@pytest.mark.slow
def test_a_reduced_model_goes_through_the_whole_engine(name, tmp_path):
    """Against transformers alone: over a perfect link, and with all but BOS lost after layer 10."""
    torch.manual_seed(0)
    config = config_of(PAPER_MODELS[name].shape, hidden_size=64)
    config.initializer_range = 0.2  # at the usual 0.02 such a model hardly looks at its input
    model = AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(tmp_path, max_shard_size="1MB")
    rng = np.random.default_rng(0)
    vocabulary = model.config.vocab_size
    sequences = tuple(
        TokenSequence((1, *rng.integers(3, vocabulary, length).tolist()), 1)
        for length in rng.integers(1, 20, 30)
    )
    job = Job(
        checkpoint=open_checkpoint(tmp_path),
        model=ModelConfig(name=str(tmp_path)),
        corpus=TokenCorpus(sequences),
        link=LinkConfig(exempt_prefix=True),
        target_stderr=0.0,
        split_points=(1, 10),
    )
    backend = LocalBackend(job, BackendConfig(kind="inprocess"))
    tokens_N = job.corpus.tokens_N
    reference = CleanReference.gather(dict(backend.clean_blocks()), tokens_N, 1)
    (row,) = backend.run([Setting(10, LinkState(loss_probability=1.0))], reference)
    backend.close()
    clean = summed_nll(model, sequences) / tokens_N.sum()
    assert reference.corpus.log_ppl == pytest.approx(clean, rel=1e-6)

    def lose(_module, _inputs, hidden_BTD):
        hidden_BTD[:, 1:] = 0.0
        return hidden_BTD

    model.model.layers[9].register_forward_hook(lose)
    lost = summed_nll(model, sequences) / tokens_N.sum()
    assert row.log_ppl == pytest.approx(lost, rel=1e-6)
    assert lost != pytest.approx(clean, rel=1e-5)


def test_a_width_that_the_heads_cannot_share_is_refused():
    with pytest.raises(UserError, match="groups of 8"):
        config_of(PAPER_MODELS["Prem-1B"].shape, hidden_size=60)


@pytest.mark.parametrize("name", ["llama2-7b", "LLaMA2-7B", "meta-llama/Llama-2-7b-hf"])
def test_a_listed_model_is_found_by_name_or_id(name):
    assert find(name) is PAPER_MODELS["LLaMA2-7B"]


def test_an_unlisted_id_or_folder_passes_through(tmp_path):
    for location in ("org/model", str(tmp_path)):
        model = find(location)
        assert (model.location, model.revision, model.shape) == (location, None, None)


def test_a_misspelt_name_gets_a_suggestion():
    with pytest.raises(UserError, match="did you mean 'mistral-7b'"):
        find("mistrall-7b")
    with pytest.raises(UserError, match="known: embedded, smollm2-135m, LLaMA2-7B"):
        find("something else")
