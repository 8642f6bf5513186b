"""Sizes from names, folders and config.json: against transformers' configs and real tensors."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM

from raysplit.base.errors import UserError
from raysplit.model.flops import layer_flops
from raysplit.model.sizes import sizes_from_config, sizes_of
from raysplit.model.zoo import EMBEDDED_FOLDER, MODELS, PAPER_MODELS, SMOLLM2, config_of
from tests.tiny_models import ARCHITECTURES, random_ids, tiny_config, tiny_model

ROOT = Path(__file__).parents[1]


def test_names_need_neither_the_model_nor_torch(tmp_path):
    code = (
        "import sys\n"
        "from raysplit.model.sizes import sizes_of\n"
        "for name in ('embedded', 'smollm2-135m', 'LLAMA2-7B', 'meta-llama/Llama-2-7b-hf'):\n"
        "    s = sizes_of(name); print(s.name, s.num_hidden_layers, s.hidden_size)\n"
        "print('heavy:', sorted({'torch', 'ray', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
        env={"RAYSPLIT_CACHE": str(tmp_path), "PATH": ""},
    )
    assert done.stdout.splitlines() == [
        "embedded 16 160",
        "smollm2-135m 30 576",
        "LLaMA2-7B 32 4096",
        "LLaMA2-7B 32 4096",
        "heavy: []",
    ]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_folder_and_its_config_json_say_what_transformers_reads(architecture, tmp_path):
    config = tiny_config(architecture)
    config.architectures = None
    config.save_pretrained(tmp_path)
    sizes = sizes_of(str(tmp_path))
    assert sizes_of(str(tmp_path / "config.json")).hidden_size == sizes.hidden_size
    for key in (
        "num_hidden_layers",
        "hidden_size",
        "num_attention_heads",
        "num_key_value_heads",
        "intermediate_size",
        "vocab_size",
        "tie_word_embeddings",
    ):
        assert getattr(sizes, key) == getattr(config, key), key
    assert layer_flops(sizes, 19) == layer_flops(config, 19)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_where_a_config_is_silent_transformers_default_is_taken(architecture):
    written = tiny_config(architecture).to_dict()
    silent = ("tie_word_embeddings", "head_dim", "num_key_value_heads", "architectures")
    may_lack_kv_heads = architecture in ("llama", "cohere", "phi3")
    raw = {
        key: value
        for key, value in written.items()
        if key not in silent or (key == "num_key_value_heads" and not may_lack_kv_heads)
    }
    read = AutoConfig.for_model(**raw)
    sizes = sizes_from_config(raw, "silent")
    assert sizes.tie_word_embeddings == read.tie_word_embeddings
    assert sizes.num_key_value_heads == read.num_key_value_heads
    head = getattr(read, "head_dim", None) or read.hidden_size // read.num_attention_heads
    assert sizes.head_dim == head


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_weights_are_those_of_the_tensors(architecture):
    model = tiny_model(architecture)
    sizes = sizes_from_config({**model.config.to_dict(), "architectures": None}, "tiny")
    layer = model.model.layers[0]
    matrices = sum(p.numel() for p in layer.parameters() if p.ndim == 2)
    if architecture == "cohere":  # its norms of queries and keys are a row for every head
        matrices -= sum(
            p.numel() for n, p in layer.named_parameters() if "norm" in n and p.ndim == 2
        )
    assert sizes.layer_weights == matrices
    assert sizes.embedding_weights == model.get_input_embeddings().weight.numel()
    cache = model(random_ids(1, 3), use_cache=True).past_key_values
    keys, values = cache.layers[0].keys, cache.layers[0].values
    assert sizes.kv_elements * 3 == keys.numel() + values.numel()


def test_a_step_with_a_cache_equals_torchs_counter():
    model = tiny_model("llama")
    ids_BT = random_ids(1, 12)
    cache = model(ids_BT[:, :11], use_cache=True).past_key_values
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), counter:
        model(ids_BT[:, 11:], past_key_values=cache, use_cache=True)
    config = model.config
    head = 2 * config.hidden_size * config.vocab_size
    layers = config.num_hidden_layers * layer_flops(config, 1, keys=12)
    assert counter.get_total_flops() == layers + head


@pytest.mark.parametrize("model", [*PAPER_MODELS.values(), SMOLLM2], ids=lambda model: model.name)
def test_shapes_say_what_their_config_says(model):
    sizes, config = sizes_of(model.name), config_of(model.shape)
    with torch.device("meta"):
        whole = AutoModelForCausalLM.from_config(config)
    parameters = sum(p.numel() for p in set(whole.parameters()))
    heads = 1 if sizes.tie_word_embeddings else 2
    counted = sizes.num_hidden_layers * sizes.layer_weights + heads * sizes.embedding_weights
    assert counted == pytest.approx(parameters, rel=1e-3)
    assert layer_flops(sizes, 7) == layer_flops(config, 7)


def test_every_named_model_has_sizes(tmp_path, monkeypatch):
    monkeypatch.setenv("RAYSPLIT_CACHE", str(tmp_path))
    assert [sizes_of(name).name for name in MODELS] == list(MODELS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": None}, "hidden_size of its config.json is None"),
        ({"num_hidden_layers": "16"}, "is '16'; it must be a whole number"),
        ({"vocab_size": 0}, "vocab_size of its config.json is 0"),
        ({"intermediate_size": True}, "is True"),
        ({"model_type": "gpt2"}, "'gpt2' has no known structure"),
        ({"model_type": "mistral", "architectures": None, "num_key_value_heads": None}, "is None"),
    ],
)
def test_a_config_that_cannot_be_counted_is_refused(change, message):
    config = json.loads((EMBEDDED_FOLDER / "config.json").read_text())
    with pytest.raises(UserError, match=message):
        sizes_from_config({**config, **change}, "mine")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lama2-7b", "did you mean 'llama2-7b'"),
        ("org/unknown", "nothing is fetched for a budget"),
        ("no/such/config.json", "no config.json"),
        ("/no/such/folder", "no such folder"),
    ],
)
def test_a_model_that_is_not_there_is_refused(name, message):
    with pytest.raises(UserError, match=message):
        sizes_of(name)
