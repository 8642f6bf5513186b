"""Spans: UE and edge together are the whole model, to the last bit, wherever it is cut."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from raysplit.base.errors import UserError
from raysplit.model.chain import ModelPart, load_part
from raysplit.model.checkpoint import open_checkpoint
from raysplit.model.load import load_span
from raysplit.model.span import span_of
from tests.tiny_models import (
    ARCHITECTURES,
    LAYERS,
    WINDOW,
    random_ids,
    save_tiny,
    tiny_config,
    tiny_model,
)

LENGTHS = (WINDOW - 2, 3 * WINDOW + 1)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request):
    return tiny_model(request.param)


def whole_logits(model, ids_BT):
    with torch.inference_mode():
        return model(ids_BT, use_cache=False).logits


def edge_logits(edge, hidden_BTD, split_point):
    return edge.logits(edge.finish(edge.run(hidden_BTD, split_point, edge.stop)))


@pytest.mark.parametrize("tokens", LENGTHS)
def test_two_fresh_spans_equal_the_whole_at_every_split_point(model, tokens):
    ids_BT = random_ids(3, tokens)
    expected = whole_logits(model, ids_BT)
    for p in range(1, LAYERS):
        ue, edge = span_of(model, 0, p), span_of(model, p, LAYERS)
        assert torch.equal(edge_logits(edge, ue.run(ue.embed(ids_BT), 0, p), p), expected), p


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_loaded_spans_serve_every_split_point_like_transformers_own_loader(
    architecture, dtype, tmp_path
):
    save_tiny(tmp_path, architecture)
    whole = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=getattr(torch, dtype)).eval()
    ids_BT = random_ids(3, LENGTHS[1])
    expected = whole_logits(whole, ids_BT)
    checkpoint = open_checkpoint(tmp_path)
    ue = load_span(checkpoint, 0, LAYERS, dtype=dtype)
    edge = load_span(checkpoint, 1, LAYERS, dtype=dtype)
    hidden = ue.embed(ids_BT)
    split_points = tuple(range(1, LAYERS + 1))
    for p, kept in zip(split_points, ue.run(hidden, 0, LAYERS, keep=split_points), strict=True):
        assert kept.dtype == getattr(torch, dtype)
        assert torch.equal(kept, ue.run(hidden, 0, p))
        assert torch.equal(edge_logits(edge, kept, p), expected), p


def test_float32_is_float32_whatever_the_environment_asks_for(tmp_path):
    """TORCH_ALLOW_TF32_CUBLAS_OVERRIDE, or an earlier caller in this process."""
    save_tiny(tmp_path, "llama")
    torch.set_float32_matmul_precision("medium")
    try:
        load_part(ModelPart(checkpoint=open_checkpoint(tmp_path), start=0, stop=LAYERS))
        assert torch.get_float32_matmul_precision() == "highest"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_a_chain_of_three_spans_equals_the_whole(model):
    ids_BT = random_ids(2, LENGTHS[1])
    first, middle, last = span_of(model, 0, 2), span_of(model, 2, 4), span_of(model, 4, LAYERS)
    hidden = middle.run(first.run(first.embed(ids_BT), 0, 2), 2, 4)
    assert torch.equal(edge_logits(last, hidden, 4), whole_logits(model, ids_BT))


def test_padding_on_the_right_changes_no_real_position(model):
    span = span_of(model, 0, LAYERS)
    ids_BT = random_ids(1, 2 * WINDOW)
    padded_BT = torch.cat([ids_BT, random_ids(1, 4, seed=1)], dim=1)
    alone, padded = (
        edge_logits(span, span.embed(ids), 0)[:, : ids_BT.shape[1]] for ids in (ids_BT, padded_BT)
    )
    torch.testing.assert_close(alone, padded)


def test_keep_follows_the_given_order_and_includes_the_entry(model):
    span = span_of(model, 0, LAYERS)
    hidden = span.embed(random_ids(2, 6))
    before = hidden.clone()
    last, entry, second = span.run(hidden, 1, 4, keep=(4, 1, 2))
    assert torch.equal(entry, hidden)
    assert torch.equal(second, span.run(hidden, 1, 2))
    assert torch.equal(last, span.run(hidden, 1, 4))
    assert torch.equal(hidden, before)


def test_the_head_works_on_single_rows(model):
    edge = span_of(model, 2, LAYERS)
    normed = edge.finish(edge.run(torch.randn(2, 4, model.config.hidden_size), 2, LAYERS))
    rows = edge.logits(normed.reshape(-1, normed.shape[-1])[[1, 5]])
    torch.testing.assert_close(rows, edge.logits(normed).flatten(0, 1)[[1, 5]])


@pytest.mark.parametrize("architecture", sorted(set(ARCHITECTURES) - {"gemma2"}))
def test_short_sequences_take_the_fused_causal_kernel(architecture, monkeypatch):
    calls = []
    kernel = torch.nn.functional.scaled_dot_product_attention

    def spy(*args, **kwargs):
        calls.append((kwargs["attn_mask"], kwargs["is_causal"]))
        return kernel(*args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    span = span_of(tiny_model(architecture), 0, LAYERS)
    span.run(span.embed(random_ids(2, WINDOW - 1)), 0, LAYERS)
    assert calls == [(None, True)] * LAYERS


def test_spans_share_the_tensors_of_a_model_in_memory():
    model = tiny_model("llama")
    ue = span_of(model, 0, 2)
    assert ue.module.state_dict().keys() < model.state_dict().keys()
    assert ue.module.model.layers["1"] is model.model.layers[1]


def test_gemma2_runs_eager_and_says_so(tmp_path):
    save_tiny(tmp_path, "gemma2")
    checkpoint = open_checkpoint(tmp_path)
    assert load_span(checkpoint, 0, 1).config._attn_implementation == "eager"
    with pytest.raises(UserError, match="no sdpa attention"):
        load_span(checkpoint, 0, 1, attention="sdpa")


def test_eager_and_fused_attention_agree(tmp_path):
    save_tiny(tmp_path, "mistral")
    checkpoint = open_checkpoint(tmp_path)
    ids_BT = random_ids(2, LENGTHS[1])
    eager, fused = (
        edge_logits(span, span.embed(ids_BT), 0)
        for span in (load_span(checkpoint, 0, LAYERS, attention=kind) for kind in ("eager", "sdpa"))
    )
    torch.testing.assert_close(eager, fused)


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (2, 2), (3, 2), (0, LAYERS + 1)])
def test_a_range_outside_the_model_is_refused(start, stop):
    with pytest.raises(UserError, match=f"0 <= start < stop <= {LAYERS}"):
        span_of(tiny_model("llama"), start, stop)


def test_a_model_in_training_mode_is_refused():
    with pytest.raises(UserError, match=r"model\.eval"):
        span_of(tiny_model("llama").train(), 0, 2)


def test_an_unknown_model_in_memory_is_refused():
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=9)).eval()
    with pytest.raises(UserError, match="no known structure"):
        span_of(model, 0, 1)


def test_only_a_language_model_in_memory_is_taken():
    from transformers import LlamaForSequenceClassification

    model = LlamaForSequenceClassification(tiny_config("llama")).eval()
    with pytest.raises(UserError, match="not the language model"):
        span_of(model, 0, 1)


def test_a_stray_setting_of_another_architecture_changes_nothing():
    plain, stray = tiny_model("llama"), tiny_model("llama", logit_scale=0.5)
    hidden = torch.randn(2, 3, plain.config.hidden_size)
    first, second = (edge_logits(span_of(model, 2, LAYERS), hidden, 2) for model in (plain, stray))
    assert torch.equal(first, second)


@pytest.mark.parametrize("cap", [None, 0.5])
def test_gemma3_squashes_its_logits_only_where_the_config_says_so(cap):
    model = tiny_model("gemma3_text", final_logit_softcapping=cap)
    ids_BT = random_ids(2, 6)
    span = span_of(model, 0, LAYERS)
    logits = edge_logits(span, span.embed(ids_BT), 0)
    assert torch.equal(logits, whole_logits(model, ids_BT))
    assert (logits.abs().max() <= 0.5) == (cap is not None)


def test_windows_are_where_the_config_puts_them():
    qwen3 = span_of(tiny_model("qwen3"), 0, LAYERS)
    assert [qwen3._windowed(i) for i in range(LAYERS)] == [False, False, True, True, True]
    qwen2 = span_of(tiny_model("qwen2"), 0, LAYERS)
    assert [qwen2._windowed(i) for i in range(LAYERS)] == [False, False, True, True, True]
    everywhere = span_of(tiny_model("qwen2", use_sliding_window=False), 0, LAYERS)
    assert not any(everywhere._windowed(i) for i in range(LAYERS))
    gemma3 = span_of(tiny_model("gemma3_text"), 0, LAYERS)
    assert [gemma3._windowed(i) for i in range(LAYERS)] == [True, True, False, True, True]
    gemma2 = span_of(tiny_model("gemma2"), 0, LAYERS)
    assert [gemma2._windowed(i) for i in range(LAYERS)] == [True, False, True, False, True]
    assert not span_of(tiny_model("mistral", sliding_window=None), 0, 1)._windowed(0)
