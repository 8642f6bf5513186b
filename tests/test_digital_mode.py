"""Digital mode: SNR is observed, perplexity is measured over loss, and the radio joins them."""

import numpy as np
import pytest
import torch

from envs.dynamics import reward
from envs.oracle import Oracle
from envs.params import params_from
from envs.sources import as_source
from raysplit.base.errors import UserError
from raysplit.base.sealed_json import write_sealed
from raysplit.budget.costs import split_costs
from raysplit.link.channel import transmit
from raysplit.link.codec import Codec
from raysplit.link.config import LinkConfig
from raysplit.link.state import LinkState
from raysplit.model.sizes import sizes_of
from raysplit.pipeline.budget import budget_terms, setup_at
from raysplit.pipeline.experiment import load_experiment
from raysplit.pipeline.over_radio import as_observed, measured_states
from raysplit.pipeline.preflight import refuse_early
from raysplit.pipeline.problem import PROTOCOL_CARD, measured_problem
from raysplit.pipeline.run_folder import RunFolder
from raysplit.radio.transport import late_probability, sustained_rate_mbit_s, token_loss

SIZES = sizes_of("embedded")
DIGITAL = [
    "link.mode=digital",
    "radio={cell: lte, packet_deadline_ms: 12}",
    "problem.link={snr_db: {low: -8, high: 16, grid_points: 5}}",
    "problem.codecs=[int8]",
]
BUDGET = [
    "problem.reward=budget",
    "problem.percent_per_second=10",
    "problem.percent_per_joule=1",
    "problem.percent_per_miss=40",
    "budget={network: lte, prompt_tokens: 2000, output_tokens: 16, deadline_s: 0.6}",
    "budget.overrides.phone.compute_tflops=0.05",
]
CLEAN_PPL = 16.0


def experiment(*overrides):
    return load_experiment("demo", [*DIGITAL, *overrides])


def over_loss(split_points_N, loss_N1):
    return CLEAN_PPL * np.exp(loss_N1[:, 0] * (1 + 4 / split_points_N))


SOURCE = as_source(over_loss, quantity="ppl", link_names=("loss_probability",))


def test_what_is_measured_is_loss_alone():
    chosen = experiment("plan.settings=32")
    bits = Codec("int8").bits_per_token(SIZES.hidden_size)
    loss = token_loss(chosen.radio, bits, -8.0, 16.0)
    assert chosen.measured_ranges() == {"loss_probability": (0.0, loss.measured_up_to)}
    settings = chosen.planned_settings()
    assert len(settings) == 32
    assert {name for s in settings for name in s.link.as_dict()} == {"loss_probability"}
    assert all(s.link.snr_db is None for s in settings)
    wider = experiment("problem.codecs=[int8, identity]").measured_ranges()
    assert wider["loss_probability"][1] >= loss.measured_up_to  # twice the bits


def test_measured_states_are_a_grid_over_the_loss(tmp_path):
    chosen = experiment()
    params = params_from(chosen.problem, CLEAN_PPL, np.zeros(10))
    states = measured_states(chosen, params)
    assert states.shape == (5, 1)
    assert states[0, 0] == 0.0
    assert states[-1, 0] == chosen.measured_ranges()["loss_probability"][1]


def test_the_env_sees_snr_and_pays_what_radio_and_budget_say(tmp_path):
    chosen = experiment(*BUDGET)
    with RunFolder.open(tmp_path / "run", chosen) as folder:
        card = {"clean_log_ppl": float(np.log(CLEAN_PPL)), "tokens_per_sequence": 12.0}
        write_sealed(folder.path / PROTOCOL_CARD, card)
        params, _ = measured_problem(folder)
    assert params.link_names == ("snr_db",)
    assert (params.link_low_K, params.link_high_K) == (-8.0, 16.0)
    loss = chosen.token_loss()
    source = as_observed(SOURCE, loss)
    assert source.link_names == ("snr_db",)
    snr_db = loss.snr_db_X[[3, 40, 90]]
    split_points_N = np.array([1, 4, 10])
    got_N = reward(params, source, split_points_N, snr_db[:, None])
    for p, snr, got in zip(split_points_N, snr_db, got_N, strict=True):
        rate = sustained_rate_mbit_s(chosen.radio, snr)
        setup = chosen.budget.setup()
        setup = setup.model_copy(
            update={"network": setup.network.model_copy(update={"uplink_mbit_s": rate})}
        )
        costs = split_costs(SIZES, setup, "int8", [int(p)])
        left_s = 0.6 - costs.ttft_s_P + costs.prefill.air_s_P
        late = late_probability(chosen.radio, snr, costs.prefill.bits_P[0], left_s)[0]
        ppl = over_loss(np.array([p]), loss.at(np.array([[snr]])))[0]
        paid = 10 * costs.ttft_s_P[0] + costs.ue_energy_j_P[0] + 40 * late
        assert got == pytest.approx(-(ppl / CLEAN_PPL + paid / 100), rel=1e-9)


def test_between_the_table_s_snrs_costs_are_linear():
    chosen = experiment(*BUDGET)
    axis_X = np.array([-8.0, 0.0, 16.0])
    cost_PX = np.arange(30.0).reshape(10, 3) ** 2
    params = params_from(chosen.problem, CLEAN_PPL, cost_by_link=(axis_X, cost_PX))
    clean = as_source(lambda p, link: np.full(len(p), CLEAN_PPL), quantity="ppl")
    snr_db = np.array([-8.0, -2.0, 0.0, 12.0, 16.0])
    got_N = -reward(params, clean, np.full(5, 3), snr_db[:, None]) - 1
    np.testing.assert_allclose(got_N, np.interp(snr_db, axis_X, cost_PX[2]), rtol=1e-12)


def test_lateness_and_loss_move_the_optimum_along_the_snr():
    chosen = experiment(*BUDGET)
    loss = chosen.token_loss()
    terms = [budget_terms(chosen, SIZES, snr).total_P for snr in loss.snr_db_X.tolist()]
    by_link = loss.snr_db_X, np.stack(terms, axis=1)
    params = params_from(chosen.problem, CLEAN_PPL, cost_by_link=by_link)
    best_G = Oracle(params, as_observed(SOURCE, loss)).optimal_static_split_points()
    assert best_G[0] > best_G[-1]  # a bad link loses tokens, a good one does not
    rates = [setup_at(chosen, snr).network.uplink_mbit_s for snr in (-8.0, 0.0, 16.0)]
    assert rates == sorted(rates)
    late_G = [budget_terms(chosen, SIZES, snr).late_P[0] for snr in (-8.0, 16.0)]
    assert late_G[0] > 0.99
    assert late_G[1] < 0.01


def test_a_lost_packet_is_lost_alike_in_either_mode():
    hidden_BTD = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    lengths_B = torch.tensor([5, 4])
    digital, analogue = (
        transmit(
            hidden_BTD,
            lengths_B,
            LinkState(loss_probability=0.4),
            LinkConfig(mode=mode),
            torch.Generator().manual_seed(1),
        ).hidden_BTD
        for mode in ("digital", "analogue")
    )
    assert torch.equal(digital, analogue)
    assert not torch.equal(digital, hidden_BTD)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([DIGITAL[0], DIGITAL[2]], "digital needs a section radio, such as radio: {cell: lte}"),
        (DIGITAL[1:], "a section radio goes with link.mode: digital, where snr_db is the radio's"),
        (DIGITAL[:2], "digital varies snr_db alone, and problem.link has noise_std"),
        ([*DIGITAL, "link.fading=rayleigh"], "fading is the radio's: leave fading and packet out"),
        ([*DIGITAL, "link.packet=sentence"], "loses the packets of single tokens"),
        ([*DIGITAL, "radio.cell=lt"], "unknown cell preset 'lt'.* did you mean 'lte'"),
        ([*DIGITAL, "radio.packet_deadline_ms=-1"], "packet_deadline_ms = -1: .*greater than 0"),
        ([*DIGITAL, "radio.cel=lte"], "unknown key radio.cel; did you mean 'cell'"),
        ([*DIGITAL, "radio.overrides.harq.max_attempts=0"], "max_attempts = 0"),
        (["link.mode=digitl"], "link.mode = 'digitl': .* 'analogue' or 'digital'"),
    ],
)
def test_a_wrong_digital_link_is_refused_before_anything_runs(overrides, message):
    with pytest.raises(UserError, match=message) as caught:
        refuse_early(load_experiment("demo", overrides))
    assert len(str(caught.value).splitlines()) <= 2
