"""What the link does to hidden states, against Eq. 3 and Eq. 4 by hand or by closed form."""

import math
import subprocess
import sys
from functools import partial

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from raysplit.base.errors import UserError
from raysplit.link.channel import Received, batch_generator, transmit
from raysplit.link.codec import IDENTITY, Codec
from raysplit.link.codec.roundtrip import roundtrip
from raysplit.link.config import LinkConfig
from raysplit.link.coordinates import link_state, perfect_values
from raysplit.link.fading import fading_scale_for_outage, outage_probability
from raysplit.link.gains import draw_gains
from raysplit.link.signal import SignalSums, signal_sums
from raysplit.link.state import LinkState

B, T, D = 6, 11, 8
LENGTHS_B = torch.tensor([11, 7, 1, 10, 4, 2])
EVERY_FADING = ("none", "rayleigh", "rician", "nakagami")
PACKETS = ("token", "sentence", "element")


def hidden(seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(B, T, D, generator=torch.Generator().manual_seed(seed)).to(dtype)


def sent(config: LinkConfig) -> Tensor:
    """Positions that cross the link, worked out without the code under test."""
    first = 1 if config.exempt_prefix else 0
    return torch.tensor([[first <= t < length for t in range(T)] for length in LENGTHS_B.tolist()])


def send(
    hidden_BTD: Tensor,
    state: LinkState,
    config: LinkConfig,
    seed: int = 0,
    lengths_B: Tensor = LENGTHS_B,
    **keywords: object,
) -> Received:
    generator = batch_generator(seed, 0, hidden_BTD.device)
    lengths_B = lengths_B.to(hidden_BTD.device)
    return transmit(hidden_BTD, lengths_B, state, config, generator, **keywords)


def big(value: float = 1.0) -> tuple[Tensor, Tensor]:
    """Constant hidden states, long enough for statistics, and their lengths."""
    return torch.full((40, 50, 64), value), torch.full((40,), 50)


# --- the state ------------------------------------------------------------------------


def test_state_names_only_what_differs_from_a_perfect_link() -> None:
    assert LinkState().as_dict() == {}
    state = LinkState(loss_probability=0.1, snr_db=0.0, fading_scale=2)
    assert list(state.as_dict().items()) == [
        ("snr_db", 0.0),
        ("fading_scale", 2.0),
        ("loss_probability", 0.1),
    ]


def test_every_packet_may_be_lost() -> None:
    everything = send(hidden(), LinkState(loss_probability=1.0), LinkConfig())
    assert torch.equal(everything.hidden_BTD == 0, sent(LinkConfig())[:, :, None].expand(B, T, D))


def test_a_state_needs_a_value_for_each_name() -> None:
    for values in ([], [1.0, 2.0]):
        with pytest.raises(ValueError, match="argument 2"):
            link_state(("noise_std",), values)


def test_state_has_one_form_for_one_number() -> None:
    assert repr(LinkState(noise_std=-0.0, fading_scale=1)) == repr(LinkState())
    assert link_state(("noise_std",), (1,)) == LinkState(noise_std=1.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"noise_std": -0.1}, "noise_std=-0.1 is not possible: it must be at least 0"),
        ({"noise_std": math.nan}, "noise_std=nan"),
        ({"snr_db": math.inf}, "^snr_db=inf is not possible: it must be a number of dB "),
        ({"fading_scale": 0.0}, "^fading_scale=0 is not possible: it must be above 0$"),
        ({"loss_probability": 1.5}, r"^loss_probability=1.5 is not .*: it must be in \[0, 1\]$"),
        ({"loss_probability": -0.5}, "^loss_probability=-0.5 is not possible"),
        ({"outage_probability": 1.0}, r"^outage_probability=1 is not .*must be inside \(0, 1\)"),
        ({"noise_std": 0.5, "snr_db": 3.0}, "leave one of them out"),
    ],
)
def test_impossible_state_is_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        LinkState(**values)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("noise_sd",), "did you mean 'noise_std'"),
        (("noise_std", "noise_std"), "repeat"),
        (("noise_std", "snr_db"), "both set the noise: choose one"),
        (("outage_probability", "fading_scale"), "both set the fading: choose one"),
    ],
)
def test_impossible_coordinates_are_refused(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        link_state(names, [0.0] * len(names))


# --- the kind of link -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"fading": "rayleigh", "gain_threshold": -1.0}, "must be at least 0"),
        ({"rician_k": -1.0}, "rician_k=-1 is not possible"),
        ({"nakagami_m": 0.4}, "must be at least 0.5"),
        ({"gain_threshold": 0.1}, "has no effect without fading"),
        ({"packet": "sentence", "concealment": "hold_last"}, "nothing to hold"),
        ({"fading": "rice"}, "rician"),
    ],
)
def test_inconsistent_link_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LinkConfig.model_validate(values)


def test_a_scale_without_fading_is_refused() -> None:
    with pytest.raises(UserError, match="no effect with fading=none"):
        LinkConfig().check_coordinates(("fading_scale",))
    with pytest.raises(UserError, match="no effect with fading=none"):
        send(hidden(), LinkState(fading_scale=0.5), LinkConfig())


OUTAGES = [
    LinkConfig(fading="rayleigh", gain_threshold=0.5),
    LinkConfig(fading="rician", gain_threshold=0.3, rician_k=2.0),
    LinkConfig(fading="nakagami", gain_threshold=0.7, nakagami_m=0.8),
]


@pytest.mark.parametrize("config", OUTAGES, ids=lambda config: config.fading)
@pytest.mark.parametrize("probability", [0.02, 0.3])
def test_the_outage_probability_is_the_share_of_packets_lost(
    config: LinkConfig, probability: float
) -> None:
    state = link_state(("noise_std", "outage_probability"), (0.1, probability), config)
    sent_BTD, lengths_B = big(1.0)
    received_BTD = send(sent_BTD, state, config, lengths_B=lengths_B).hidden_BTD[:, 1:]
    lost = (received_BTD == 0).all(dim=2).double().mean()
    assert abs(lost - probability) <= 4 * (probability * (1 - probability) / (40 * 49)) ** 0.5
    assert outage_probability(config, state.fading_scale) == pytest.approx(probability, rel=1e-9)


def test_an_outage_is_known_by_the_fading_scale_that_causes_it() -> None:
    state = link_state(("outage_probability",), (0.1,), OUTAGES[0])
    assert state.outage_probability == 0.1
    # Eq. 4 by hand: 1 - exp(-h_th^2 / (2 sigma_h^2)) = 0.1
    assert state.fading_scale == pytest.approx(0.5 / (-2 * math.log(0.9)) ** 0.5, rel=1e-12)
    assert state == LinkState(fading_scale=state.fading_scale)
    assert state.as_dict() == {"fading_scale": state.fading_scale}


@pytest.mark.parametrize(
    ("names", "link", "values"),
    [
        (("noise_std",), {}, (0.0,)),
        (("loss_probability", "noise_std"), {"packet": "sentence"}, (0.0, 0.0)),
        (("loss_probability",), {"mode": "digital"}, (0.0,)),
        (("snr_db",), {}, None),
        (("noise_std",), {"fading": "rayleigh"}, None),
        (("noise_std", "fading_scale"), {"fading": "rician", "equaliser": "zero_forcing"}, None),
    ],
)
def test_a_perfect_state_is_one_that_changes_no_bit(
    names: tuple[str, ...], link: dict[str, str], values: tuple[float, ...] | None
) -> None:
    config = LinkConfig.model_validate(link)
    assert perfect_values(names, config) == values
    if values is not None:
        received = send(hidden(), link_state(names, values), config)
        assert torch.equal(received.hidden_BTD, hidden())
        assert not received.touched_B.any()


@pytest.mark.parametrize("config", [None, LinkConfig(), LinkConfig(fading="rician")])
def test_an_outage_needs_fading_and_a_threshold(config: LinkConfig | None) -> None:
    with pytest.raises(UserError, match="never loses a packet: set both"):
        link_state(("outage_probability",), (0.1,), config)


def test_state_and_kind_of_link_import_without_torch() -> None:
    code = (
        "import sys, raysplit.link.state, raysplit.link.config, raysplit.link.fading, "
        "raysplit.corpus.sequences; assert 'torch' not in sys.modules; "
        "assert 'ray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- Eq. 3 and Eq. 4 ------------------------------------------------------------------


def test_a_perfect_link_changes_nothing() -> None:
    sent_BTD = hidden()
    received = send(sent_BTD, LinkState(), LinkConfig())
    assert torch.equal(received.hidden_BTD, sent_BTD)
    assert not received.touched_B.any()


def test_noise_has_its_standard_deviation_and_no_colour() -> None:
    sent_BTD, lengths_B = big(3.0)
    received = send(sent_BTD, LinkState(noise_std=0.7), LinkConfig(), lengths_B=lengths_B)
    noise = (received.hidden_BTD - sent_BTD)[:, 1:].double()
    count = noise.numel()
    assert abs(noise.mean()) <= 4 * 0.7 / count**0.5
    assert abs(noise.std() - 0.7) <= 4 * 0.7 / (2 * count) ** 0.5
    for dim in range(3):
        product = noise.narrow(dim, 1, noise.shape[dim] - 1) * noise.narrow(
            dim, 0, noise.shape[dim] - 1
        )
        assert abs(product.mean()) <= 4 * 0.7**2 / product.numel() ** 0.5


@pytest.mark.parametrize("packet", PACKETS)
@pytest.mark.parametrize("equaliser", ["none", "zero_forcing"])
def test_a_gain_of_one_is_awgn(packet: str, equaliser: str) -> None:
    # Rician with an endless K is h = 1: the received states are those of the link without fading.
    scale = 1 / math.sqrt(2)
    faded = LinkConfig(fading="rician", rician_k=1e14, packet=packet, equaliser=equaliser)
    state = LinkState(noise_std=0.4, fading_scale=scale)
    received = send(hidden(), state, faded).hidden_BTD

    gains = draw_gains(faded, scale, _packets(packet), batch_generator(0, 0))
    torch.testing.assert_close(gains, torch.ones_like(gains), rtol=0, atol=1e-6)
    noise_BTD = _noise_after(faded, _packets(packet))
    expected = torch.where(sent(faded)[:, :, None], hidden() + 0.4 * noise_BTD, hidden())
    torch.testing.assert_close(received, expected, rtol=1e-5, atol=1e-5)


def test_awgn_is_the_sum_to_the_last_bit() -> None:
    config = LinkConfig(exempt_prefix=False)
    received = send(hidden(), LinkState(noise_std=0.4), config).hidden_BTD
    noise_BTD = _noise_after(config, (B, T, 1))
    expected = torch.where(sent(config)[:, :, None], hidden() + noise_BTD * 0.4, hidden())
    assert torch.equal(received, expected)


@pytest.mark.parametrize("fading", ["rayleigh", "rician", "nakagami"])
@pytest.mark.parametrize("packet", PACKETS)
def test_fading_scales_the_signal_and_not_the_noise(fading: str, packet: str) -> None:
    config = LinkConfig(fading=fading, packet=packet)
    received = send(hidden(), LinkState(noise_std=0.4, fading_scale=0.6), config).hidden_BTD
    gain_P = draw_gains(config, 0.6, _packets(packet), batch_generator(0, 0))
    by_hand = gain_P * hidden() + 0.4 * _noise_after(config, _packets(packet))
    expected = torch.where(sent(config)[:, :, None], by_hand, hidden())
    torch.testing.assert_close(received, expected)


@pytest.mark.parametrize("fading", ["rayleigh", "rician", "nakagami"])
@pytest.mark.parametrize("packet", PACKETS)
def test_one_gain_a_packet(fading: str, packet: str) -> None:
    config = LinkConfig(fading=fading, packet=packet, exempt_prefix=False)
    sent_BTD, lengths_B = big(1.0)
    gain_BTD = send(
        sent_BTD, LinkState(fading_scale=0.8), config, lengths_B=lengths_B
    ).hidden_BTD.double()
    over_time = gain_BTD.std(dim=1).max().item()
    over_elements = gain_BTD.std(dim=2).max().item()
    assert (over_time < 1e-6) == (packet == "sentence")
    assert (over_elements < 1e-6) == (packet != "element")
    packets = {"sentence": 40, "token": 2000, "element": 128000}[packet]
    square = gain_BTD.square()
    assert abs(square.mean() - 2 * 0.8**2) <= 5 * square.std() / packets**0.5


@pytest.mark.parametrize("fading", ["rayleigh", "rician", "nakagami"])
@pytest.mark.parametrize("packet", ["token", "element"])
def test_packets_in_outage_are_lost(fading: str, packet: str) -> None:
    config = LinkConfig(fading=fading, packet=packet, gain_threshold=0.3)
    state = LinkState(fading_scale=fading_scale_for_outage(config, 0.2))
    sent_BTD, lengths_B = big(1.0)
    received_BTD = send(sent_BTD, state, config, lengths_B=lengths_B).hidden_BTD[:, 1:]
    lost = received_BTD == 0
    packets = 40 * 49 * (64 if packet == "element" else 1)
    assert abs(lost.double().mean() - 0.2) <= 4 * (0.2 * 0.8 / packets) ** 0.5
    assert (received_BTD[~lost] >= 0.3).all()  # the gain of what arrives is above the threshold


@pytest.mark.parametrize("packet", PACKETS)
def test_erasure_without_fading(packet: str) -> None:
    config = LinkConfig(packet=packet, exempt_prefix=False)
    sent_BTD, lengths_B = torch.ones(2000, 10, 6), torch.full((2000,), 10)
    received = send(sent_BTD, LinkState(loss_probability=0.3), config, lengths_B=lengths_B)
    lost_BTD = received.hidden_BTD == 0
    packets = {"sentence": 2000, "token": 20000, "element": 120000}[packet]
    assert abs(lost_BTD.double().mean() - 0.3) <= 4 * (0.3 * 0.7 / packets) ** 0.5
    assert (received.hidden_BTD[~lost_BTD] == 1).all()  # no rescaling, as in the authors' code
    if packet != "element":
        assert torch.equal(lost_BTD.any(dim=2), lost_BTD.all(dim=2))
    if packet == "sentence":
        assert torch.equal(lost_BTD.flatten(1).any(dim=1), lost_BTD.flatten(1).all(dim=1))


def test_outage_and_erasure_are_independent() -> None:
    config = LinkConfig(fading="rayleigh", gain_threshold=0.3)
    state = LinkState(fading_scale=fading_scale_for_outage(config, 0.2), loss_probability=0.25)
    sent_BTD, lengths_B = torch.ones(1000, 21, 2), torch.full((1000,), 21)
    received_BTD = send(sent_BTD, state, config, lengths_B=lengths_B).hidden_BTD[:, 1:]
    lost = 1 - 0.8 * 0.75
    share = (received_BTD == 0).double().mean()
    assert abs(share - lost) <= 4 * (lost * (1 - lost) / 20_000) ** 0.5


def test_a_gain_at_the_threshold_arrives_and_a_probability_of_zero_loses_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = LinkConfig(fading="rayleigh", gain_threshold=0.5)
    monkeypatch.setattr(
        "raysplit.link.channel.draw_gains", lambda _c, _s, shape, _g: torch.full(shape, 0.5)
    )
    monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.zeros(shape))
    received = send(hidden(), LinkState(), config).hidden_BTD
    expected = torch.where(sent(config)[:, :, None], 0.5 * hidden(), hidden())
    assert torch.equal(received, expected)


def test_zero_forcing_undoes_the_gain() -> None:
    config = LinkConfig(fading="nakagami", equaliser="zero_forcing")
    received = send(hidden(), LinkState(fading_scale=0.6), config)
    assert torch.equal(received.hidden_BTD, hidden())
    assert not received.touched_B.any()

    noisy = send(hidden(), LinkState(fading_scale=0.6, noise_std=0.2), config).hidden_BTD
    gain_BT1 = draw_gains(config, 0.6, (B, T, 1), batch_generator(0, 0))
    noise_BTD = _noise_after(config, (B, T, 1))
    by_hand = (gain_BT1 * hidden() + 0.2 * noise_BTD) / gain_BT1
    expected = torch.where(sent(config)[:, :, None], by_hand, hidden())
    torch.testing.assert_close(noisy, expected, rtol=1e-4, atol=1e-5)


# --- the signal-to-noise ratio --------------------------------------------------------


def test_snr_refers_to_the_signal_that_it_is_given() -> None:
    state = LinkState(snr_db=6.0)
    by_snr = send(hidden(), state, LinkConfig(), signal_rms=1.7)
    by_std = send(hidden(), LinkState(noise_std=1.7 * 10 ** (-6 / 20)), LinkConfig())
    assert torch.equal(by_snr.hidden_BTD, by_std.hidden_BTD)


@pytest.mark.parametrize("exempt_prefix", [True, False])
def test_snr_without_a_corpus_refers_to_the_tensor(exempt_prefix: bool) -> None:
    config = LinkConfig(exempt_prefix=exempt_prefix)
    sent_BTD = hidden()
    sent_BTD[:, 0] *= 100  # BOS has by far the largest activations
    rms = sent_BTD[sent(config)].square().mean().sqrt().item()
    own = send(sent_BTD, LinkState(snr_db=-3.0), config).hidden_BTD
    given = send(sent_BTD, LinkState(snr_db=-3.0), config, signal_rms=rms).hidden_BTD
    torch.testing.assert_close(own, given)


def test_signal_sums_add_up_over_a_corpus() -> None:
    config = LinkConfig()
    parts = [(hidden(seed, torch.bfloat16), LENGTHS_B) for seed in (1, 2)]
    first, second = (signal_sums(*part, config) for part in parts)
    total: SignalSums = first + second
    sent_ND = torch.cat([h[sent(config)] for h, _ in parts]).double()
    assert total.positions == len(sent_ND) == 2 * (LENGTHS_B - 1).sum()
    assert total.rms == pytest.approx(sent_ND.square().mean().sqrt().item())
    torch.testing.assert_close(total.mean_D, sent_ND.mean(dim=0).float())


def test_one_position_is_its_own_mean_and_none_has_no_signal() -> None:
    lone = signal_sums(torch.tensor([[[9.0], [-3.0]]]), torch.tensor([2]), LinkConfig())
    assert lone.mean_D.tolist() == [-3.0]
    assert lone.rms == 3.0
    nothing = signal_sums(torch.ones(1, 1, D), torch.tensor([1]), LinkConfig())
    assert (nothing.positions, nothing.rms, nothing.mean_D.tolist()) == (0, 0.0, [0.0] * D)


def test_snr_of_one_position_refers_to_that_position() -> None:
    lone, lengths_B = torch.tensor([[[100.0, 100.0], [3.0, -4.0]]]), torch.tensor([2])
    config, rms = LinkConfig(), math.sqrt((9 + 16) / 2)
    own = send(lone, LinkState(snr_db=10.0), config, lengths_B=lengths_B).hidden_BTD
    given = send(
        lone, LinkState(snr_db=10.0), config, lengths_B=lengths_B, signal_rms=rms
    ).hidden_BTD
    torch.testing.assert_close(own, given)


# --- concealment ----------------------------------------------------------------------


@pytest.mark.parametrize("packet", PACKETS)
def test_corpus_mean_stands_for_lost_packets(packet: str) -> None:
    config = LinkConfig(packet=packet, concealment="corpus_mean")
    mean_D = torch.arange(1.0, D + 1) * 1000
    received_BTD = send(
        hidden(), LinkState(loss_probability=0.5), config, corpus_mean_D=mean_D
    ).hidden_BTD
    same_BTD, mean_BTD = received_BTD == hidden(), received_BTD == mean_D
    assert (same_BTD | mean_BTD).all()
    assert mean_BTD.any()
    assert same_BTD[sent(config)].any()


def test_corpus_mean_must_be_given_only_where_packets_can_be_lost() -> None:
    config = LinkConfig(concealment="corpus_mean")
    send(hidden(), LinkState(noise_std=1.0), config)
    with pytest.raises(ValueError, match="corpus_mean_D"):
        send(hidden(), LinkState(loss_probability=0.1), config)


@pytest.mark.parametrize("packet", ["token", "element"])
@pytest.mark.parametrize("noise_std", [0.0, 0.5])
def test_hold_last_repeats_what_arrived_last(packet: str, noise_std: float) -> None:
    zeros = LinkConfig(packet=packet)
    hold = LinkConfig(packet=packet, concealment="hold_last")
    state = LinkState(loss_probability=0.5, noise_std=noise_std)
    with_zeros = send(hidden(), state, zeros).hidden_BTD
    expected = with_zeros.clone()
    for b, length in enumerate(LENGTHS_B.tolist()):
        for d in range(D):
            last = 0.0  # nothing has arrived yet, and the exempt BOS never crosses the link
            for t in range(1, length):
                last = expected[b, t, d] if expected[b, t, d] != 0 else last
                expected[b, t, d] = last
    assert not torch.equal(expected, with_zeros)
    assert torch.equal(send(hidden(), state, hold).hidden_BTD, expected)


@pytest.mark.parametrize("packet", ["token", "element"])
def test_hold_last_repeats_the_first_position_where_it_was_sent(packet: str) -> None:
    config = LinkConfig(packet=packet, concealment="hold_last", exempt_prefix=False)
    state = LinkState(loss_probability=0.5)
    ramp_BTD = torch.arange(1.0, 4).expand(200, D, 3).mT.contiguous()  # 1, 2, 3 along T
    send_ramp = partial(send, ramp_BTD, state, lengths_B=torch.full((200,), 3))
    lost_BTD = send_ramp(config.model_copy(update={"concealment": "zeros"})).hidden_BTD == 0
    held_BTD = send_ramp(config).hidden_BTD
    alone_BD = ~lost_BTD[:, 0] & lost_BTD[:, 1] & lost_BTD[:, 2]
    assert alone_BD.any()
    assert (held_BTD.mT[alone_BD] == 1).all()
    assert (held_BTD.mT[lost_BTD.all(dim=1)] == 0).all()


# --- what stays as it is --------------------------------------------------------------


ROUGH = LinkState(noise_std=0.5, fading_scale=0.7, loss_probability=0.3)


def check_what_stays(
    dtype: torch.dtype, fading: str, packet: str, exempt_prefix: bool, device: str
) -> None:
    config = LinkConfig(
        fading=fading,
        packet=packet,
        gain_threshold=0.2,
        equaliser="zero_forcing",
        concealment="corpus_mean",
        exempt_prefix=exempt_prefix,
    )
    sent_BTD = hidden(dtype=dtype).to(device)
    received = send(sent_BTD, ROUGH, config, corpus_mean_D=torch.full((D,), 9.0))
    assert torch.equal(sent_BTD.cpu(), hidden(dtype=dtype))
    assert (received.hidden_BTD.dtype, received.hidden_BTD.device) == (dtype, sent_BTD.device)
    changed_BT = (received.hidden_BTD.cpu() != hidden(dtype=dtype)).any(dim=2)
    assert not changed_BT[~sent(config)].any()
    assert changed_BT[sent(config)].all()
    assert torch.equal(received.touched_B.cpu(), sent(config).any(dim=1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("fading", ["rayleigh", "rician", "nakagami"])
@pytest.mark.parametrize("packet", PACKETS)
@pytest.mark.parametrize("exempt_prefix", [True, False])
def test_input_padding_and_exempt_positions_stay(
    dtype: torch.dtype, fading: str, packet: str, exempt_prefix: bool
) -> None:
    check_what_stays(dtype, fading, packet, exempt_prefix, "cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("fading", ["rayleigh", "rician", "nakagami"])
@pytest.mark.parametrize("packet", PACKETS)
def test_a_gpu_keeps_the_same_rules(fading: str, packet: str) -> None:
    check_what_stays(torch.bfloat16, fading, packet, True, "cuda")


@pytest.mark.parametrize("concealment", ["zeros", "hold_last", "corpus_mean"])
def test_everything_happens_on_the_tensors_device_whatever_the_default(concealment: str) -> None:
    config = LinkConfig(fading="rayleigh", gain_threshold=0.2, concealment=concealment)
    state = LinkState(snr_db=3.0, fading_scale=0.7, loss_probability=0.3)
    mean_D = torch.full((D,), 9.0)
    expected_BTD = send(hidden(), state, config, corpus_mean_D=mean_D).hidden_BTD
    sent_BTD = hidden()
    with torch.device("meta"):
        received_BTD = send(sent_BTD, state, config, corpus_mean_D=mean_D).hidden_BTD
    assert torch.equal(received_BTD, expected_BTD)


@pytest.mark.parametrize("exempt_prefix", [True, False])
def test_what_is_sent_is_encoded_and_nothing_else(exempt_prefix: bool) -> None:
    config = LinkConfig(exempt_prefix=exempt_prefix)
    codec = Codec("int3/4")
    received = send(hidden(), LinkState(), config, codec=codec)
    expected_BTD = torch.where(sent(config)[:, :, None], roundtrip(hidden(), codec), hidden())
    assert torch.equal(received.hidden_BTD, expected_BTD)
    assert not torch.equal(received.hidden_BTD, hidden())
    assert torch.equal(received.touched_B, sent(config).any(dim=1))


def test_a_sink_at_the_exempt_position_spoils_no_scale() -> None:
    sink_BTD = hidden()
    sink_BTD[:, 0] *= 1e4
    plain, beside_a_sink = (
        send(h, LinkState(), LinkConfig(), codec=Codec("int4")).hidden_BTD[:, 1:]
        for h in (hidden(), sink_BTD)
    )
    assert torch.equal(plain, beside_a_sink)


def test_the_edge_conceals_and_holds_what_it_decoded() -> None:
    codec = Codec("int3/4")
    config = LinkConfig(concealment="hold_last", exempt_prefix=False)
    received_TD = send(hidden(), LinkState(loss_probability=0.5), config, codec=codec).hidden_BTD[0]
    decoded_TD = roundtrip(hidden(), codec)[0]
    arrived = [t for t in range(T) if torch.equal(received_TD[t], decoded_TD[t])]
    assert 0 < len(arrived) < T
    for t in range(T):
        before = [a for a in arrived if a <= t]
        expected_D = decoded_TD[before[-1]] if before else torch.zeros(D)
        assert torch.equal(received_TD[t], expected_D)


def test_noise_is_the_same_whatever_the_codec() -> None:
    state, codec = LinkState(snr_db=3.0), Codec("int4/8")
    noise_BTD = send(hidden(), state, LinkConfig()).hidden_BTD - hidden()
    received = send(hidden(), state, LinkConfig(), codec=codec)
    expected_BTD = torch.where(
        sent(LinkConfig())[:, :, None], roundtrip(hidden(), codec) + noise_BTD, hidden()
    )
    assert torch.allclose(received.hidden_BTD, expected_BTD, atol=1e-6)


def test_identity_is_the_link_without_a_codec() -> None:
    assert send(hidden(), LinkState(), LinkConfig(), codec=IDENTITY).touched_B.sum() == 0
    same = send(hidden(), ROUGH, LinkConfig(fading="rayleigh"), codec=IDENTITY)
    assert torch.equal(
        same.hidden_BTD, send(hidden(), ROUGH, LinkConfig(fading="rayleigh")).hidden_BTD
    )


def test_padding_may_hold_anything() -> None:
    sent_BTD = hidden()
    poisoned_BTD = sent_BTD.masked_fill(
        ~sent(LinkConfig(exempt_prefix=False))[:, :, None], math.nan
    )
    config = LinkConfig(fading="rayleigh", gain_threshold=0.2, concealment="hold_last")
    clean, poisoned = (send(h, ROUGH, config).hidden_BTD for h in (sent_BTD, poisoned_BTD))
    assert torch.equal(clean[sent(config)], poisoned[sent(config)])


@pytest.mark.parametrize("packet", PACKETS)
def test_touched_names_the_sequences_that_losses_changed(packet: str) -> None:
    config = LinkConfig(packet=packet)
    state = LinkState(loss_probability=0.01 if packet == "element" else 0.15)
    touched_B = torch.zeros(B, dtype=torch.bool)
    for seed in range(5):
        received = send(hidden(), state, config, seed)
        changed_B = (received.hidden_BTD != hidden()).flatten(1).any(dim=1)
        assert torch.equal(received.touched_B, changed_B)
        touched_B |= changed_B
    assert touched_B.any()
    assert not touched_B[2]  # BOS alone: nothing is transmitted


# --- randomness -----------------------------------------------------------------------


@pytest.mark.parametrize("fading", EVERY_FADING)
@pytest.mark.parametrize("packet", PACKETS)
def test_seed_and_batch_decide(fading: str, packet: str) -> None:
    config = LinkConfig(fading=fading, packet=packet)
    state = LinkState(noise_std=0.5, loss_probability=0.3)

    def run(seed: int, batch_index: int) -> Tensor:
        generator = batch_generator(seed, batch_index)
        return transmit(hidden(), LENGTHS_B, state, config, generator).hidden_BTD

    first = run(0, 0)
    others = [run(0, 1), run(1, 0), run(1, 11), run(11, 1)]
    assert torch.equal(first, run(0, 0))
    for i, one in enumerate([first, *others]):
        assert not any(torch.equal(one, other) for other in others[i:])


def test_losses_grow_with_the_probability() -> None:
    # Common random numbers: what is lost at a small probability is lost at a larger one, and the
    # noise under it is the same.
    config = LinkConfig(packet="element")
    few, many = (
        send(hidden(), LinkState(noise_std=0.5, loss_probability=p), config).hidden_BTD
        for p in (0.2, 0.4)
    )
    lost_few, lost_many = few == 0, many == 0
    assert (lost_many | ~lost_few).all()
    assert lost_many.sum() > lost_few.sum()
    assert torch.equal(few[~lost_many], many[~lost_many])


def test_noise_only_grows_with_its_standard_deviation() -> None:
    weak, strong = (
        send(hidden(), LinkState(noise_std=std), LinkConfig()).hidden_BTD - hidden()
        for std in (0.5, 1.0)
    )
    torch.testing.assert_close(strong, 2 * weak, rtol=1e-4, atol=1e-5)


def _packets(packet: str) -> tuple[int, int, int]:
    return {"token": (B, T, 1), "sentence": (B, 1, 1), "element": (B, T, D)}[packet]


def _noise_after(config: LinkConfig, packets: tuple[int, int, int]) -> Tensor:
    """The unit noise of `send` with seed 0: drawn after the gains and the erasures."""
    generator = batch_generator(0, 0)
    draw_gains(config, 1.0, packets, generator)
    torch.rand(packets, generator=generator)
    return torch.randn(B, T, D, generator=generator)
