"""Checkpoints: only a span's own tensors are read, and nothing missing or damaged gets through."""

import hashlib
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from raysplit.base.errors import UserError
from raysplit.model.checkpoint import open_checkpoint
from raysplit.model.load import load_span, refuse_unbuildable
from tests.tiny_models import ARCHITECTURES, LAYERS, random_ids, save_tiny

WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tmp_path):
    save_tiny(tmp_path, "llama")
    return tmp_path


def change_config(folder: Path, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def change_tensors(folder: Path, change):
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def names_of(span):
    return set(span.module.state_dict())


def test_a_checkpoint_says_what_it_is(folder):
    checkpoint = open_checkpoint(folder)
    assert (checkpoint.layers, checkpoint.hidden_size, checkpoint.vocabulary) == (LAYERS, 32, 97)
    assert checkpoint.architecture == "LlamaForCausalLM"
    assert checkpoint.folder == folder


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("start", "stop"), [(0, 2), (1, 3), (2, LAYERS), (0, LAYERS)])
def test_a_span_holds_exactly_its_own_tensors(architecture, start, stop, tmp_path):
    whole = save_tiny(tmp_path, architecture).state_dict()
    prefixes = [f"model.layers.{i}." for i in range(start, stop)]
    prefixes += ["model.embed_tokens."] * (start == 0)
    prefixes += ["model.norm.", "lm_head."] * (stop == LAYERS)
    expected = {name for name in whole if name.startswith(tuple(prefixes))}
    checkpoint = open_checkpoint(tmp_path)
    span = load_span(checkpoint, start, stop)
    loaded = span.module.state_dict()
    assert set(loaded) == expected
    assert all(torch.equal(loaded[name], whole[name]) for name in expected)
    unique = {tensor.data_ptr(): tensor.nbytes for tensor in loaded.values()}
    assert checkpoint.tensor_bytes(start, stop) == sum(unique.values())


def test_a_tied_head_is_the_embedding_matrix(tmp_path):
    whole = save_tiny(tmp_path, "cohere")
    checkpoint = open_checkpoint(tmp_path)
    assert "lm_head.weight" not in checkpoint.tensors
    edge = load_span(checkpoint, 3, LAYERS)
    assert torch.equal(edge.module.lm_head.weight, whole.model.embed_tokens.weight)
    both = load_span(checkpoint, 0, LAYERS).module
    assert both.lm_head.weight.data_ptr() == both.model.embed_tokens.weight.data_ptr()


@pytest.mark.parametrize("kept", ["both", "embedding", "head"])
def test_a_tied_pair_is_read_like_transformers_reads_it(kept, tmp_path):
    save_tiny(tmp_path, "gemma2", tie_word_embeddings=True)
    head, embedding = "lm_head.weight", "model.embed_tokens.weight"

    def store(tensors):
        if kept == "both":
            tensors[head] = tensors[embedding] + 1.0
        elif kept == "head":
            tensors[head] = tensors.pop(embedding)

    change_tensors(tmp_path, store)
    whole = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).state_dict()
    checkpoint = open_checkpoint(tmp_path)
    for start, stop in ((0, LAYERS), (0, 2), (2, LAYERS)):
        loaded = load_span(checkpoint, start, stop).module.state_dict()
        assert all(torch.equal(tensor, whole[name]) for name, tensor in loaded.items())


def test_tensors_that_no_layer_has_are_left_alone(folder):
    before = open_checkpoint(folder).span_tensors(0, LAYERS)
    extra = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(4) for i in range(2)}
    change_tensors(folder, lambda tensors: tensors.update(extra))
    checkpoint = open_checkpoint(folder)
    assert checkpoint.span_tensors(0, LAYERS) == before
    assert names_of(load_span(checkpoint, 0, LAYERS)) == before


def test_masks_and_position_ids_of_other_types_are_left_alone(folder):
    """Old checkpoints hold them; their names end like a bias."""
    before = open_checkpoint(folder)
    extra = {
        "model.embeddings.position_ids": torch.arange(9),
        "model.layers.0.self_attn.bias": torch.ones(3, 3, dtype=torch.bool),
        "model.layers.1.attn.mask": torch.ones(3, dtype=torch.uint8),
    }
    change_tensors(folder, lambda tensors: tensors.update(extra))
    checkpoint = open_checkpoint(folder)
    assert checkpoint.tensor_bytes(0, LAYERS) == before.tensor_bytes(0, LAYERS)
    assert names_of(load_span(checkpoint, 0, LAYERS)) == before.span_tensors(0, LAYERS)
    checkpoint.weights_sha256()
    assert checkpoint.tensor_sha256("model.layers.1.attn.mask") == sha256(b"\1\1\1")


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("tied", [False, True])
def test_a_base_model_without_its_prefix_is_loaded_as_transformers_does(tied, tmp_path):
    """As `AutoModel` saves it; a head of its own is then missing."""
    whole = save_tiny(tmp_path, "llama", tie_word_embeddings=tied)
    whole.model.save_pretrained(tmp_path)
    assert "layers.0.input_layernorm.weight" in load_file(tmp_path / WEIGHTS)
    change_config(tmp_path, architectures=None)
    checkpoint = open_checkpoint(tmp_path)
    if not tied:
        with pytest.raises(UserError, match="a model without a head; save it with AutoModelFor"):
            load_span(checkpoint, 2, LAYERS)
    for start, stop in ((0, 2), (2, LAYERS)) if tied else ((0, 2), (2, LAYERS - 1)):
        loaded = load_span(checkpoint, start, stop).module.state_dict()
        assert all(torch.equal(t, whole.state_dict()[name]) for name, t in loaded.items())


def test_a_quantisation_of_null_is_none(folder):
    change_config(folder, quantization_config=None)
    load_span(open_checkpoint(folder), 0, LAYERS)


@pytest.mark.parametrize(
    ("rope", "message"),
    [
        (
            {"type": "su", "factor": 2.0},
            "rope type .su. is none that transformers knows",
        ),
        ({"rope_type": None}, "rope type 'None' is none"),
        ({"rope_type": "linear", "factor": "x"}, "transformers can make no model of it .TypeError"),
    ],
)
def test_a_rotary_embedding_that_cannot_be_made_is_refused_before_it_is_loaded(
    folder, rope, message
):
    change_config(folder, rope_scaling=rope, rope_parameters=None)
    with pytest.raises(UserError, match=message):
        refuse_unbuildable(open_checkpoint(folder))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_known_architecture_can_be_built(architecture, tmp_path):
    save_tiny(tmp_path, architecture)
    refuse_unbuildable(open_checkpoint(tmp_path))


def test_an_open_checkpoint_travels_to_other_processes(folder):
    checkpoint = open_checkpoint(folder)
    copied = pickle.loads(pickle.dumps(checkpoint))
    assert copied.tensors == checkpoint.tensors
    assert names_of(load_span(copied, 1, 3)) == names_of(load_span(checkpoint, 1, 3))


def test_a_sharded_checkpoint_reads_only_the_shards_of_the_span(tmp_path):
    whole = save_tiny(tmp_path / "one", "qwen3")
    whole.save_pretrained(tmp_path / "many", max_shard_size="20KB")
    sharded = open_checkpoint(tmp_path / "many")
    assert len(sharded.files) > 3
    last_layer = {sharded.tensors[name].file for name in sharded.span_tensors(4, LAYERS)}
    edge = load_span(sharded, 4, LAYERS)
    one = load_span(open_checkpoint(tmp_path / "one"), 4, LAYERS)
    for name, tensor in one.module.state_dict().items():
        assert torch.equal(edge.module.state_dict()[name], tensor)
    for path in set(sharded.files) - last_layer:
        path.unlink()  # an open checkpoint needs no other shard than the span's own
    load_span(sharded, 4, LAYERS)


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("wanted", ["float32", "bfloat16"])
def test_weights_are_converted_to_the_wanted_type(folder, stored, wanted, monkeypatch):
    monkeypatch.setattr("raysplit.model.load._BLOCK_BYTES", 100)  # many blocks and a short last one
    change_tensors(folder, lambda t: t.update({k: v.to(stored) for k, v in t.items()}))
    expected = load_file(folder / WEIGHTS)
    loaded = load_span(open_checkpoint(folder), 0, LAYERS, dtype=wanted).module.state_dict()
    for name, tensor in expected.items():
        assert torch.equal(loaded[name], tensor.to(getattr(torch, wanted))), name


@pytest.mark.parametrize(
    ("architecture", "rope"),
    [
        (
            "llama",
            {
                "rope_type": "llama3",
                "rope_theta": 1e4,
                "factor": 4.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            },
        ),
        ("qwen3", {"rope_type": "linear", "rope_theta": 1e5, "factor": 2.0}),
    ],
)
def test_rotary_frequencies_are_computed_from_the_config(architecture, rope, tmp_path):
    save_tiny(tmp_path, architecture, rope_parameters=rope)
    whole = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    span = load_span(open_checkpoint(tmp_path), 0, LAYERS)
    assert torch.equal(span.module.model.rotary_emb.inv_freq, whole.model.rotary_emb.inv_freq)
    ids_BT = random_ids(2, 20)
    with torch.inference_mode():
        expected = whole(ids_BT, use_cache=False).logits
    logits = span.logits(span.finish(span.run(span.embed(ids_BT), 0, LAYERS)))
    assert torch.equal(logits, expected)


def test_the_hash_covers_every_byte_of_the_weights(folder):
    path = folder / WEIGHTS
    before = open_checkpoint(folder).weights_sha256()
    assert before == hashlib.sha256(path.read_bytes()).hexdigest()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert open_checkpoint(folder).weights_sha256() != before


def test_each_tensor_has_the_hash_of_its_own_bytes(folder):
    checkpoint = open_checkpoint(folder)
    name = "model.layers.2.mlp.up_proj.weight"
    assert checkpoint.tensor_sha256(name) is None  # nothing was read so far
    checkpoint.weights_sha256()
    for name, tensor in load_file(folder / WEIGHTS).items():
        expected = hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
        assert checkpoint.tensor_sha256(name) == expected
    sent = pickle.loads(pickle.dumps(checkpoint))  # as to an actor
    assert sent.tensor_sha256(name) == expected


def test_the_files_of_a_sharded_checkpoint_are_hashed_alike(tmp_path):
    save_tiny(tmp_path, "llama").save_pretrained(tmp_path, max_shard_size="20KB")
    (tmp_path / WEIGHTS).unlink(missing_ok=True)
    shards = sorted(tmp_path.glob("*.safetensors"))
    whole = hashlib.sha256(b"".join(shard.read_bytes() for shard in shards)).hexdigest()
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.weights_sha256() == whole
    load_span(checkpoint, 0, LAYERS)  # every tensor is found to be the one that was hashed


@pytest.mark.parametrize("name", ["model.layers.2.mlp.up_proj.weight", "model.norm.weight"])
def test_a_tensor_that_changed_since_it_was_hashed_is_refused(folder, name):
    checkpoint = open_checkpoint(folder)
    checkpoint.weights_sha256()
    change_tensors(folder, lambda tensors: tensors[name].view(-1)[-1].add_(1e-3))
    with pytest.raises(UserError, match=rf"{WEIGHTS}: tensor '{name}' is not the one") as error:
        load_span(checkpoint, 0, LAYERS)
    assert "\n" not in str(error.value)
    load_span(checkpoint, 0, 2)  # which holds neither


# --- damaged checkpoints -------------------------------------------------------------------------


def refused(folder, *words):
    with pytest.raises(UserError) as error:
        load_span(open_checkpoint(folder), 0, LAYERS)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("kept", [0, 5, 300, -1])
def test_a_truncated_file_is_refused(folder, kept):
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[:kept])
    refused(folder, WEIGHTS, "truncated")


def test_a_file_truncated_after_opening_is_refused(folder):
    checkpoint = open_checkpoint(folder)
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[:-8])
    with pytest.raises(UserError, match="ends before"):
        load_span(checkpoint, 0, LAYERS)


@pytest.mark.slow
def test_any_flipped_byte_of_the_header_is_refused_or_harmless(folder):
    content = (folder / WEIGHTS).read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    expected = load_span(open_checkpoint(folder), 0, LAYERS).module.state_dict()
    detected = 0
    for position in range(0, header, 37):
        damaged = bytearray(content)
        damaged[position] ^= 1
        (folder / WEIGHTS).write_bytes(damaged)
        try:
            loaded = load_span(open_checkpoint(folder), 0, LAYERS).module.state_dict()
        except UserError:
            detected += 1
        else:  # a bit of the padding or the free metadata
            assert all(torch.equal(loaded[name], expected[name]) for name in expected)
    assert detected > 0.9 * len(range(0, header, 37))


def test_a_missing_shard_is_named(tmp_path):
    save_tiny(tmp_path, "llama").save_pretrained(tmp_path, max_shard_size="20KB")
    (tmp_path / WEIGHTS).unlink(missing_ok=True)
    victim = sorted(tmp_path.glob("*.safetensors"))[1]
    victim.unlink()
    refused(tmp_path, victim.name, "missing")


def test_a_tensor_that_the_index_names_must_be_in_its_shard(tmp_path):
    save_tiny(tmp_path, "llama").save_pretrained(tmp_path, max_shard_size="20KB")
    index = tmp_path / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["model.extra.weight"] = min(content["weight_map"].values())
    index.write_text(json.dumps(content))
    refused(tmp_path, "model.extra.weight", "missing")


def test_a_missing_tensor_is_named_and_never_random(folder):
    change_tensors(folder, lambda t: t.pop("model.layers.2.mlp.up_proj.weight"))
    refused(folder, "model.layers.2.mlp.up_proj.weight", "missing")


def test_a_tensor_of_another_shape_is_refused(folder):
    change_config(folder, intermediate_size=48)
    refused(folder, "mlp.gate_proj.weight", "(56, 32)", "(48, 32)")


def test_integer_weights_are_refused(folder):
    name = "model.norm.weight"
    change_tensors(folder, lambda t: t.update({name: t[name].to(torch.int8)}))
    refused(folder, name, "I8")


def test_pickled_weights_are_refused(folder):
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")
    refused(folder, "pickled", "safetensors")


def test_a_folder_without_weights_or_config_is_refused(folder):
    (folder / WEIGHTS).unlink()
    refused(folder, WEIGHTS)
    (folder / "config.json").unlink()
    refused(folder, "no config.json")


def test_a_damaged_config_is_refused(folder):
    (folder / "config.json").write_text("{")
    refused(folder, "config.json", "not valid JSON")


def test_a_config_with_wrong_values_is_refused(folder):
    change_config(folder, num_hidden_layers="many")
    refused(folder, "config.json", "num_hidden_layers")


@pytest.mark.parametrize(("name", "value"), [("dtype", "float8"), ("attention", "flash")])
def test_an_unknown_way_of_loading_is_refused(folder, name, value):
    with pytest.raises(UserError, match=f"{name} '{value}' is not one of"):
        load_span(open_checkpoint(folder), 0, 1, **{name: value})


# --- unknown structures --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}, "'gpt2'"),
        ({"model_type": "t5", "is_encoder_decoder": True}, "encoder-decoder"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantised"),
        ({"auto_map": {"AutoModelForCausalLM": "modeling_x.XForCausalLM"}}, "remote code"),
        ({"auto_map": {"AutoModelForCausalLM": "modeling_x.LlamaForCausalLM"}}, "remote code"),
        ({"model_type": "x", "auto_map": {"AutoConfig": "configuration_x.X"}}, "remote code"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "not the language model"),
        ({"is_causal": False}, "bidirectional"),
    ],
)
def test_an_unknown_structure_is_refused_with_the_reason(folder, changes, reason):
    change_config(folder, **changes)
    refused(folder, "cannot split", reason)


def test_phi3s_own_code_has_become_part_of_transformers(tmp_path):
    save_tiny(tmp_path, "phi3")
    change_config(tmp_path, auto_map={"AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM"})
    assert open_checkpoint(tmp_path).architecture == "Phi3ForCausalLM"
    change_config(tmp_path, auto_map={"AutoModelForCausalLM": "modeling_x.Phi3Tuned"})
    refused(tmp_path, "remote code")


# --- where checkpoints lie -----------------------------------------------------------------------


@pytest.mark.parametrize("location", ["./nowhere", "/no/such/folder", "one-word", "a/b/c"])
def test_neither_folder_nor_id_is_refused(location):
    with pytest.raises(UserError, match="no such folder"):
        open_checkpoint(location)


@pytest.mark.parametrize("sharded", [False, True])
def test_an_id_is_found_in_the_local_cache_of_the_hub(sharded, tmp_path, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repo = tmp_path / "models--org--tiny"
    model = save_tiny(repo / "snapshots" / commit, "llama")
    if sharded:
        (repo / "snapshots" / commit / WEIGHTS).unlink()
        model.save_pretrained(repo / "snapshots" / commit, max_shard_size="20KB")
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    for revision in (None, "main", commit):
        checkpoint = open_checkpoint("org/tiny", revision, allow_download=False)
        assert checkpoint.folder.name == commit
        assert names_of(load_span(checkpoint, 0, LAYERS)) == set(model.state_dict())
    with pytest.raises(UserError, match="not in the local Hugging Face cache"):
        open_checkpoint("org/tiny", "other", allow_download=False)


def test_an_id_that_is_nowhere_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="'org/none'"):
        open_checkpoint("org/none")


# --- memory --------------------------------------------------------------------------------------

_MEASURE = """
import sys
from pathlib import Path
from raysplit.model.checkpoint import open_checkpoint
from raysplit.model.load import load_span, refuse_unbuildable

def status(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024

small, big = (open_checkpoint(folder) for folder in sys.argv[1:])
spans = [load_span(small, 1, small.layers)]  # imports and allocator pools
for dtype in ("float32", "bfloat16"):
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    spans.append(load_span(big, 1, big.layers, dtype=dtype))
    print((status("VmHWM") - before) / big.tensor_bytes(1, big.layers, dtype))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_loading_takes_the_spans_memory_and_no_more(tmp_path):
    save_tiny(tmp_path / "small", "llama")
    save_tiny(tmp_path / "big", "llama", hidden_size=512, intermediate_size=2048, vocab_size=20000)
    folders = [str(tmp_path / "small"), str(tmp_path / "big")]
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, *folders], capture_output=True, text=True, check=True
    )
    ratios = [float(ratio) for ratio in done.stdout.split()]
    assert len(ratios) == 2
    assert all(0.95 < ratio < 1.1 for ratio in ratios), ratios
