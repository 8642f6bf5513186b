"""The zoo: names, pinned revisions, and the six models' real shapes at reduced width."""

import re

import pytest
import torch
from transformers import AutoModelForCausalLM

from raysplit.errors import UserError
from raysplit.split import load_span, open_checkpoint
from raysplit.zoo import MODELS, PAPER_MODELS, config_of, find

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
    with pytest.raises(UserError, match="known: embedded, LLaMA2-7B"):
        find("something else")
