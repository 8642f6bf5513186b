"""The reward `budget`: perplexity, seconds, joules and misses in one sum, and what is refused."""

import numpy as np
import pytest

from envs.dynamics import reward
from envs.layer_split import LayerSplitEnv
from envs.oracle import Oracle
from envs.params import params_from
from envs.problem import ProblemConfig
from envs.sources import as_source
from envs.vector import LayerSplitVectorEnv
from raysplit.base.errors import UserError
from raysplit.base.sealed_json import write_sealed
from raysplit.model.sizes import sizes_of
from raysplit.pipeline.budget import budget_terms
from raysplit.pipeline.experiment import load_experiment
from raysplit.pipeline.input_hashes import inputs_sha256
from raysplit.pipeline.preflight import refuse_early
from raysplit.pipeline.problem import PROTOCOL_CARD, measured_problem
from raysplit.pipeline.run import STAGE_NAMES
from raysplit.pipeline.run_folder import RunFolder

CLEAN_PPL = 16.0
SECONDS = ["problem.reward=budget", "problem.percent_per_second=5", "budget.network=lte"]
# A slow phone on weights of one byte, a quick edge: hand calculations stay short.
PHONE = {
    "compute_tflops": 1e-3, "compute_utilisation": 0.5, "bandwidth_gb_s": 0.1,
    "bandwidth_utilisation": 0.5, "memory_gb": 1.0, "weight_bits": 8, "kv_bits": 16,
    "compute_power_w": 4.0, "wait_power_w": 1.0,
}  # fmt: skip
EDGE = PHONE | {"compute_tflops": 1e-2, "bandwidth_gb_s": 1.0}
del EDGE["compute_power_w"], EDGE["wait_power_w"]
NETWORK = {"uplink_mbit_s": 2.0, "rtt_ms": 50, "radio_base_w": 3.0, "radio_mw_per_mbit_s": 500}
PROMPT, ANSWER, DEADLINE_S = 20, 3, 0.2


def experiment(*overrides):
    return load_experiment(
        "demo",
        [
            "problem.reward=budget",
            f"budget.overrides={ {'phone': PHONE, 'edge': EDGE, 'network': NETWORK} }",
            f"budget.prompt_tokens={PROMPT}",
            f"budget.output_tokens={ANSWER}",
            *overrides,
        ],
    )


def terms(*overrides):
    return budget_terms(experiment(*overrides), sizes_of("embedded"))


def by_hand(p, bits_of_an_element=16):
    """Seconds to the first token, and joules of the request, written out for one split point."""
    s = sizes_of("embedded")
    d, layers, vocabulary = s.hidden_size, s.num_hidden_layers, s.vocab_size
    d_q, d_kv = s.num_attention_heads * s.head_dim, s.num_key_value_heads * s.head_dim
    weights = 2 * d * (d_q + d_kv) + 3 * d * s.intermediate_size

    def seconds(device, own, tokens, keys, head):
        flops = own * 2 * tokens * (weights + 2 * keys * d_q) + head * 2 * vocabulary * d
        read = own * weights + head * vocabulary * d + own * keys * 2 * d_kv * 2
        return max(
            flops / (device["compute_tflops"] * 5e11), read / (device["bandwidth_gb_s"] * 5e8)
        )

    joules = 0.0
    for step in range(ANSWER):
        tokens, keys = (PROMPT, PROMPT) if step == 0 else (1, PROMPT + step)
        on_phone = seconds(PHONE, p, tokens, keys, 0)
        on_edge = seconds(EDGE, layers - p, tokens, keys, 1)
        on_air = tokens * d * bits_of_an_element / 2e6
        if step == 0:
            first = on_phone + on_air + 0.05 + on_edge
        joules += 4.0 * on_phone + (3.0 + 0.5 * 2.0) * on_air + 1.0 * (0.05 + on_edge)
    return first, joules


def perplexity(split_points_N, links_NK):
    """Falls with p and rises with the noise."""
    return CLEAN_PPL * np.exp(0.05 * links_NK[:, 0] * (1 + 10 / split_points_N))


SOURCE = as_source(perplexity, quantity="ppl")


def params(*overrides):
    chosen = experiment(*overrides)
    total_P = budget_terms(chosen, sizes_of("embedded")).total_P
    return params_from(chosen.problem, CLEAN_PPL, total_P)


def test_each_term_is_what_the_formulas_give_by_hand():
    found = terms(
        "problem.percent_per_second=5",
        "problem.percent_per_joule=2",
        "problem.percent_per_miss=30",
        f"budget.deadline_s={DEADLINE_S}",
    )
    first_P, joules_P = np.transpose([by_hand(p) for p in range(1, 11)])
    assert 0 < (first_P > DEADLINE_S).sum() < 10  # some split points are late, others are not
    np.testing.assert_allclose(found.seconds_P, 0.05 * first_P, rtol=1e-12)
    np.testing.assert_allclose(found.joules_P, 0.02 * joules_P, rtol=1e-12)
    np.testing.assert_array_equal(found.misses_P, np.where(first_P > DEADLINE_S, 0.3, 0.0))
    np.testing.assert_array_equal(found.total_P, found.seconds_P + found.joules_P + found.misses_P)


def test_bits_are_those_of_the_codec_that_decisions_are_made_for():
    found = terms("problem.percent_per_second=100", "problem.codecs=[bf16, int8]")
    quarter = terms("problem.percent_per_second=100", "problem.codecs=[top25%, bf16]")
    np.testing.assert_allclose(found.seconds_P[0], by_hand(1)[0], rtol=1e-12)
    d = sizes_of("embedded").hidden_size
    saved = PROMPT * (16 * d - 16 * d / 4 - d) / 2e6  # a mask of d bits stays
    np.testing.assert_allclose(found.seconds_P - quarter.seconds_P, saved, rtol=1e-9)


def test_envs_and_oracle_pay_the_same_sum():
    weights = ("problem.percent_per_second=5", "problem.percent_per_joule=2")
    problem = params(*weights)
    split_points_N, links_NK = np.array([1, 4, 10]), np.array([[0.0], [2.5], [6.0]])
    first_N, joules_N = np.transpose([by_hand(p) for p in split_points_N])
    expected_N = -(
        perplexity(split_points_N, links_NK) / CLEAN_PPL + (5 * first_N + 2 * joules_N) / 100
    )
    got_N = reward(problem, SOURCE, split_points_N, links_NK)
    np.testing.assert_allclose(got_N, expected_N, rtol=1e-12)

    env = LayerSplitEnv(problem, SOURCE)
    env.reset(seed=0, options={"split_point": 4, "link_state": [2.5]})
    assert env.step(1)[1] == pytest.approx(expected_N[1], rel=1e-12)
    envs = LayerSplitVectorEnv(problem, SOURCE, num_envs=3)
    envs.reset(seed=0, options={"split_point": split_points_N, "link_state": links_NK})
    np.testing.assert_allclose(envs.step(np.array([1, 1, 1]))[1], expected_N, rtol=1e-6)
    oracle = Oracle(problem, SOURCE, grid_points=[2])  # noise 0 and 6
    assert oracle.static_rewards_PG[9, 1] == pytest.approx(expected_N[2], rel=1e-12)


def best_split_points(*overrides):
    return Oracle(params(*overrides), SOURCE).optimal_static_split_points()


def test_the_optimum_follows_the_weights():
    """This phone is ten times as slow as the edge and pays for what it computes."""
    light, heavy = (best_split_points(f"problem.percent_per_second={w}") for w in (1, 300))
    assert (heavy <= light).all()
    assert heavy.sum() < light.sum()
    assert (np.diff(light) >= 0).all()  # more noise, more layers on the phone
    assert (best_split_points("problem.percent_per_joule=1000000") == 1).all()
    on_time = f"budget.deadline_s={DEADLINE_S}"
    latest = max(p for p in range(1, 11) if by_hand(p)[0] <= DEADLINE_S)
    free = best_split_points("problem.percent_per_second=1")
    bound = best_split_points(
        "problem.percent_per_second=1", "problem.percent_per_miss=1000", on_time
    )
    assert free.max() > latest
    assert bound.max() == latest


def test_the_paper_s_rewards_are_what_they_were_to_the_last_bit():
    link = {"noise_std": [0.0, 6.0]}
    split_points_N, links_NK = np.array([1, 7, 10]), np.array([[0.1], [2.7], [6.0]])
    cost_P = np.arange(1, 11) / 16 + 0.0137
    ppl_N = perplexity(split_points_N, links_NK)
    lambda_ = {"lambda": 0.2, "link": link}
    for extra, scale in (({}, CLEAN_PPL), ({"raw": True}, 1.0)):
        problem = params_from(ProblemConfig(**lambda_, **extra), CLEAN_PPL, cost_P)
        expected_N = -(ppl_N / scale + 0.2 * cost_P[split_points_N - 1])
        assert (reward(problem, SOURCE, split_points_N, links_NK) == expected_N).all()
    authors = params_from(ProblemConfig(reward="authors", link=link))
    first_N = perplexity(np.ones(3), links_NK)
    expected_N = 10.0 * (1.0 - ppl_N / first_N) + (10 - split_points_N) / 10
    assert (reward(authors, SOURCE, split_points_N, links_NK) == expected_N).all()


def test_a_run_s_problem_carries_its_budget(tmp_path):
    chosen = experiment("problem.percent_per_joule=2", "problem.lambda=7")
    with RunFolder.open(tmp_path / "run", chosen) as folder:
        card = {"clean_log_ppl": float(np.log(CLEAN_PPL)), "tokens_per_sequence": 12.0}
        write_sealed(folder.path / PROTOCOL_CARD, card)
        found, _ = measured_problem(folder)
    expected = params("problem.percent_per_joule=2")
    assert found.ppl_scale == pytest.approx(CLEAN_PPL)
    np.testing.assert_array_equal(found.cost_P, expected.cost_P)
    assert found.cost_weight == 1.0  # lambda is no weight of this reward
    assert found.reward == "budget"


def test_another_budget_trains_anew_and_measures_nothing_anew(tmp_path):
    hashes = []
    for deadline in (0.5, 0.6):
        chosen = experiment("problem.percent_per_joule=2", f"budget.deadline_s={deadline}")
        with RunFolder.open(tmp_path / str(deadline), chosen) as folder:
            hashes.append(
                [inputs_sha256(folder, s, STAGE_NAMES[:i]) for i, s in enumerate(STAGE_NAMES)]
            )
    same = [one == other for one, other in zip(*hashes, strict=True)]
    assert dict(zip(STAGE_NAMES, same, strict=True)) == {
        "measure": True, "fit": True, "train": False, "evaluate": False, "report": False,
    }  # fmt: skip


def test_a_resolved_budget_loads_to_the_same(tmp_path):
    chosen = experiment("problem.percent_per_miss=2", "budget.deadline_s=1")
    path = tmp_path / "experiment.yaml"
    path.write_text(chosen.to_yaml())
    assert load_experiment(str(path)) == chosen


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (SECONDS[:2], "problem.reward: budget needs a section budget, such as"),
        (["problem.percent_per_joule=3"], "percent_per_joule = 3 goes with reward: budget"),
        (["problem.reward=budget", "budget.edge=h100"], "weighs nothing but perplexity: give perc"),
        ([*SECONDS, "problem.percent_per_miss=3"], "percent_per_miss = 3 needs a deadline: give"),
        ([*SECONDS, "problem.percent_per_second=-1"], r"percent_per_second = -1: .* equal to 0"),
        ([*SECONDS, "problem.percent_per_joul=1"], "did you mean 'percent_per_joule'"),
        ([*SECONDS, "budget.network=lt"], "unknown network 'lt'; did you mean 'lte'"),
        ([*SECONDS, "budget.phone=Flagship"], "unknown phone 'Flagship'; did you mean 'flagship'"),
        ([*SECONDS, "budget.netwrk=lte"], "unknown key budget.netwrk; did you mean 'network'"),
        ([*SECONDS, "budget.overrides.phne.memory_gb=1"], "unknown key phne; did you mean 'phone'"),
        ([*SECONDS, "budget.overrides.phone.memory=1"], "phone.memory; did you mean 'memory_gb'"),
        ([*SECONDS, "budget.overrides.phone=1"], "budget.overrides.phone = 1: must be a section"),
        ([*SECONDS, "budget.overrides.phone.memory_gb=-1"], "memory_gb = -1.*greater than 0"),
        ([*SECONDS, "budget.prompt_tokens=0"], "prompt_tokens = 0: .*greater than or equal to 1"),
        ([*SECONDS, "budget.deadline_s=0"], "budget.deadline_s = 0: .*greater than 0"),
        (
            [*SECONDS, "budget.overrides.phone.memory_gb=0.001"],
            r"split points 1 to 10 .* not all fit: phone.memory_gb = 0.001 and edge.memory_gb = 80 "
            r"hold 1 to \d of embedded; set problem",
        ),
        ([*SECONDS, "budget.overrides.phone.memory_gb=0.00001"], "the phone is too small for embe"),
    ],
)
def test_wrong_budgets_are_refused_before_anything_runs(overrides, message):
    with pytest.raises(UserError, match=message) as caught:
        refuse_early(load_experiment("demo", overrides))
    assert len(str(caught.value).splitlines()) <= 2
