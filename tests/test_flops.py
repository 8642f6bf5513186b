"""Cost: Eq. 2 as printed, and exact FLOPs against torch's own counter on the real models."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from raysplit.base.errors import UserError
from raysplit.model.flops import (
    head_flops,
    layer_flops,
    ue_flops,
    ue_flops_as_printed,
    ue_share,
    whole_flops,
)
from raysplit.model.span import span_of
from tests.tiny_models import ARCHITECTURES, LAYERS, random_ids, tiny_config, tiny_model


def counted(run) -> int:
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), counter:
        run()
    return counter.get_total_flops()


def test_eq_2_as_printed():
    # p = 1: one layer of 12 d_in d_mid^2; each further one adds 12 d_mid^3, without d_in.
    assert ue_flops_as_printed(1, 20, 4096) == 12 * 20 * 4096**2
    assert ue_flops_as_printed(3, 20, 4096) == 12 * 20 * 4096**2 + 24 * 4096**3
    assert ue_flops_as_printed(2, 7, 10) == 12 * 7 * 100 + 12 * 1000


def test_eq_2_has_no_p_below_one():
    with pytest.raises(UserError, match="from p = 1"):
        ue_flops_as_printed(0, 20, 10)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("tokens", [3, 19])
def test_the_whole_model_equals_torchs_counter(architecture, tokens):
    model = tiny_model(architecture)
    ids_BT = random_ids(1, tokens)
    assert whole_flops(model.config, tokens) == counted(lambda: model(ids_BT, use_cache=False))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("tokens", [1, 4, 19])
def test_each_part_equals_torchs_counter(architecture, tokens):
    model = tiny_model(architecture)
    config, span = model.config, span_of(model, 0, LAYERS)
    ids_BT = random_ids(1, tokens)
    hidden = span.embed(ids_BT)
    assert counted(lambda: span.embed(ids_BT)) == 0
    assert layer_flops(config, tokens) == counted(lambda: span.run(hidden, 1, 2))
    assert head_flops(config, tokens) == counted(lambda: span.logits(span.finish(hidden)))
    for p in (0, 1, 3, LAYERS):
        assert ue_flops(config, p, tokens) == counted(lambda p=p: span.run(hidden, 0, p))


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        ("llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 12}),
        ("llama", {"num_key_value_heads": 4, "tie_word_embeddings": True}),
        ("phi3", {"num_key_value_heads": 1}),
        ("gemma3_text", {"attention_bias": True, "num_key_value_heads": 1}),
    ],
)
def test_unusual_shapes_equal_torchs_counter(architecture, changes):
    model = tiny_model(architecture, **changes)
    assert whole_flops(model.config, 11) == counted(
        lambda: model(random_ids(1, 11), use_cache=False)
    )


def test_the_share_grows_with_p_and_leaves_the_head_at_the_edge():
    config = tiny_config("llama")
    shares = [ue_share(config, p, 19) for p in range(LAYERS + 1)]
    assert shares[0] == 0.0
    assert shares == sorted(set(shares))
    head_share = head_flops(config, 19) / whole_flops(config, 19)
    assert shares[-1] == pytest.approx(1.0 - head_share, rel=1e-12)
    assert 0.0 < head_share < 1.0


@pytest.mark.parametrize("p", [-1, LAYERS + 1])
def test_a_split_point_outside_the_model_is_refused(p):
    with pytest.raises(UserError, match=f"0 <= p <= {LAYERS}"):
        ue_share(tiny_config("llama"), p, 19)
