"""The problem section: cases, ranges, refusals, and the parameters made of it."""

import numpy as np
import pytest
from pydantic import ValidationError

from envs.params import params_from
from envs.problem import ProblemConfig
from raysplit.base.errors import UserError

LOSS = {"loss_probability": [0.0, 0.3]}


@pytest.mark.parametrize(
    ("case", "loss", "start"),
    [("L", (0.0, 0.1), (1, 5)), ("H", (0.1, 0.3), (6, 10)), ("A", (0.0, 0.3), (1, 10))],
)
def test_the_paper_s_cases(case, loss, start):
    problem = ProblemConfig.model_validate({"case": case, "link": LOSS})
    assert problem.ranges() == {"loss_probability": loss}
    assert problem.start_split_points == start
    assert problem.episode_steps == 5


def test_case_l_takes_the_good_end_of_each_coordinate():
    problem = ProblemConfig.model_validate(
        {
            "case": "L",
            "link": {
                "snr_db": [0.0, 30.0],
                "fading_scale": [0.5, 2.0],
                "loss_probability": [0, 0.3],
            },
        }
    )
    assert problem.ranges() == {
        "snr_db": (20.0, 30.0),
        "fading_scale": (1.5, 2.0),
        "loss_probability": (0.0, 0.1),
    }
    assert problem.ranges("H")["snr_db"] == (0.0, 20.0)
    assert problem.ranges("A")["snr_db"] == (0.0, 30.0)


def test_explicit_case_ranges_win():
    link = {"noise_std": {"low": 0, "high": 1.2, "case_l": [0, 0.2], "case_h": [0.9, 1.2]}}
    assert ProblemConfig.model_validate({"case": "L", "link": link}).ranges() == {
        "noise_std": (0.0, 0.2)
    }
    assert ProblemConfig.model_validate({"case": "H", "link": link}).ranges() == {
        "noise_std": (0.9, 1.2)
    }


def test_lambda_is_the_yaml_key_and_survives_a_round_trip():
    problem = ProblemConfig.model_validate({"link": LOSS, "lambda": 0.25})
    assert problem.cost_weight == 0.25
    dumped = problem.model_dump(mode="json", by_alias=True)
    assert dumped["lambda"] == 0.25
    assert ProblemConfig.model_validate(dumped) == problem
    assert ProblemConfig(link=problem.link, cost_weight=0.25) == problem


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"link": {"noise_sdt": [0, 1]}}, "did you mean 'noise_std'"),
        ({"link": {}}, "at least 1 item"),
        ({"link": {"noise_std": [1.0, 0.5]}}, "must be below high"),
        ({"link": {"noise_std": [-1.0, 0.5]}}, "noise_std=-1"),
        ({"link": {"loss_probability": [0, 1.5]}}, "loss_probability=1.5"),
        ({"link": {"outage_probability": [0, 0.3]}}, r"outage_probability=0 .* inside \(0, 1\)"),
        ({"link": {"noise_std": [0, 1], "snr_db": [0, 10]}}, "choose one"),
        ({"link": LOSS, "min_split_point": 5, "max_split_point": 5}, "below max_split_point"),
        ({"link": LOSS, "initial_split_points": [0, 4]}, "within 1..10"),
        ({"link": LOSS, "reward": "authors", "raw": True}, "raw goes with"),
        ({"link": LOSS, "dynamics": {"kind": "trace"}}, "path goes with"),
        ({"link": LOSS, "dynamics": {"kind": "iid", "drift_per_layer": 0.1}}, "less than 0.1"),
        ({"link": LOSS, "dynamics": {"kind": "iid", "drift_per_layer": 5e-4}}, "kind: constant"),
        ({"link": LOSS, "dynamics": {"kind": "iid", "correlation": 0.5}}, "gauss_markov"),
        ({"link": LOSS, "dynamics": {"kind": "gauss_markov"}}, "is needed there"),
        ({"link": {"snr_db": [0, 9]}, "dynamics": {"drift_per_layer": 5e-4}}, "snr_db"),
        ({"link": {"noise_std": {"low": 0, "high": 1, "case_l": [0, 2]}}}, "a part of"),
        (
            {"link": {"noise_std": {"low": 0, "high": 1, "case_h": [0.5, 0.5 + 1e-12]}}},
            "of case_h, 0.5 and 0.500000000001, are too close together",
        ),
        ({"link": {"noise_std": [1.0000001, 1.0]}}, "low 1.0000001 must be below high 1.0"),
        ({"link": LOSS, "lambada": 1}, "Extra inputs"),
    ],
)
def test_refusals_name_the_rule(section, message):
    with pytest.raises(ValidationError, match=message):
        ProblemConfig.model_validate(section)


def test_objective_needs_clean_ppl_and_a_cost_for_each_split_point():
    problem = ProblemConfig.model_validate({"link": LOSS})
    with pytest.raises(UserError, match="clean PPL"):
        params_from(problem)
    with pytest.raises(UserError, match="3 costs for 10 split points"):
        params_from(problem, 16.0, [0.1, 0.2, 0.3])
    raw = ProblemConfig.model_validate({"link": LOSS, "raw": True})
    assert params_from(raw, None, np.arange(10.0)).ppl_scale == 1.0
    authors = ProblemConfig.model_validate({"link": LOSS, "reward": "authors"})
    assert params_from(authors).reward == "authors"


def _trace_problem(path, **kwargs):
    return ProblemConfig.model_validate(
        {"link": LOSS, "reward": "authors", "dynamics": {"kind": "trace", "path": path}, **kwargs}
    )


def test_a_trace_may_begin_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("loss_probability\n" + "0.1\n" * 8, encoding="utf-8-sig")
    assert params_from(_trace_problem(path)).trace_RK.tolist() == [[0.1]] * 8
    path.write_bytes("loss_probability\n0.1 §\n".encode("latin-1"))
    with pytest.raises(UserError, match="UTF-8"):
        params_from(_trace_problem(path))


def test_a_trace_is_read_by_column_name(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("time,loss_probability\n" + "".join(f"{t},{t / 100}\n" for t in range(8)))
    params = params_from(_trace_problem(path))
    assert params.trace_RK.tolist() == [[t / 100] for t in range(8)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a,b\n1,2\n",
            r"lacks the column\(s\) loss_probability.* has a, b",
        ),
        ("loss_probability\n" + "0.1\n" * 5, "has 5 rows"),
        ("loss_probability\n", "has 0 rows"),
        ("loss_probability\n" + "0.1\n" * 5 + "0.4\n", "line 7: loss_probability 0.4 is outside"),
        ("loss_probability\n" + "0.1\n" * 5 + "nan\n", "line 7: loss_probability is nan"),
        (
            "loss_probability\n" + "0.1\n" * 5 + "x\n",
            "line 7: loss_probability is 'x'",
        ),
    ],
)
def test_an_unfit_trace_is_refused(tmp_path, text, message):
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        params_from(_trace_problem(path))


def test_a_missing_trace_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.csv"):
        params_from(_trace_problem(tmp_path / "nowhere.csv"))
