"""A digital experiment through all five stages, and its optimum computed a second time."""

import json

import numpy as np
import pandas as pd
import pytest

from raysplit.budget.costs import split_costs
from raysplit.link.codec import Codec
from raysplit.model.sizes import sizes_of
from raysplit.pipeline.experiment import load_experiment
from raysplit.radio.transport import late_probability, sustained_rate_mbit_s, token_loss
from tests.commands import ROOT, raysplit_here

FIRST, LAST, DEADLINE_S = 1, 4, 0.35
EXPERIMENT = f"""
name: digital
model: {{name: embedded}}
corpus: {{source: file, path: "{ROOT}/tests/short_sentences.txt", max_sentences: 66}}
link: {{mode: digital, exempt_prefix: true}}
radio: {{cell: lte, nakagami_m: 2.0, packet_deadline_ms: 12}}
budget:
  phone: mid-range
  overrides: {{phone: {{compute_tflops: 0.05}}}}
  prompt_tokens: 600
  output_tokens: 32
  deadline_s: {DEADLINE_S}
problem:
  link: {{snr_db: {{low: -8.0, high: 16.0, grid_points: 4}}}}
  codecs: [int8, int4-rotated/40]
  dynamics: {{kind: trace, path: TRACE}}
  min_split_point: {FIRST}
  max_split_point: {LAST}
  reward: budget
  percent_per_second: 5
  percent_per_joule: 2
  percent_per_miss: 10
plan: {{kind: sobol, settings: 24}}
measuring: {{target_stderr: 0.05}}
surrogate: {{steps: 150}}
agents: {{ppo: {{overrides: {{scale_observations: true}}, total_steps: 2000, seeds: [0]}}}}
backend: {{kind: inprocess}}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a finished run, and what it printed."""
    home = tmp_path_factory.mktemp("digital")
    rng = np.random.default_rng(0)
    snr_db = np.clip(4 + np.cumsum(rng.normal(0, 2, 60)), -8, 16)
    (home / "trace.csv").write_text("snr_db\n" + "\n".join(f"{x:.2f}" for x in snr_db) + "\n")
    path = home / "digital.yaml"
    path.write_text(EXPERIMENT.replace("TRACE", str(home / "trace.csv")))
    done = raysplit_here("run", path, "--out", home / "run")
    assert done.returncode == 0, done.stderr
    return home / "run", done.stdout + done.stderr


def best_split_points(folder):
    """Recompute the objective from the measured table, the radio's loss and the budget, (G,)."""
    experiment = load_experiment(str(folder / "experiment.yaml"))
    table = pd.read_parquet(folder / "evaluation.parquet").query("codec == 'int8'")
    clean = json.loads((folder / "protocol_card.json").read_text())["clean_log_ppl"]
    sizes, setup = sizes_of("embedded"), experiment.budget.setup()
    bits = Codec("int8").bits_per_token(sizes.hidden_size)
    loss = token_loss(experiment.radio, bits, -8.0, 16.0)
    best = []
    for snr_db in np.linspace(-8, 16, 61):
        rate = sustained_rate_mbit_s(experiment.radio, snr_db)
        network = setup.network.model_copy(update={"uplink_mbit_s": rate})
        costs = split_costs(
            sizes, setup.model_copy(update={"network": network}), "int8", range(FIRST, LAST + 1)
        )
        left_s_P = DEADLINE_S - costs.ttft_s_P + costs.prefill.air_s_P
        late_P = late_probability(
            experiment.radio, snr_db, float(costs.prefill.bits_P[0]), left_s_P
        )
        objective = []
        for i, p in enumerate(range(FIRST, LAST + 1)):
            rows = table[table["split_point"] == p].sort_values("loss_probability")
            log_ppl = np.interp(
                loss.at(np.array([snr_db]))[0], rows["loss_probability"], rows["log_ppl"]
            )
            paid = 5 * costs.ttft_s_P[i] + 2 * costs.ue_energy_j_P[i] + 10 * late_P[i]
            objective.append(np.exp(log_ppl - clean) + paid / 100)
        best.append(FIRST + int(np.argmin(objective)))
    return best


@pytest.mark.slow
def test_the_measured_optimum_is_that_of_table_radio_and_budget(run):
    folder, _ = run
    problem = json.loads((folder / "evaluation.json").read_text())["problem"]
    assert problem["link_coordinates"] == ["snr_db"]
    np.testing.assert_allclose(np.ravel(problem["link_states"]), np.linspace(-8, 16, 61))
    assert problem["optimal_split_point_by_state"] == best_split_points(folder)


@pytest.mark.slow
def test_every_stage_says_what_it_did_in_plain_words(run):
    _, printed = run
    for stage in ("measure", "fit", "train", "evaluate", "report"):
        assert f"{stage:<10} done in" in printed
    assert "% of the gap random - optimum on measured PPL (one seed)" in printed
    assert "Traceback" not in printed
    assert "Warning" not in printed


@pytest.mark.slow
def test_the_report_answers_in_units_and_shows_what_applies(run):
    folder, _ = run
    page = (folder / "report.html").read_text()
    for words in (
        "SNR = -8 to 16 dB", "digital over lte", "at SNR = 16 dB, ", "J a token",
        "With the codec free", "Along the trace.", "deadline<br>missed",
    ):  # fmt: skip
        assert words in page
    assert "snr_db" not in page.split("<main>")[0]
    drawn = {path.stem for path in (folder / "figures").glob("*.png")}
    assert {"codecs", "walk", "time", "trade", "terms"} <= drawn
