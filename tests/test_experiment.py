"""Experiments: presets, overrides, and what is said about wrong input."""

import math
from pathlib import Path

import pytest

from raysplit.base.errors import UserError
from raysplit.link.fading import fading_scale_for_outage
from raysplit.pipeline.experiment import load_experiment
from raysplit.pipeline.preflight import say_if_too_few
from raysplit.pipeline.preset_names import PRESETS


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
        ("problem.link={outage_probability: [0.1, 0.3]}", "set both for outage_probability"),
        ("agents={}", "agents is empty"),
        ("agents.ppo.overrides={lerning_rate: 1}", "did you mean 'learning_rate'"),
        ("plan", "must have the form section.key=value"),
        ("name.first=x", "'name' is a value, not a section"),
        ("plan.seed=[1", "is not a YAML value"),
        ("name=2020-02-31", "is not a YAML value .day is out of range"),
        ("plan={seed: 1,\tsettings: 3}", r"is not a YAML value \(found character '\\t'"),
        ("plan={seed: 1, seed: 2}", "key 'seed' stands twice; keep one of them"),
        ("plan.paired=maybe", "plan.paired = 'maybe': must be true or false"),
        ("name=no", "name = False: must be text .in quotes"),
        ("agents={no: {}}", "agents.False: YAML reads this key as no text but False"),
        ("agents={1: {}}", "agents.1: YAML reads this key as no text but 1"),
        # Optional sections, dictionaries of sections, unions and lists say what they hold.
        ("sweep.asha={grace: 3}", "unknown key sweep.asha.grace; did you mean 'grace_steps'"),
        ("sweep.asha={x: 3}", "unknown key sweep.asha.x; known here: grace_steps, reduction"),
        ("sweep.asha=3", "sweep.asha = 3: .* it has grace_steps, reduction_factor"),
        ("agents.ppo=3", "agents.ppo = 3: .* it has algorithm, preset, engine"),
        (
            "sweep.space.learning_rate={low: 1e-2, high: 1e-10}",
            r"sweep.space.learning_rate: low is 0.01 but must be below high \(1e-10\)$",
        ),
        (
            "sweep.space.learning_rate={low: 1, hihg: 2}",
            r"unknown key sweep.space.learning_rate.hihg; did you mean 'high'\? \(and 1 more\)",
        ),
        (
            "sweep.space.learning_rate=3",
            "learning_rate = 3: must be a list of numbers .*, or a section with the keys low, high",
        ),
        ("sweep.space.learning_rate=[a]", "learning_rate.0 = 'a': must be a number$"),
        ("problem.link.noise_std=[0, 6,5]", r"noise_std = \[0, 6, 5\]: a range is \[low, high\]"),
        ("problem.link.noise_std={low: 0, hihg: 2}", r"noise_std.hihg; did you mean 'high'"),
        ("problem.initial_split_points=3", "= 3: must be a list of 2 whole numbers"),
        ("problem.initial_split_points=[1, 2, 3]", r"3\]: must be a list of 2 whole numbers"),
        ("agents.ppo.seeds=0", "agents.ppo.seeds = 0: must be a list of whole numbers"),
        ("agents.ppo.seeds=[a]", "agents.ppo.seeds.0 = 'a': must be a whole number"),
        (
            "agents.ppo.overrides={learning_rate: [1]}",
            r"ppo: learning_rate = \[1\]: must be a number, or a list of 2 numbers",
        ),
        ("agents.ppo.overrides={hidden_sizes: 3}", "hidden_sizes = 3: must be a list of whole"),
        # Names become folders, keys and legends.
        ("name=../x", "'../x' is no name: take up to 64 letters"),
        ("agents={../../x: {}}", r"agents: '../../x' is no name"),
        ("agents={-x: {}}", "'-x' is no name"),
        ("agents={.x: {}}", "'.x' is no name"),
        ("agents={surrogate sha: {}}", "'surrogate sha' is no name"),
        ("agents={$x_1$: {}}", r"'\$x_1\$' is no name"),
        ("agents={'{x}': {}}", "'{x}' is no name"),
        ('agents={"x\\0": {}}', r"agents = 'x\\x00' holds a NUL"),
        ('agents={"x\\n": {}}', r"'x\\n' is no name"),
        (f"agents={{{'x' * 65}: {{}}}}", "is no name: take up to 64"),
        *((f"agents.{name}={{}}", "baseline") for name in ("random", "stay", "Greedy", "optimum")),
        *((f"agents.{name}={{}}", "baseline") for name in ("fixed", "untrained")),
        ("tracking.project=a/b", "tracking.project = 'a/b': a W&B project has .* none of / "),
        ("tracking.entity=a b", "tracking.entity = 'a b': a W&B user or team has letters"),
        ("corpus={source: file, path: ~nobody-here/x}", "no home folder is known for ~nobody-here"),
        ("problem.codecs=[int4, int5]", "problem.codecs = .*unknown codec 'int5'.*did you mean"),
        ("problem.codecs=[int4, int4]", "a codec stands there twice"),
        ("problem.codecs=[]", "problem.codecs"),
        (
            "problem.codecs=int4",
            "problem.codecs = 'int4': must be a list of texts in square brackets",
        ),
        ('corpus={source: file, path: "a\\0"}', r"corpus.path = 'a\\x00' holds a NUL"),
    ],
)
def test_wrong_overrides_are_explained_in_one_message(override, message):
    with pytest.raises(UserError, match=message) as caught:
        load_experiment("demo", [override])
    assert len(str(caught.value).splitlines()) <= 2


@pytest.mark.parametrize(
    ("override", "section"),
    [
        ("corpus={source: file, path: ~/x}", "corpus"),
        ("plan={kind: list, path: ~/x}", "plan"),
        ("problem.dynamics={kind: trace, path: ~/x}", "problem"),
    ],
)
def test_a_tilde_is_the_home_folder_in_every_path(override, section):
    found = getattr(load_experiment("demo", [override]), section)
    assert getattr(found, "dynamics", found).path == Path.home() / "x"


@pytest.mark.parametrize(
    ("plan", "settings"),
    [
        ("{settings: 9}", 9),
        ("{kind: grid, grid_points: 2}", 4),
        ("{kind: list, path: PLAN}", 6),
    ],
)
def test_a_plan_too_small_for_the_folds_is_refused_before_it_is_measured(
    tmp_path, capfd, plan, settings
):
    path = tmp_path / "plan.csv"
    rows = "".join(f"{p},{noise}\n" for p in (1, 2) for noise in (0, 1, 1, 2))  # two stand twice
    path.write_text(f"split_point,noise_std\n{rows}")
    overrides = [f"plan={plan.replace('PLAN', str(path))}", "problem.max_split_point=2"]
    experiment = load_experiment("demo", overrides)
    with pytest.raises(UserError, match=f"plan has {settings} setting.* needs at least 10"):
        say_if_too_few(experiment, to_fit=True)
    say_if_too_few(experiment, to_fit=False)  # who only measures is told
    assert "too few    for stage fit: the plan has" in capfd.readouterr().err
    say_if_too_few(load_experiment("demo", [*overrides, "surrogate.folds=2"]), to_fit=True)


@pytest.mark.slow
def test_unknown_presets_and_broken_files_are_explained(tmp_path):
    with pytest.raises(UserError, match="did you mean 'paper'"):
        load_experiment("papr")
    broken = tmp_path / "broken.yaml"
    broken.write_text("name: x\nproblem: [1,\n")
    with pytest.raises(UserError, match=r"not valid YAML \(line \d: .*\); check"):
        load_experiment(str(broken))
    broken.write_text(
        "name: x\nproblem:\n  lambda: 1\n  link:\n    noise_std: [0, 1]\n  lambda: 2\n"
    )
    with pytest.raises(UserError, match=r"\(line 6: key 'lambda' stands twice; keep one of them\)"):
        load_experiment(str(broken))
    broken.write_text("agents:\n  a: {seeds: [1],\n      seeds: [2]}\n")
    with pytest.raises(UserError, match=r"\(line 3: key 'seeds' stands twice"):
        load_experiment(str(broken))
    broken.write_text("plan:\n\tseed: 1\n")
    with pytest.raises(UserError, match=r"not valid YAML \(line 2: found character '\\t'"):
        load_experiment(str(broken))
    broken.write_text("a: " + "[" * 5000)
    with pytest.raises(UserError, match="nested too deeply"):
        load_experiment(str(broken))
    broken.write_text("- a list\n")
    with pytest.raises(UserError, match="must be a mapping"):
        load_experiment(str(broken))
    broken.write_text("name: x\n")
    with pytest.raises(UserError, match="problem is missing"):
        load_experiment(str(broken))


def test_the_paper_s_losses_are_the_scales_that_its_preset_states():
    paper = load_experiment("paper")
    for case, losses in {"A": (0.005, 0.3), "L": (0.005, 0.1), "H": (0.1, 0.3)}.items():
        assert paper.problem.ranges(case) == {"outage_probability": losses}
    scales = {loss: fading_scale_for_outage(paper.link, loss) for loss in (0.005, 0.1, 0.3)}
    assert scales == {
        loss: pytest.approx(0.5 / math.sqrt(-2 * math.log1p(-loss)), rel=1e-12)  # Eq. 4
        for loss in scales
    }
    for loss, scale in scales.items():
        assert f"{loss:g} at sigma_h = {scale:.3f}" in " ".join(paper.description.split())


@pytest.mark.parametrize(
    "override",
    [
        "problem.lambda=yes",
        "plan.settings=true",
        "problem.link.noise_std.low=off",
        "agents.ppo.seeds=[0, yes]",
    ],
)
def test_a_truth_value_is_no_number(override):
    with pytest.raises(UserError, match="must be a number, and YAML reads yes, no"):
        load_experiment("demo", [override])


def test_an_agent_called_as_an_algorithm_has_it():
    named = load_experiment("demo", ["agents={dqn: {seeds: [0]}, a2c: {algorithm: ppo}, x: {}}"])
    found = {name: agent.algorithm for name, agent in named.agents.items()}
    assert found == {"dqn": "dqn", "a2c": "ppo", "x": "ppo"}


@pytest.mark.parametrize("address", ["1.2.3.4", "head", "ray://head", "auto:"])
def test_an_address_that_ray_could_not_read_is_refused(address):
    with pytest.raises(UserError, match=r"must be auto .* or HOST:PORT"):
        load_experiment("demo", [f"backend.address='{address}'"])


@pytest.mark.parametrize("address", ["auto", "10.0.0.1:6379", "ray://head:10001"])
def test_addresses_of_ray_are_taken(address):
    assert load_experiment("demo", [f"backend.address={address}"]).backend.address == address


def test_a_description_says_which_of_its_values_were_changed():
    plain = load_experiment("demo", ["backend.kind=inprocess"]).description
    assert plain == load_experiment("demo").description
    changed = load_experiment("demo", ["problem.case=H", "plan.settings=12", "name=x"]).description
    assert changed == f"{plain} (Written before these were changed: plan.settings, problem.case.)"
    assert load_experiment("demo", ["description=Mine.", "problem.case=H"]).description == "Mine."
