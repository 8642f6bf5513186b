"""Experiments: presets, overrides, and what is said about wrong input."""

import pytest

from raysplit.base.errors import UserError
from raysplit.pipeline.experiment import PRESETS, load_experiment


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_complete(name):
    experiment = load_experiment(name)
    assert experiment.name == name
    assert experiment.description


def test_a_resolved_experiment_loads_to_the_same(tmp_path):
    experiment = load_experiment("demo", ["problem.lambda=0.3", "agents.ppo.seeds=[4]"])
    path = tmp_path / "experiment.yaml"
    path.write_text(experiment.to_yaml())
    assert load_experiment(str(path)) == experiment
    assert experiment.problem.cost_weight == 0.3
    assert experiment.agents["ppo"].seeds == (4,)


def test_where_it_runs_is_no_part_of_the_results():
    ray, local = load_experiment("demo"), load_experiment("demo", ["backend.kind=inprocess"])
    assert ray.results_part() == local.results_part()
    assert ray.results_part() != load_experiment("demo", ["plan.seed=1"]).results_part()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("problem.lamda=0.3", r"unknown key problem\.lamda; did you mean 'lambda'"),
        ("plan.setings=3", "unknown key plan.setings; did you mean 'settings'"),
        ("agents.ppo.sedes=[1]", "unknown key agents.ppo.sedes; did you mean 'seeds'"),
        ("problem.lambda=-1", r"problem\.lambda = -1: .*greater than or equal to 0"),
        ("corpus.min_words=70", "min_words 70 exceeds max_words 60"),
        ("problem.link.noise_st={low: 0, high: 1}", "did you mean 'noise_std'"),
        ("problem.link={fading_scale: [0.5, 1]}", "fading_scale has no effect"),
        ("agents={}", "agents is empty"),
        ("agents.ppo.overrides={lerning_rate: 1}", "did you mean 'learning_rate'"),
        ("plan", "must have the form section.key=value"),
        ("name.first=x", "'name' is a value, not a section"),
        ("plan.seed=[1", "is not a YAML value"),
    ],
)
def test_wrong_overrides_are_explained_in_one_message(override, message):
    with pytest.raises(UserError, match=message) as caught:
        load_experiment("demo", [override])
    assert len(str(caught.value).splitlines()) <= 2


def test_unknown_presets_and_broken_files_are_explained(tmp_path):
    with pytest.raises(UserError, match="did you mean 'paper'"):
        load_experiment("papr")
    broken = tmp_path / "broken.yaml"
    broken.write_text("name: x\nproblem: [1,\n")
    with pytest.raises(UserError, match=r"not valid YAML \(line \d: .*\); check"):
        load_experiment(str(broken))
    broken.write_text("- a list\n")
    with pytest.raises(UserError, match="must be a mapping"):
        load_experiment(str(broken))
    broken.write_text("name: x\n")
    with pytest.raises(UserError, match="problem is missing"):
        load_experiment(str(broken))
