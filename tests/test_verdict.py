"""Whether what was found can be used: the last lines on the terminal."""

import shlex

import pytest

from raysplit.pipeline.experiment import load_experiment
from raysplit.pipeline.run_folder import RunFolder
from raysplit.pipeline.verdict import _more_settings, reasons_against


def evaluation(share, warning=None):
    return {
        "fidelity": {"warning": warning},
        "agents": {"ppo": {"measured": {"share_of_gap": share}}},
    }


def test_a_good_agent_on_a_faithful_surrogate_needs_no_words():
    assert reasons_against(evaluation(0.98)) == []


def test_a_misleading_surrogate_and_a_harmful_agent_are_reasons():
    assert reasons_against(evaluation(0.98, "the surrogate misleads")) == ["the surrogate misleads"]
    (reason,) = reasons_against(evaluation(-1.14))
    assert reason == "ppo does worse than random moves on measured PPL (-114.0% of the gap)"
    assert len(reasons_against(evaluation(-1.14, "the surrogate misleads"))) == 2


@pytest.mark.parametrize(
    ("plan", "more"),
    [
        ("{settings: 12}", "plan.settings=24"),
        ("{kind: grid, grid_points: 3}", "plan.grid_points=5"),
        ("{kind: active}", "plan={kind: active, max_settings: 192, target_regret: 0}"),
    ],
)
def test_the_remedy_is_a_command_that_measures_more_and_repeats_nothing(tmp_path, plan, more):
    run = tmp_path / "a run"
    with RunFolder.open(run, load_experiment("demo", [f"plan={plan}"])) as folder:
        words = shlex.split(_more_settings(folder).strip("`"))
    assert words[:5] == ["raysplit", "run", f"{run}/experiment.yaml", "--out", f"{run}-more"]
    assert words[5:] == ["--set", more, "--set", f"measuring.ledger={run}/measurements.sqlite"]
    loaded = load_experiment(words[2], words[6::2])
    with RunFolder.open(tmp_path / "a run-more", loaded):
        pass


def test_a_listed_plan_needs_rows(tmp_path):
    experiment = load_experiment("demo", ["plan={kind: list, path: plan.csv}"])
    with RunFolder.open(tmp_path / "run", experiment) as folder:
        assert "add rows to plan.csv" in _more_settings(folder)
