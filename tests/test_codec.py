"""Codecs against closed forms: errors, exact bits, rotation, what a token's code depends on."""

import math
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from raysplit.base.errors import UserError
from raysplit.link.codec import IDENTITY, Codec
from raysplit.link.codec.agreed import dither, hadamard, signs
from raysplit.link.codec.codec import rotation_block
from raysplit.link.codec.quantise import LARGEST_CODE, code_range, dequantise, quantise
from raysplit.link.codec.rotation import rotate, unrotate
from raysplit.link.codec.roundtrip import roundtrip

B, T, D = 3, 7, 192
CPU = torch.device("cpu")
INTEGERS = ("int8", "int4", "int3")
LOSSY = (
    "fp8", "fp8/32", "int8", "int4", "int3", "int4/64", "int4-rotated", "int4-rotated/64",
    "int3-rotated/48", "int4-unbiased/64", "int8-rotated-unbiased", "top25%",
)  # fmt: skip


def hidden(seed: int = 0, shape: tuple[int, ...] = (B, T, D)) -> Tensor:
    """Hidden states with a few channels far larger than the rest, as models have them."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    values[..., 5] *= 40
    values[..., 100] *= 15
    return values


# --- names ----------------------------------------------------------------------------


def test_a_name_says_everything_about_a_codec() -> None:
    codec = Codec("int4-rotated-unbiased/64")
    found = (codec.kind, codec.rotated, codec.unbiased, codec.group, codec.kept_percent)
    assert found == ("int4", True, True, 64, 100)
    assert str(codec) == codec.name
    assert repr(codec) == "Codec(name='int4-rotated-unbiased/64')"
    assert Codec("fp8").group is None
    assert Codec("top5%").kept_percent == 5
    assert Codec("int4/64") == Codec("int4/64") != Codec("int4/32")
    assert len({Codec("int8"), Codec("int8"), IDENTITY}) == 2


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("int5", "unknown codec 'int5'; known: identity, bf16, .*did you mean 'int8'"),
        ("int4-rotatd/32", "did you mean 'int4-rotated/32'"),
        ("INT4/64", "did you mean 'int4/64'"),
        ("int4/0", "did you mean 'int4/64'"),
        ("int4/064", "unknown codec"),
        ("int4-unbiased-rotated", "did you mean 'int4-unbiased'"),
        ("int4 ", "did you mean 'int4'"),
        ("top25", "did you mean 'top25%'"),
        ("top0%", "unknown codec"),
        ("top100%", "unknown codec"),
        ("top25%/64", "did you mean 'top25%'"),
        ("identity/64", "unknown codec"),
        ("bf16-rotated", "unknown codec"),
        ("", "unknown codec"),
        ("fp8-unbiased", "no dither"),
        ("int4/1", "group of 2"),
    ],
)
def test_an_unknown_name_is_refused_in_one_line(name: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as refusal:
        Codec(name)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "hidden_size", "said"),
    [
        (
            "int4/100",
            576,
            "vector of 576 elements, which 100 does not divide: .* group of 96 or 144",
        ),
        ("int4/64", 32, "a group of 32"),
        ("int8/1000", 576, "a group of 576"),
        (
            "int4-rotated",
            100,
            "vector of 100 elements, which 8 does not divide: leave -rotated out",
        ),
    ],
)
def test_a_hidden_size_that_does_not_fit_is_refused(name, hidden_size, said) -> None:
    with pytest.raises(UserError, match=said) as refusal:
        Codec(name).check_hidden_size(hidden_size)
    assert "\n" not in str(refusal.value)
    with pytest.raises(UserError, match="cannot serve"):
        Codec(name).bits_per_token(hidden_size)


def test_names_need_no_torch() -> None:
    code = "import sys, raysplit.link.codec; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- bits -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("identity", 576 * 16),
        ("bf16", 576 * 16),
        ("fp16", 576 * 16),
        ("fp8", 576 * 8 + 16),
        ("int8", 576 * 8 + 16),
        ("int4", 576 * 4 + 16),
        ("int4-rotated", 576 * 4 + 16),
        ("int4/64", 576 * 4 + 9 * 16),
        ("int3-rotated/32", 576 * 3 + 18 * 16),
        ("top25%", 144 * 16 + 576),  # a mask of 576 bits is shorter than 144 indices of 10
        ("top1%", 6 * 16 + 6 * 10),  # 5.76 elements; indices are shorter than the mask
    ],
)
def test_exact_bits_on_the_air(name: str, bits: int) -> None:
    assert Codec(name).bits_per_token(576) == bits


def test_identity_sends_what_was_computed() -> None:
    assert IDENTITY.bits_per_token(10, computed_bits=32) == 320
    assert Codec("bf16").bits_per_token(10, computed_bits=32) == 160


@pytest.mark.parametrize("name", ["int4/64", "int4-rotated/64", "int3-rotated/48", "int8", "fp8"])
def test_codes_and_scales_fit_into_their_bits(name: str) -> None:
    """What is made of a token, written down bit by bit, is as long as the codec says."""
    codec = Codec(name)
    sent = quantise(hidden(), codec)
    codes, scales = sent.codes_BTGE[0, 0].flatten(), sent.scales_BTG1[0, 0].flatten()
    assert torch.equal(scales, scales.bfloat16().float())
    width = int(codec.kind[-1])
    if codec.kind == "fp8":
        written = [f"{byte:08b}" for byte in codes.view(torch.uint8).tolist()]
    else:
        assert torch.equal(codes, codes.round())
        written = [f"{int(code) % 2**width:0{width}b}" for code in codes.tolist()]
        lowest, largest = code_range(codec)
        assert -(2 ** (width - 1)) <= lowest <= codes.min()
        assert codes.max() <= largest < 2 ** (width - 1)
    written += [f"{word % 2**16:016b}" for word in scales.bfloat16().view(torch.int16).tolist()]
    assert len("".join(written)) == codec.bits_per_token(D)


# --- quantisers -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", INTEGERS)
@pytest.mark.parametrize("form", ["", "/64", "/2", "-unbiased", "-unbiased/48"])
def test_no_element_is_off_by_more_than_half_a_scale(kind: str, form: str) -> None:
    codec = Codec(kind + form)
    values = hidden()
    sent = quantise(values, codec)
    error = (dequantise(sent, codec) - values).unflatten(-1, sent.codes_BTGE.shape[-2:])
    assert (error.abs() <= sent.scales_BTG1 * (0.5 + 1e-5)).all()
    largest = values.unflatten(-1, sent.codes_BTGE.shape[-2:]).abs().amax(-1, keepdim=True)
    codes = LARGEST_CODE[kind] - (0.5 if "unbiased" in form else 0)
    assert torch.allclose(sent.scales_BTG1, largest / codes, rtol=2**-8)


def test_fp8_is_torchs_own_of_a_token_scaled_to_its_largest() -> None:
    values = hidden()
    scale = (values.abs().amax(-1, keepdim=True) / 448).bfloat16().float()
    expected = (values / scale).to(torch.float8_e4m3fn).float() * scale
    found = roundtrip(values, Codec("fp8"))
    assert torch.equal(found, expected)
    assert found.isfinite().all()
    relative = ((found - values) / values).abs()
    assert relative[values.abs() > scale * 2**-6].max() <= 1 / 16


def test_groups_keep_an_outlier_to_itself() -> None:
    """An element in a group of small ones has a small error, whatever the other groups hold."""
    values = torch.full((1, 1, 128), 0.1)
    values[..., 0] = 1000.0
    assert roundtrip(values, Codec("int4"))[0, 0, 64:].eq(0).all()
    kept = roundtrip(values, Codec("int4/64"))[0, 0, 64:]
    assert torch.allclose(kept, values[0, 0, 64:], rtol=2**-8)


def test_zeros_and_tiny_values_come_back() -> None:
    values = torch.zeros(1, 2, 64)
    values[0, 1] = 1e-38
    for name in (*INTEGERS, "fp8", "int4-rotated/32", "top25%"):
        found = roundtrip(values, Codec(name))
        assert found[0, 0].eq(0).all()
        assert found[0, 1].isfinite().all()


@pytest.mark.parametrize("name", [n for n in LOSSY if n != "top25%"])
def test_what_is_no_number_is_not_hidden(name: str) -> None:
    values = hidden()
    values[1, 2, 3], values[2, 2, 3] = math.nan, math.inf
    found = roundtrip(values, Codec(name))
    assert found[1, 2].isnan().any()
    assert not found[2, 2].isfinite().all()
    assert found[0].isfinite().all()


def test_the_mean_error_of_an_unbiased_codec_vanishes() -> None:
    """At one value: the error over many positions is that of an even spread over a step."""
    positions = 2000
    values = torch.full((1, positions, 16), 0.3)
    values[..., 0] = 1.0
    step = quantise(values, Codec("int3-unbiased")).scales_BTG1[0, 0, 0, 0].item()
    plain, unbiased = (
        roundtrip(values, Codec(name))[0, :, 1:] - 0.3 for name in ("int3", "int3-unbiased")
    )
    assert plain.mean().abs() > 0.03
    assert unbiased.mean(dim=0).abs().max() < 0.002 * step
    assert math.isclose(unbiased.square().mean().sqrt().item(), step / 12**0.5, rel_tol=0.01)


def test_a_dither_is_even_and_differs_between_elements() -> None:
    table = dither(512, 64, CPU)
    assert (table >= -0.5).all()
    assert (table < 0.5).all()
    assert table.mean(dim=0).abs().max() < 0.005
    assert len(table[0].unique()) == 64


# --- rotation -------------------------------------------------------------------------


@pytest.mark.parametrize("hidden_size", [8, 160, 576])
def test_the_rotation_is_orthogonal_and_has_an_inverse(hidden_size: int) -> None:
    values = hidden(shape=(B, T, 576))[..., :hidden_size] + 0.1
    rotated = rotate(values)
    largest = values.abs().max().item()
    assert torch.allclose(rotated.norm(dim=-1), values.norm(dim=-1), rtol=1e-4)
    assert torch.allclose(unrotate(rotated), values, atol=largest * 2**-15)
    block = rotation_block(hidden_size)
    expected = hidden_size & -hidden_size  # the power of two in it
    assert block == min(64, expected)
    # Independently: the matrix of signs (-1)^popcount(i & j), block by block.
    matrix = torch.tensor(
        [[(-1.0) ** (i & j).bit_count() for j in range(block)] for i in range(block)]
    )
    assert torch.equal(hadamard(block, CPU), matrix)
    flipped = (values * signs(hidden_size, CPU)).unflatten(-1, (-1, block))
    assert torch.allclose(
        rotated, (flipped @ matrix).flatten(-2) / block**0.5, atol=largest * 2**-14
    )


def test_the_rotation_adds_without_rounding() -> None:
    """So neither a device's order of adding nor a token's company can change a code."""
    values = hidden(2, (B, T, 576))
    step = values.abs().amax(-1, keepdim=True) / 2**17
    whole = (values * signs(576, CPU) / step).round().unflatten(-1, (-1, 64)).double()
    sums = whole @ hadamard(64, CPU).double()
    assert sums.abs().max() < 2**24
    assert torch.equal(rotate(values), sums.float().flatten(-2) * (step / 8))


def test_signs_are_fixed_and_balanced() -> None:
    found = signs(4096, CPU)
    assert found.abs().eq(1).all()
    assert found.sum().abs() < 4 * 4096**0.5
    # Another raysplit at the other end must know the same ones.
    assert "".join("+-"[int(s < 0)] for s in found[:16].tolist()) == "+--+-----+-----+"
    assert not torch.equal(signs(576, CPU), found[:576])


def test_rotation_tames_outliers() -> None:
    values = hidden(shape=(4, 32, 576))

    def error(name: str) -> float:
        return (roundtrip(values, Codec(name)) - values).norm().item()

    assert error("int4-rotated") < 0.5 * error("int4")
    assert error("int4-rotated/64") < 0.7 * error("int4/64")


@pytest.mark.parametrize(("kind", "codes"), [("int4", 16), ("int3", 8)])
def test_after_a_rotation_all_codes_are_used_halfway_between_whole_steps(kind, codes) -> None:
    codec = Codec(f"{kind}-rotated/64")
    values = torch.randn(4, 64, 576, generator=torch.Generator().manual_seed(3))
    sent = quantise(values, codec)
    assert sent.codes_BTGE.unique().tolist() == list(range(-codes // 2, codes // 2))
    rotated_BTGE = rotate(values).unflatten(-1, (-1, 64))
    largest = rotated_BTGE.abs().amax(-1, keepdim=True)
    assert torch.allclose(sent.scales_BTG1, largest / (codes / 2 - 0.5), rtol=2**-8)
    error = (sent.codes_BTGE + 0.5) * sent.scales_BTG1 - rotated_BTGE
    assert (error.abs() <= sent.scales_BTG1 * (0.5 + 1e-5)).all()
    # Even over a step; the rotation keeps an error's norm.
    even = (sent.scales_BTG1.square().mean() / 12).item()
    found = (roundtrip(values, codec) - values).square().mean().item()
    assert math.isclose(found, even, rel_tol=0.05)
    # A quantiser of whole steps over the same range has one code less.
    plain = Codec(f"{kind}/64")
    whole = (roundtrip(rotate(values), plain) - rotate(values)).square().mean().item()
    assert math.isclose(found / whole, ((codes / 2 - 1) / (codes / 2 - 0.5)) ** 2, rel_tol=0.06)


@pytest.mark.parametrize("name", ["int4-rotated/64", "int3-rotated/64", "int8-rotated/64"])
def test_a_channel_far_above_the_others_does_not_shrink(name: str) -> None:
    values = 0.01 * torch.randn(1, 20, 64, generator=torch.Generator().manual_seed(4))
    values[..., 9] = 100.0
    assert torch.allclose(roundtrip(values, Codec(name))[..., 9], values[..., 9], rtol=0.004)


# --- the largest alone ----------------------------------------------------------------


def test_the_largest_elements_are_kept_and_no_others() -> None:
    values = hidden(3)
    found = roundtrip(values, Codec("top10%"))
    kept = math.ceil(0.1 * D)
    for token, decoded in zip(values.flatten(0, 1), found.flatten(0, 1), strict=True):
        expected = sorted(range(D), key=lambda i: -abs(token[i].item()))[:kept]
        assert decoded.nonzero().flatten().tolist() == sorted(expected)
        assert torch.equal(decoded[expected], token[expected].bfloat16().float())


def test_of_equal_elements_the_first_are_kept() -> None:
    values = torch.tensor([[[1.0, -2.0, 2.0, 2.0, -2.0, 3.0, 1.0, 2.0]]])
    found = roundtrip(values, Codec("top50%"))
    assert found.tolist() == [[[0.0, -2.0, 2.0, 2.0, 0.0, 3.0, 0.0, 0.0]]]


def test_a_nan_among_the_largest_stays() -> None:
    values = hidden()
    values[0, 0, 7] = math.nan
    assert roundtrip(values, Codec("top25%"))[0, 0, 7].isnan()


# --- what a token's code depends on ---------------------------------------------------


@pytest.mark.parametrize("name", LOSSY)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_token_is_coded_alike_in_whatever_company(name: str, dtype: torch.dtype) -> None:
    """To the last bit: beside other sequences, before other tokens, or beside a huge one."""
    codec = Codec(name)
    values = hidden(1, (9, 11, D)).to(dtype)
    before = values.clone()
    together = roundtrip(values, codec)
    assert torch.equal(values, before)
    assert together.dtype == dtype
    assert together.shape == values.shape
    for rows in (slice(0, 1), slice(4, 9)):
        assert torch.equal(roundtrip(values[rows], codec), together[rows])
    assert torch.equal(roundtrip(values[:, :3], codec), together[:, :3])
    huge = values.clone()
    huge[:, 0] *= 1e4  # as an attention sink is
    assert torch.equal(roundtrip(huge, codec)[:, 1:], together[:, 1:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_identity_and_the_own_dtype_return_the_object_itself(dtype: torch.dtype) -> None:
    values = hidden().to(dtype)
    assert roundtrip(values, IDENTITY) is values
    for name, own in (("bf16", torch.bfloat16), ("fp16", torch.float16)):
        found = roundtrip(values, Codec(name))
        assert (found is values) == (dtype == own)
        assert found.dtype == dtype
        assert torch.equal(found, values.to(own).to(dtype))


# --- entropy coding -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["int8", "int4-rotated/64", "int3"])
def test_entropy_coded_codes_come_back_and_are_as_short_as_they_can_be(name: str) -> None:
    pytest.importorskip("constriction", reason="needs the extra entropy")
    from raysplit.link.codec.entropy import EntropyCoder, code_frequencies, integer_codes

    codec = Codec(name)
    sample, values = hidden(5, (400, D)), hidden(6, (100, D))
    frequencies = code_frequencies(sample, codec)
    coder = EntropyCoder(codec, frequencies)
    codes = integer_codes(values, codec)
    words = [coder.encode(token) for token in codes]
    for token, message in zip(codes, words, strict=True):
        assert (coder.decode(message, D) == token).all()
    # Shannon's bound for this table, and what a message may be longer: its last words.
    share = frequencies / frequencies.sum()
    bound = -math.fsum(math.log2(share[c - code_range(codec)[0]]) for c in codes.ravel())
    scales = 16 * codec.scales(D)
    measured = coder.bits_per_token(values)
    assert measured == 32 * sum(map(len, words)) / len(codes) + scales
    assert bound / len(codes) * 0.999 <= measured - scales <= bound / len(codes) * 1.001 + 64
    # Codes halfway are used nearly alike: so few of them do not pay for the last words.
    assert codec.halfway or measured < codec.bits_per_token(D)


def test_frequencies_count_the_codes() -> None:
    pytest.importorskip("constriction", reason="needs the extra entropy")
    from raysplit.link.codec.entropy import code_frequencies

    values = torch.tensor([[3.0, -3.0, 1.0, 0.0, 2.0, 2.0]])
    assert (code_frequencies(values, Codec("int3")) - 1).tolist() == [1, 0, 0, 1, 1, 2, 1]


@pytest.mark.parametrize("name", ["fp8", "identity", "top25%"])
def test_what_has_no_whole_codes_is_not_entropy_coded(name: str) -> None:
    from raysplit.link.codec.entropy import code_frequencies

    with pytest.raises(UserError, match="no whole codes"):
        code_frequencies(hidden(), Codec(name))
