"""What a step of the split point costs: who sends what, and how it follows from the budget."""

import numpy as np
import pytest

from raysplit.base.errors import UserError
from raysplit.budget import load_setup, moving_costs, split_costs
from raysplit.model.sizes import sizes_of

SETUP = load_setup("mid-range", "rtx-4090", "5g-low-band")
# Hidden size, and keys and values of a token in one layer; what is sent is the smaller.
ELEMENTS = {
    "smollm2-135m": (576, 384),
    "llama2-7b": (4096, 8192),
    "openchat-8b": (4096, 2048),  # Llama 3 8B's shape
}


@pytest.mark.parametrize(("model", "elements"), ELEMENTS.items(), ids=list(ELEMENTS))
@pytest.mark.parametrize(("codec", "bits"), [("identity", 16), ("int4-rotated/64", 4.25)])
def test_down_sends_the_smaller_of_hidden_states_and_cache(model, elements, codec, bits):
    sizes = sizes_of(model)
    assert (sizes.hidden_size, sizes.kv_elements) == elements
    down = moving_costs(sizes, SETUP, codec, 300).down
    assert down.bits == 300 * min(elements) * bits
    assert down.sends == ("hidden states" if min(elements) == elements[0] else "keys and values")


def test_keys_and_values_need_no_computing_and_hidden_states_do():
    radio_w = 3.20 + 0.0322 * 20
    cache = moving_costs(sizes_of("smollm2-135m"), SETUP, "identity", 1000).down
    assert cache.seconds == pytest.approx(1000 * 384 * 16 / 20e6)
    assert cache.ue_energy_j == pytest.approx(radio_w * cache.seconds)
    hidden = moving_costs(sizes_of("llama2-7b"), SETUP, "identity", 1000).down
    air_s = 1000 * 4096 * 16 / 20e6
    edge_s = 1000 * (2 * 202_375_168 + 4 * 1000 * 4096) / (165.2e12 * 0.5)
    assert hidden.seconds == pytest.approx(air_s + edge_s)
    assert hidden.ue_energy_j == pytest.approx(radio_w * air_s + 1.2 * edge_s)


def test_where_both_are_as_large_the_cache_is_sent():
    # One query group a quarter as wide: 2 x 8 x 128 = 2,048 = the hidden size.
    from dataclasses import replace

    sizes = replace(sizes_of("openchat-8b"), hidden_size=2048)
    assert moving_costs(sizes, SETUP, "int8", 10).down.sends == "keys and values"


@pytest.mark.parametrize("model", ELEMENTS)
def test_up_takes_what_one_layer_more_takes_of_a_prompt(model):
    sizes = sizes_of(model)
    setup = load_setup("mid-range", "rtx-4090", "5g-low-band", prompt_tokens=777)
    up = moving_costs(sizes, setup, "int8", 777).up
    ue_s_P = split_costs(sizes, setup, "int8").prefill.ue_s_P
    assert np.diff(ue_s_P) == pytest.approx(up.seconds)
    assert up.ue_energy_j == pytest.approx(up.seconds * 4.0)
    assert (up.bits, up.sends) == (0, "nothing")


def test_both_directions_grow_with_the_context():
    sizes = sizes_of("llama2-7b")
    short, long = (moving_costs(sizes, SETUP, "int8", tokens) for tokens in (100, 200))
    assert long.down.bits == 2 * short.down.bits
    # Attention grows with the square, and a short context may not keep the phone busy.
    assert long.up.seconds > short.up.seconds
    assert long.down.ue_energy_j > short.down.ue_energy_j


def test_no_context_and_what_the_codec_cannot_serve_are_refused():
    with pytest.raises(UserError, match="context of 0 tokens"):
        moving_costs(sizes_of("llama2-7b"), SETUP, "int8", 0)
    with pytest.raises(UserError, match="cannot serve a vector of 160 elements"):
        moving_costs(sizes_of("embedded"), SETUP, "int4/64", 10)
