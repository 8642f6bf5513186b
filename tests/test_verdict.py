"""Whether what was found can be used: the last lines on the terminal."""

import shlex

import pytest

from raysplit.base.errors import UserError
from raysplit.base.sealed_json import write_sealed
from raysplit.pipeline.experiment import load_experiment
from raysplit.pipeline.oracles import EVALUATION, EVALUATION_FORM, read_evaluation
from raysplit.pipeline.run_folder import RunFolder
from raysplit.pipeline.verdict import (
    _more_exactly,
    _remedy,
    doubt_of,
    reasons_against,
)


def evaluation(share, warning=None, *, lost=0.2, by_error=0.05, correlation=0.95, learned=0.98):
    return {
        "fidelity": {
            "warning": warning,
            "share_lost": lost,
            "share_lost_by_error": by_error,
            "rank_correlation": correlation,
        },
        "agents": {
            "ppo": {"measured": {"share_of_gap": share}, "surrogate": {"share_of_gap": learned}}
        },
    }


MISLED = evaluation(0.98, "the surrogate misleads")


def test_a_good_agent_on_a_faithful_surrogate_needs_no_words():
    assert reasons_against(evaluation(0.98)) == []


def test_a_misleading_surrogate_and_a_harmful_agent_are_reasons():
    assert reasons_against(evaluation(0.98, "the surrogate misleads")) == ["the surrogate misleads"]
    (reason,) = reasons_against(evaluation(-1.14))
    assert reason == "ppo does worse than random moves on measured PPL (-114.0% of the gap)"
    assert len(reasons_against(evaluation(-1.14, "the surrogate misleads"))) == 2


def test_what_errors_of_measuring_explain_is_a_doubt_and_no_reason():
    within = evaluation(0.98, "the surrogate misleads", lost=0.04)
    assert reasons_against(within) == []
    assert "seems to lose 4.0% of the gap" in doubt_of(within)
    assert "up to 5.0%" in doubt_of(within)
    beyond = evaluation(0.98, "the surrogate misleads", lost=0.06)
    disordered = evaluation(0.98, "the surrogate misleads", lost=0.04, correlation=0.5)
    for found in (beyond, disordered):
        assert reasons_against(found) == ["the surrogate misleads"]
        assert doubt_of(found) is None
    assert doubt_of(evaluation(0.98, lost=0.01)) is None


@pytest.mark.parametrize(
    ("plan", "more"),
    [
        ("{settings: 12}", ["plan.settings=24"]),
        ("{kind: grid, grid_points: 3}", ["plan.grid_points=5"]),
        (
            "{kind: active, seed: 7, paired: false, first_settings: 20}",
            ["plan.max_settings=192", "plan.target_regret=0"],
        ),
    ],
)
def test_the_remedy_is_a_command_that_measures_more_and_repeats_nothing(tmp_path, plan, more):
    run = tmp_path / "a run"
    with RunFolder.open(run, load_experiment("demo", [f"plan={plan}"])) as folder:
        words = shlex.split(_remedy(folder, MISLED).strip("`"))
    assert words[:5] == ["raysplit", "run", f"{run}/experiment.yaml", "--out", f"{run}-more"]
    changed = [*more, f"measuring.ledger={run}/measurements.sqlite"]
    assert words[5::2] == ["--set"] * len(changed)
    assert words[6::2] == changed
    loaded = load_experiment(words[2], changed)
    before = load_experiment("demo", [f"plan={plan}"]).plan
    assert before.model_copy(update=_given(more)) == loaded.plan
    with RunFolder.open(tmp_path / "a run-more", loaded):
        pass


@pytest.mark.parametrize(
    ("found", "changed"),
    [
        (evaluation(-0.7, learned=-0.2), ["agents.ppo.total_steps=24000"]),
        (evaluation(-0.7), ["plan.settings=192"]),
        (evaluation(0.9, "the surrogate misleads"), ["plan.settings=192"]),
        (
            evaluation(-0.7, "the surrogate misleads", learned=-0.2),
            ["agents.ppo.total_steps=24000", "plan.settings=192"],
        ),
    ],
)
def test_an_agent_that_failed_on_the_surrogate_itself_learns_longer(tmp_path, found, changed):
    few = load_experiment("demo", ["agents.ppo.total_steps=2000"])
    with RunFolder.open(tmp_path / "run", few) as folder:
        words = shlex.split(_remedy(folder, found).strip("`"))
    assert words[6:-2:2] == changed
    load_experiment(words[2], words[6::2])


def _given(overrides):
    pairs = (one.removeprefix("plan.").split("=") for one in overrides)
    return {name: float(value) if "regret" in name else int(value) for name, value in pairs}


def test_a_listed_plan_needs_rows(tmp_path):
    experiment = load_experiment("demo", ["plan={kind: list, path: plan.csv}"])
    with RunFolder.open(tmp_path / "run", experiment) as folder:
        assert "add rows to plan.csv" in _remedy(folder, MISLED)


def test_a_doubt_is_settled_by_half_the_standard_error_or_more_text(tmp_path):
    with RunFolder.open(tmp_path / "run", load_experiment("demo", [])) as folder:
        assert "--set measuring.target_stderr=0.005 --set measuring.ledger=" in _more_exactly(
            folder
        )
    whole = load_experiment("demo", ["measuring.target_stderr=0"])
    with RunFolder.open(tmp_path / "whole", whole) as folder:
        assert _more_exactly(folder) == "measure on a larger corpus"


def test_scores_that_another_build_wrote_are_named_with_the_way_to_have_them_again(tmp_path):
    with RunFolder.open(tmp_path / "run", load_experiment("demo", [])) as folder:
        path = folder.path / EVALUATION
        write_sealed(path, evaluation(0.98) | {"form": EVALUATION_FORM})
        assert read_evaluation(folder)["fidelity"]["share_lost"] == 0.2
        for form in ({}, {"form": EVALUATION_FORM - 1}):
            write_sealed(path, evaluation(0.98) | form)
            with pytest.raises(UserError, match=f"{path} was written by another build.*delete it"):
                read_evaluation(folder)
