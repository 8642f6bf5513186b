"""The budget: closed forms, hand calculations of other devices and prompts, limits, units."""

import dataclasses

import numpy as np
import pytest

from raysplit.base.errors import UserError
from raysplit.budget import bits_per_token, load_setup, split_costs
from raysplit.budget.bits import usual_codecs
from raysplit.budget.costs import refuse_unless_some_fit
from raysplit.budget.setup import Edge, Network, Phone, Request, Setup
from raysplit.model.sizes import Sizes, sizes_of

LLAMA2_7B = sizes_of("llama2-7b")
# Grouped queries, and heads that are wider than hidden size / heads.
SMALL = Sizes(
    name="small",
    num_hidden_layers=3,
    hidden_size=8,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=3,
    intermediate_size=10,
    vocab_size=7,
    tie_word_embeddings=True,
)


def small_setup(prompt=5, output=4, phone=(), edge=(), network=()):
    """Rates so low that the small model takes seconds: FLOP/s and bytes/s are told in comments."""
    device = {
        "compute_tflops": 2e-9,  # 2,000 FLOP/s
        "compute_utilisation": 0.5,  # of which 1,000 are reached
        "bandwidth_gb_s": 4e-7,  # 400 bytes/s
        "bandwidth_utilisation": 0.25,  # of which 100
        "memory_gb": 1.0,
        "weight_bits": 4.0,
        "kv_bits": 8.0,
    }
    power = {"compute_power_w": 3.0, "wait_power_w": 0.5}
    radio = {
        "uplink_mbit_s": 1e-3,  # 1,000 bit/s
        "rtt_ms": 250.0,
        "radio_base_w": 2.0,
        "radio_mw_per_mbit_s": 1e6,  # 1 kW per Mbit/s, so that 1 kbit/s adds 1 W
    }
    return Setup(
        phone=Phone(**{**device, **power, **dict(phone)}),
        edge=Edge(**{**device, **dict(edge)}),
        network=Network(**{**radio, **dict(network)}),
        request=Request(prompt_tokens=prompt, output_tokens=output),
    )


@pytest.mark.parametrize(
    ("codec", "bits"),
    [
        ("identity", 65536),
        ("bf16", 65536),
        ("fp8", 4096 * 8 + 16),
        ("int8", 4096 * 8 + 16),
        ("int4", 4096 * 4 + 16),
        ("int4/64", 4096 * 4.25),
        ("int4-rotated/64", 4096 * 4.25),
        ("int4-unbiased/32", 4096 * 4.5),
        ("int3-rotated/64", 4096 * 3.25),
        ("top25%", 1024 * 16 + 4096),  # a mask is shorter than 1,024 indices of 12 bits
        ("top1%", 41 * 16 + 41 * 12),  # and here it is not
    ],
)
def test_bits_of_a_token(codec, bits):
    assert bits_per_token(codec, 4096) == bits


@pytest.mark.parametrize("codec", ["int5", "INT8", "int4/0", "int4/", "top0%", "top100%", ""])
def test_an_unknown_codec_is_refused(codec):
    with pytest.raises(UserError, match="unknown codec"):
        bits_per_token(codec, 64)


def test_a_group_that_does_not_divide_the_hidden_size_is_refused_with_one_that_does():
    with pytest.raises(UserError, match="does not divide: take a group of 40 or 80"):
        bits_per_token("int4-rotated/64", 160)


@pytest.mark.parametrize("size", [64, 160, 576, 2048, 100, 7])
def test_the_usual_codecs_serve_every_hidden_size_in_falling_order(size):
    bits = [bits_per_token(codec, size) for codec in usual_codecs(size)]
    assert bits == sorted(set(bits), reverse=True)


@pytest.mark.parametrize(
    ("codec", "mbit_s", "expected"),
    [
        ("identity", 0.83, 40.4),
        ("identity", 13.3, 2.5),
        ("identity", 165.0, 0.20),
        ("int4/64", 0.83, 10.7),
        ("int4/64", 13.3, 0.67),
        ("int4/64", 165.0, 0.05),
    ],
)
def test_a_prompt_of_512_tokens_on_the_air(codec, mbit_s, expected):
    setup = load_setup("flagship", "h100", "lte", overrides=[f"network.uplink_mbit_s={mbit_s}"])
    air_s_P = split_costs(LLAMA2_7B, setup, codec).prefill.air_s_P
    bits = 16 if codec == "identity" else 4.25
    assert air_s_P == pytest.approx(512 * 4096 * bits / (mbit_s * 1e6), rel=1e-12)
    assert air_s_P == pytest.approx(expected, rel=0.015, abs=0.005)


def test_llama2_7b_by_hand_on_another_phone_and_prompt():
    # A layer: four 4096 x 4096 matrices and three of 4096 x 11008. Phone 2 TFLOP/s and 20 GB/s at
    # 4 bits, edge 80 TFLOP/s and 600 GB/s at 16 bits, 10 Mbit/s, 50 ms, prompt 1,000, answer 2.
    setup = load_setup(
        "flagship",
        "rtx-4090",
        "lte",
        prompt_tokens=1000,
        output_tokens=2,
        overrides=[
            *("phone.compute_tflops=2", "phone.compute_utilisation=1", "phone.bandwidth_gb_s=40"),
            *("phone.bandwidth_utilisation=0.5", "phone.weight_bits=4", "phone.kv_bits=16"),
            *("phone.compute_power_w=5", "phone.wait_power_w=1"),
            *("edge.compute_tflops=160", "edge.compute_utilisation=0.5", "edge.weight_bits=16"),
            *("edge.bandwidth_gb_s=600", "edge.bandwidth_utilisation=1", "edge.kv_bits=16"),
            *("network.uplink_mbit_s=10", "network.rtt_ms=50", "network.radio_base_w=3"),
            "network.radio_mw_per_mbit_s=50",
        ],
    )
    costs = split_costs(LLAMA2_7B, setup, "int8", split_points=[8])
    weights = 4 * 4096**2 + 3 * 4096 * 11008
    assert weights == 202_375_168
    head = 32000 * 4096
    prompt_flops = 1000 * (2 * weights + 4 * 1000 * 4096)
    ue_s = 8 * prompt_flops / 2e12
    air_s = 1000 * (4096 * 8 + 16) / 10e6
    edge_s = (24 * prompt_flops + 2 * head) / 80e12
    assert costs.prefill.ue_s_P[0] == pytest.approx(ue_s, rel=1e-9)
    assert costs.prefill.edge_s_P[0] == pytest.approx(edge_s, rel=1e-9)
    assert costs.ttft_s_P[0] == pytest.approx(ue_s + air_s + 0.05 + edge_s, rel=1e-9)
    # One more token attends to 1,001 positions; both devices wait for their memory.
    kv = 2 * 4096 * 2
    step_ue_s = 8 * (weights / 2 + 1001 * kv) / 20e9
    step_edge_s = (24 * weights * 2 + head * 2 + 24 * 1001 * kv) / 600e9
    step_s = step_ue_s + (4096 * 8 + 16) / 10e6 + 0.05 + step_edge_s
    assert costs.tpot_s_P[0] == pytest.approx(step_s, rel=1e-9)
    radio_w = 3 + 0.050 * 10
    energy_j = 5 * (ue_s + step_ue_s) + radio_w * 1001 * (4096 * 8 + 16) / 10e6
    energy_j += 1 * (0.1 + edge_s + step_edge_s)
    assert costs.ue_energy_j_P[0] == pytest.approx(energy_j, rel=1e-9)
    assert costs.bits_P[0] == 1001 * (4096 * 8 + 16)
    assert costs.ue_memory_bytes_P[0] == 8 * weights / 2 + head / 2 + 8 * kv * 1002
    assert costs.edge_memory_bytes_P[0] == 24 * weights * 2 + head * 2 + 24 * kv * 1002


def simulated(setup, p):
    """One request on the small model, position by position: seconds and joules in all."""
    q, kv, d, f, layers = 12, 6, 8, 10, 3
    weights = d * q + 2 * d * kv + q * d + 3 * d * f
    clock, joules = 0.0, 0.0
    keys = 0
    passes = [setup.request.prompt_tokens, *[1] * (setup.request.output_tokens - 1)]
    for positions in passes:
        keys += positions
        times = {}
        for name, device, count, head in (
            ("phone", setup.phone, p, 0),
            ("edge", setup.edge, layers - p, 7 * d),
        ):
            macs = count * positions * (weights + 2 * keys * q) + head
            moved = (count * weights + head) * device.weight_bits / 8
            moved += count * keys * 2 * kv * device.kv_bits / 8
            rate = device.compute_tflops * 1e12 * device.compute_utilisation
            bandwidth = device.bandwidth_gb_s * 1e9 * device.bandwidth_utilisation
            times[name] = max(2 * macs / rate, moved / bandwidth)
        air = positions * d * 16 / 1e3
        clock += times["phone"] + air + 0.25 + times["edge"]
        joules += 3.0 * times["phone"] + 3.0 * air + 0.5 * (0.25 + times["edge"])
    return clock, joules


@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("output", [1, 2, 9])
@pytest.mark.parametrize(
    "phone", [{}, {"compute_tflops": 1e-6}, {"bandwidth_gb_s": 1.0}], ids=["both", "memory", "peak"]
)
def test_a_request_is_the_sum_of_its_passes(p, output, phone):
    setup = small_setup(output=output, phone=phone, edge=phone)
    request = split_costs(SMALL, setup, "identity", [p]).request
    seconds, joules = simulated(setup, p)
    assert request.total_s_P[0] == pytest.approx(seconds, rel=1e-12)
    assert request.ue_energy_j_P[0] == pytest.approx(joules, rel=1e-12)


def test_an_answer_of_one_token_is_its_prompt_alone():
    costs = split_costs(SMALL, small_setup(output=1), "identity")
    assert np.array_equal(costs.request.total_s_P, costs.ttft_s_P)
    assert np.array_equal(costs.bits_P, costs.prefill.bits_P)
    assert costs.tpot_s_P == pytest.approx(
        split_costs(SMALL, small_setup(output=2), "identity").tpot_s_P
    )


def test_every_split_point_alone_is_as_among_all():
    setup = small_setup()
    whole = split_costs(SMALL, setup, "int8")
    assert list(whole.split_points_P) == [1, 2, 3]
    for p in (1, 2, 3):
        one = split_costs(SMALL, setup, "int8", [p])
        assert one.ttft_s_P[0] == whole.ttft_s_P[p - 1]
        assert one.tpot_s_P[0] == whole.tpot_s_P[p - 1]
        assert one.ue_memory_bytes_P[0] == whole.ue_memory_bytes_P[p - 1]


def test_what_grows_and_what_falls_with_p():
    costs = split_costs(LLAMA2_7B, load_setup("sustained", "jetson-orin", "5g-low-band"), "int8")
    for passes in (costs.prefill, costs.decode, costs.request):
        assert (np.diff(passes.ue_s_P) > 0).all()
        assert (np.diff(passes.edge_s_P) < 0).all()
        assert (np.diff(passes.air_s_P) == 0).all()
        parts = passes.ue_s_P + passes.air_s_P + passes.rtt_s_P + passes.edge_s_P
        assert passes.total_s_P == pytest.approx(parts)
    assert (np.diff(costs.ue_memory_bytes_P) > 0).all()
    assert (np.diff(costs.edge_memory_bytes_P) < 0).all()


@pytest.mark.parametrize(
    ("worse", "field"),
    [
        (["network.uplink_mbit_s=1"], "ttft_s_P"),
        (["network.uplink_mbit_s=1"], "ue_energy_j_P"),
        (["network.rtt_ms=300"], "tpot_s_P"),
        (["network.radio_base_w=9"], "ue_energy_j_P"),
        (["network.radio_mw_per_mbit_s=300"], "ue_energy_j_P"),
        (["phone.compute_tflops=1"], "ttft_s_P"),
        (["phone.bandwidth_gb_s=10"], "tpot_s_P"),
        (["phone.weight_bits=16"], "tpot_s_P"),
        (["phone.weight_bits=16"], "ue_memory_bytes_P"),
        (["phone.kv_bits=32"], "ue_memory_bytes_P"),
        (["phone.compute_power_w=20"], "ue_energy_j_P"),
        (["phone.wait_power_w=3"], "ue_energy_j_P"),
        (["request.prompt_tokens=2000"], "ttft_s_P"),
        (["request.output_tokens=500"], "ue_energy_j_P"),
        (["request.output_tokens=5000"], "tpot_s_P"),
    ],
)
def test_a_worse_device_network_or_request_costs_more(worse, field):
    setups = (load_setup("flagship", "h100", "lte", overrides=o) for o in ([], worse))
    before, after = (getattr(split_costs(LLAMA2_7B, s, "int8"), field) for s in setups)
    assert (after > before).all()


def test_fewer_bits_cost_less_and_change_nothing_else():
    setup = load_setup("flagship", "h100", "lte")
    dear, cheap = (split_costs(LLAMA2_7B, setup, c) for c in ("int8", "int3/64"))
    for field in ("ttft_s_P", "tpot_s_P", "ue_energy_j_P", "bits_P"):
        assert (getattr(cheap, field) < getattr(dear, field)).all()
    assert np.array_equal(cheap.prefill.ue_s_P, dear.prefill.ue_s_P)
    assert np.array_equal(cheap.ue_memory_bytes_P, dear.ue_memory_bytes_P)


def test_a_split_fits_up_to_the_last_byte():
    setup = small_setup(prompt=5, output=4)
    bytes_P = split_costs(SMALL, setup, "identity").ue_memory_bytes_P
    # Two layers of 528 weights and the embedding at 4 bits; 9 positions of 12 elements at 8 bits.
    assert bytes_P[1] == (2 * 528 + 56) / 2 + 2 * 9 * 12
    exact = small_setup(phone={"memory_gb": bytes_P[1] / 1e9})
    assert list(split_costs(SMALL, exact, "identity").fits_P) == [True, True, False]
    short = small_setup(phone={"memory_gb": (bytes_P[1] - 1) / 1e9})
    assert list(split_costs(SMALL, short, "identity").fits_P) == [True, False, False]
    edge = small_setup(edge={"memory_gb": bytes_P[1] / 1e9})  # edge has the head, as large
    assert list(split_costs(SMALL, edge, "identity").fits_P) == [True, True, True]
    edge = small_setup(edge={"memory_gb": (bytes_P[1] - 1) / 1e9})
    assert list(split_costs(SMALL, edge, "identity").fits_P) == [False, True, True]


@pytest.mark.parametrize(
    ("phone_gb", "edge_gb", "message"),
    [
        (3e-7, 1, "the phone is too small for small: even p = 1 takes 4e-07 GB"),
        (1, 1e-8, "the edge is too small for small: even p = 3 takes 2.8e-08 GB"),
        (5e-7, 5e-7, "no split of small fits"),
    ],
)
def test_where_nothing_fits_it_is_said_what_is_too_small(phone_gb, edge_gb, message):
    setup = small_setup(phone={"memory_gb": phone_gb}, edge={"memory_gb": edge_gb})
    costs = split_costs(SMALL, setup, "identity")
    assert not costs.fits_P.any()
    with pytest.raises(UserError, match=message):
        refuse_unless_some_fit(SMALL, setup, costs)


@pytest.mark.parametrize("split_points", [[0], [1, 4], [-1]])
def test_a_split_point_outside_the_model_is_refused(split_points):
    with pytest.raises(UserError, match="choose 1 <= p <= 3"):
        split_costs(SMALL, small_setup(), "identity", split_points)


def test_records_are_frozen():
    costs = split_costs(SMALL, small_setup(), "identity")
    with pytest.raises(dataclasses.FrozenInstanceError):
        costs.codec = "int8"
