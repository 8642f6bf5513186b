"""Problems that ship: tables, datasheets, rewards and scores; and the tool that makes them."""

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import envs
from envs.benchmark_table import BenchmarkTable
from envs.benchmarks import TABLES, benchmark
from envs.layer_split import LayerSplitEnv
from envs.policies import RandomPolicy
from envs.vector import LayerSplitVectorEnv
from raysplit.base.errors import UserError
from raysplit.base.sealed_json import write_sealed
from raysplit.measure.table import Measurements
from raysplit.pipeline.experiment import load_experiment
from raysplit.pipeline.problem import cost_by_split_point
from raysplit.pipeline.run_folder import RunFolder
from tools.make_problem import make_problem

IDS = envs.BENCHMARK_IDS
PAGE = Path(__file__).parent.parent / "docs" / "problems.md"


def content_of(env_id):
    return json.loads((TABLES / f"{env_id.removeprefix('raysplit/')}.json").read_text())


def ppl_ratio(content, split_point, x):
    """PPL / clean PPL, with log PPL on a straight line between the nodes."""
    (axis,) = content["axes"].values()
    log_ppl_G = content["log_ppl"][split_point - content["problem"]["min_split_point"]]
    return np.exp(np.interp(x, axis, log_ppl_G) - content["clean_log_ppl"])


def reward_of(content, split_point, x):
    """Eq. 8 from the file's own numbers."""
    problem = content["problem"]
    cost = content["cost_by_split_point"][split_point - problem["min_split_point"]]
    return -(ppl_ratio(content, split_point, x) + problem["lambda"] * cost)


def test_a_table_ships():
    assert "raysplit/Embedded-Noise-v0" in IDS


@pytest.mark.parametrize("env_id", IDS)
def test_a_shipped_problem_is_an_environment_of_gymnasium(env_id):
    single, several = gymnasium.make(env_id), gymnasium.make_vec(env_id, num_envs=3)
    assert isinstance(single.unwrapped, LayerSplitEnv)
    assert isinstance(several.unwrapped, LayerSplitVectorEnv)
    assert several.num_envs == 3
    check_env(gymnasium.make(env_id).unwrapped)


@pytest.mark.slow
def test_one_line_makes_it_and_loads_nothing_heavy():
    code = (
        "import sys, gymnasium; env = gymnasium.make('envs:raysplit/Embedded-Noise-v0'); "
        "from envs.benchmarks import benchmark; "
        "benchmark(env.unwrapped.spec.id).score_agent(lambda obs: [1] * len(obs)); "
        "print({'torch', 'ray', 'pandas', 'pyarrow', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_importing_envs_opens_no_table():
    code = "import sys, envs; print({'scipy', 'pydantic', 'envs.benchmarks'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("env_id", IDS)
def test_the_datasheet_is_what_the_oracle_finds(env_id):
    problem = benchmark(env_id)
    assert problem.datasheet == content_of(env_id)["datasheet"]
    found, stated = problem.table.datasheet(), dict(problem.datasheet)
    for name in ("optimal_return", "random_return"):
        between = (sheet["between_nodes"][name] for sheet in (found, stated))
        assert next(between) == pytest.approx(next(between), rel=1e-12)
    assert found.pop("between_nodes")["grid_points"] == stated.pop("between_nodes")["grid_points"]
    assert found.pop("interpolation") == stated.pop("interpolation")
    assert found == pytest.approx(stated, rel=1e-12)
    assert problem.oracle.optimal_return == pytest.approx(stated["optimal_return"], rel=1e-12)
    assert problem.oracle.random_return == pytest.approx(stated["random_return"], rel=1e-12)


def test_optimum_and_random_return_by_an_independent_recursion():
    """Backwards over the steps with the numbers of the file alone: Eq. 8, walls, trapezoid."""
    content = content_of("raysplit/Embedded-Noise-v0")
    problem = content["problem"]
    assert problem["dynamics"]["kind"] == "constant"
    first, last = problem["min_split_point"], problem["max_split_point"]
    (axis,) = content["axes"].values()

    def value(split_point, x, steps, choose):
        if steps == 0:
            return 0.0
        reached = [min(max(split_point + move, first), last) for move in (-1, 0, 1)]
        return choose([reward_of(content, p, x) + value(p, x, steps - 1, choose) for p in reached])

    weights = np.array([0.5, *np.ones(len(axis) - 2), 0.5]) / (len(axis) - 1)
    for name, choose in (("optimal_return", max), ("random_return", np.mean)):
        values = [
            [value(p, x, problem["episode_steps"], choose) for x in axis]
            for p in range(first, last + 1)
        ]
        expected = np.mean(np.array(values) @ weights)
        assert content["datasheet"][name] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("x", [0.0, 0.75, 1.0, 2.9, 5.999])
@pytest.mark.parametrize("split_point", [1, 4, 10])
def test_rewards_are_those_of_the_file_interpolated_in_log_ppl(split_point, x):
    env = gymnasium.make("raysplit/Embedded-Noise-v0")
    env.reset(options={"split_point": split_point, "link_state": x})
    _, reward, *_ = env.step(1)
    content = content_of("raysplit/Embedded-Noise-v0")
    assert reward == pytest.approx(reward_of(content, split_point, x), rel=1e-9)


def test_scores_of_policies_and_of_agents():
    problem = benchmark("raysplit/Embedded-Noise-v0")
    random, optimal = (problem.datasheet[f"{kind}_return"] for kind in ("random", "optimal"))
    best = problem.score(problem.oracle.optimal_policy())
    assert best.share_of_gap == pytest.approx(1.0)
    assert best.regret == pytest.approx(0.0, abs=1e-9)
    assert problem.score(RandomPolicy()).share_of_gap == pytest.approx(0.0)
    still = problem.score_agent(lambda observations: np.ones(len(observations), dtype=np.int64))
    stay = problem.datasheet["stay_return"]
    assert still.episode_return == pytest.approx(stay)
    assert still.share_of_gap == pytest.approx((stay - random) / (optimal - random))


def test_an_agent_sees_the_observations_of_the_environment():
    """Down above three layers and up below, on the second column; the first is the noise."""
    problem = benchmark("raysplit/Embedded-Noise-v0")
    seen = []

    def predict(observations):
        seen.append(observations)
        return (np.sign(3 - observations[:, 1]) + 1).astype(int)

    expected = problem.oracle.policy_return(lambda p, x, t: np.sign(3 - p) + 1)
    assert problem.score_agent(predict).episode_return == pytest.approx(expected)
    env = gymnasium.make("raysplit/Embedded-Noise-v0")
    assert {array.dtype for array in seen} == {np.dtype(np.float32)}
    assert all(env.observation_space.contains(row) for array in seen for row in array)


def test_what_is_no_benchmark_or_no_action_is_refused():
    with pytest.raises(UserError, match=r"did you mean 'raysplit/Embedded-Noise-v0'"):
        benchmark("raysplit/Embedded-Noise-v9")
    with pytest.raises(UserError, match="give one of the integers 0, 1, 2"):
        benchmark("raysplit/Embedded-Noise-v0").score_agent(lambda obs: np.full(len(obs), 3))


def test_a_changed_table_is_refused(tmp_path):
    content = content_of("raysplit/Embedded-Noise-v0")
    content["log_ppl"][0][0] += 1e-6
    path = tmp_path / "table.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="was changed after it was saved"):
        BenchmarkTable.load(path)


@pytest.mark.parametrize("env_id", IDS)
def test_a_table_says_where_it_comes_from(env_id):
    content = content_of(env_id)
    card = content["provenance"]["protocol_card"]
    assert len(card["model"]["weights_sha256"]) == len(card["corpus"]["sha256"]) == 64
    assert card["clean_log_ppl"] == content["clean_log_ppl"]
    assert np.shape(content["stderr"]) == np.shape(content["log_ppl"])
    assert (np.array(content["stderr"]) <= 1.5 * card["estimate"]["target_stderr"]).all()
    assert len(content["provenance"]["commit"]) == 40


def test_the_block_of_the_page_runs_as_it_stands():
    (block,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    exec(compile(block, PAGE.name, "exec"), {})


def test_the_page_names_every_problem_that_ships():
    assert [env_id for env_id in IDS if f"| `{env_id}` |" not in PAGE.read_text()] == []


# The tool


def log_ppl(split_points, noise, loss):
    """Other in each argument, so that exchanged ones are noticed."""
    return 3 + 0.1 * noise + 2 * loss - 0.05 * split_points


@pytest.fixture
def run(tmp_path):
    """An evaluated run over two link coordinates, its rows in no order."""
    link = "{noise_std: {low: 0, high: 6, grid_points: 4}, loss_probability: [0, 0.3]}"
    experiment = load_experiment("demo", [f"problem.link={link}", "problem.max_split_point=3"])
    noise, loss = np.linspace(0, 6, 4), np.linspace(0, 0.3, 11).round(6)
    rows = np.array([(p, x, y) for p in (1, 2, 3) for x in noise for y in loss])
    p_N, noise_N, loss_N = np.random.default_rng(0).permutation(rows).T
    table = Measurements(
        split_points_N=p_N.astype(np.int64),
        link_names=("noise_std", "loss_probability"),
        link_states_NK=np.stack([noise_N, loss_N], axis=1),
        log_ppl_N=log_ppl(p_N, noise_N, loss_N),
        stderr_N=0.001 * p_N + 0.0001 * noise_N,
        clean_log_ppl=2.5,
    )
    path = tmp_path / "run"
    with RunFolder.open(path, experiment) as folder:
        table.to_parquet(path / "evaluation.parquet")
        card = {"clean_log_ppl": 2.5, "tokens_per_sequence": 30.4, "card_sha256": "a card"}
        write_sealed(path / "protocol_card.json", card)
        folder.declare_done("evaluate", "", [path / "evaluation.parquet"], 0.0)
    return SimpleNamespace(path=path, experiment=experiment, card=card)


def test_a_run_becomes_a_table(tmp_path, run):
    written = make_problem(run.path, "Some-Link-v0", tmp_path)
    assert written == tmp_path / "Some-Link-v0.json"
    table, datasheet = BenchmarkTable.load(written)
    assert datasheet == table.datasheet()
    assert table.problem == run.experiment.problem
    assert table.provenance["protocol_card"] == run.card
    assert table.cost_by_split_point == tuple(cost_by_split_point(run.experiment, 30))
    noise, loss = np.meshgrid(*table.axes, indexing="ij")
    for p in (1, 2, 3):
        np.testing.assert_allclose(table.log_ppl[p - 1], log_ppl(p, noise, loss), rtol=1e-15)
        np.testing.assert_allclose(table.stderr[p - 1], 0.001 * p + 0.0001 * noise, rtol=1e-15)
    answer = table.source()(np.array([2]), np.array([[2.0, 0.03]]))
    np.testing.assert_allclose(answer, np.exp(log_ppl(2, 2.0, 0.03)))
    assert table.params().ppl_scale == pytest.approx(np.exp(2.5))


def test_the_tool_refuses_in_one_line(tmp_path, run):
    make_problem(run.path, "Some-Link-v0", tmp_path)
    for name, message in (
        ("Some-Link-v0", "stays as it is: take the next version"),
        ("some link", "is no name"),
        ("Some-Link", "is no name"),
        ("../Some-Link-v1", "is no name"),
    ):
        with pytest.raises(UserError, match=message):
            make_problem(run.path, name, tmp_path)
    with pytest.raises(UserError, match="is no run folder"):
        make_problem(tmp_path, "Some-Link-v1", tmp_path)
    (run.path / "manifest.json").unlink()
    (run.path / "manifest.json.copy").unlink()
    with pytest.raises(UserError, match="stage 'evaluate' is not done"):
        make_problem(run.path, "Some-Link-v1", tmp_path)


def test_a_problem_over_a_radio_is_refused(tmp_path):
    snr = "{snr_db: {low: 0, high: 20}}"
    over = ["link.mode=digital", "radio={cell: lte}", f"problem.link={snr}"]
    with RunFolder.open(tmp_path / "run", load_experiment("demo", over)):
        pass
    with pytest.raises(UserError, match="holds no radio: take a run over an analogue link"):
        make_problem(tmp_path / "run", "Some-Radio-v0", tmp_path)


def test_a_problem_over_a_trace_holds_too_little(tmp_path, run):
    table, _ = BenchmarkTable.load(make_problem(run.path, "Some-Link-v0", tmp_path))
    dynamics = table.problem.dynamics.model_copy(update={"kind": "trace"})
    problem = table.problem.model_copy(update={"dynamics": dynamics})
    over_a_trace = BenchmarkTable(
        **{name: getattr(table, name) for name in table.__slots__} | {"problem": problem}
    )
    with pytest.raises(UserError, match="holds no trace"):
        over_a_trace.save(tmp_path / "Trace-v0.json")
