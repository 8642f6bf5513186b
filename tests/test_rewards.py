"""Agents that learn from measured perplexity: what they are asked, what it costs, and the stage."""

import contextlib
import json
from types import SimpleNamespace

import numpy as np
import pytest
from pydantic import ValidationError

from envs.example import example_params, example_ppl
from raysplit.base.errors import UserError
from raysplit.base.sealed_json import write_sealed
from raysplit.link.codec import IDENTITY
from raysplit.link.config import LinkConfig
from raysplit.measure.rows import Row
from raysplit.pipeline.experiment import load_experiment
from raysplit.pipeline.problem import measuring_service, same_measuring_service
from raysplit.pipeline.rewards import RewardSources, TrainingCost
from raysplit.pipeline.run_folder import RunFolder
from raysplit.pipeline.stages import train
from tuning.settings import TrainConfig

RANGES = {"loss_probability": (0.0, 0.3)}


class Folder:
    """As much of a run folder as measured rewards need."""

    class experiment:
        link, radio = LinkConfig(), None
        problem = SimpleNamespace(codec=IDENTITY)
        measured_ranges = staticmethod(lambda: RANGES)
        losses = staticmethod(dict)

        class measuring:
            reward_grid_points = 5


class Service:
    """Answers settings by the example's formula and remembers them."""

    def __init__(self, status="done"):
        self.status = status
        self.asked = []

    def measure(self, settings, title):
        self.asked += settings
        return {setting: self._row(setting) for setting in settings}

    def _row(self, setting):
        names = example_params().link_names
        state = np.array([[getattr(setting.link, name) for name in names]])
        log_ppl = float(np.log(example_ppl(np.array([setting.split_point]), state))[0])
        done = self.status == "done"
        log_ppl = log_ppl if done else None
        return Row(setting=setting, status=self.status, log_ppl=log_ppl, seconds=0.5)


def ask(source, split_points, first_coordinate):
    params = example_params()
    states = np.tile(params.link_low_K, (len(split_points), 1))
    states[:, 0] = first_coordinate
    return source(np.array(split_points), states)


def test_a_setting_is_rounded_to_the_stated_grid_and_measured_once(tmp_path):
    params, service = example_params(), Service()
    sources = RewardSources(Folder, params, service)
    source = sources.source_of(TrainConfig(rewards="measured"), 0, tmp_path)
    low, high = params.link_low_K[0], params.link_high_K[0]
    step = (high - low) / 4
    ppl = ask(source, [2, 2, 3], [low + 1.1 * step, low + 0.9 * step, high])
    assert ppl[0] == ppl[1]
    ask(source, [2], [low + step])
    name = params.link_names[0]
    assert [(s.split_point, getattr(s.link, name)) for s in service.asked] == [
        (2, pytest.approx(low + step)),
        (3, pytest.approx(high)),
    ]


def test_the_cost_counts_each_setting_once_and_begins_anew_with_each_training(tmp_path):
    params = example_params()
    sources = RewardSources(Folder, params, Service())
    config = TrainConfig(rewards="measured")
    for seed in range(2):
        source = sources.source_of(config, seed, tmp_path / f"seed-{seed}")
        ask(source, [2, 2, 3], params.link_low_K[0])
        cost = sources.cost(config, 7)
        assert cost == TrainingCost(llm_evaluations=2, worker_seconds=1.0, peak_resident_bytes=7)
    cost.save(tmp_path / "training_cost.json")
    assert TrainingCost.load(tmp_path / "training_cost.json") == cost
    assert json.loads((tmp_path / "training_cost.json").read_text())["llm_evaluations"] == 2


def test_a_training_that_was_killed_goes_on_with_its_cost(tmp_path):
    params, config = example_params(), TrainConfig(rewards="measured")
    killed = RewardSources(Folder, params, Service())
    ask(killed.source_of(config, 0, tmp_path), [2, 3], params.link_low_K[0])
    with (tmp_path / "requested_settings.txt").open("a") as file:
        file.write("torn")
    for _ in range(2):  # what is asked again counts once, whoever asks
        again = RewardSources(Folder, params, Service())
        ask(again.source_of(config, 0, tmp_path), [3, 4], params.link_low_K[0])
        assert again.cost(config, None) == TrainingCost(3, 1.5, None)


def test_a_damaged_line_of_the_bill_is_named_and_not_counted(tmp_path, capsys):
    params, config = example_params(), TrainConfig(rewards="measured")
    killed = RewardSources(Folder, params, Service())
    ask(killed.source_of(config, 0, tmp_path), [2, 3], params.link_low_K[0])
    path = tmp_path / "requested_settings.txt"
    path.write_bytes(path.read_bytes().replace(b" 0.5", b" \xff.5", 1))
    again = RewardSources(Folder, params, Service())
    again.source_of(config, 0, tmp_path)
    assert "is damaged" in capsys.readouterr().err
    assert again.cost(config, None) == TrainingCost(1, 0.5, None)


@pytest.mark.parametrize("damage", ["cut", "flipped", "missing"])
def test_a_damaged_cost_is_named_and_counted_anew(tmp_path, monkeypatch, capsys, damage):
    params, service = example_params(), Service()
    config = TrainConfig(rewards="measured")
    folder = SimpleNamespace(
        experiment=SimpleNamespace(
            agents={"ppo": config},
            link=LinkConfig(),
            radio=None,
            problem=SimpleNamespace(codec=IDENTITY),
            measured_ranges=lambda: RANGES,
            losses=dict,
            measuring=SimpleNamespace(reward_grid_points=5),
        ),
        agent_folder=lambda name, seed: tmp_path,
    )
    sources = RewardSources(folder, params, service)
    ask(sources.source_of(config, 0, tmp_path), [2, 3], params.link_low_K[0])
    path = tmp_path / train.TRAINING_COST_FILE
    sources.cost(config, 7).save(path)
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(whole[:-9] if damage == "cut" else whole.replace(b": 7", b": 5"))
    monkeypatch.setattr(train, "tracker_of", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr(train, "train", lambda *_: None)
    train._train_one(folder, params, sources, "ppo", 0, lambda *_: None, lambda _: 0.0)
    assert ("training_cost.json" in capsys.readouterr().err) == (damage != "missing")
    assert (TrainingCost.load(path).llm_evaluations, TrainingCost.load(path).worker_seconds) == (
        2,
        1.0,
    )


def test_a_setting_that_gave_no_perplexity_stops_the_training(tmp_path):
    params = example_params()
    sources = RewardSources(Folder, params, Service("invalid"))
    source = sources.source_of(TrainConfig(rewards="measured"), 0, tmp_path)
    with pytest.raises(ValueError, match="no PPL was measured for 1 setting"):
        ask(source, [2], params.link_low_K[0])


@pytest.mark.parametrize("rewards", ["measured", "algorithm_1"])
def test_measured_rewards_refuse_remote_env_runners(rewards):
    with pytest.raises(ValidationError, match="set num_env_runners to 0"):
        TrainConfig(rewards=rewards, num_env_runners=2)


@pytest.mark.slow
def test_later_stages_measure_under_the_card_of_the_first_or_refuse(tmp_path):
    experiment = load_experiment("demo", ["corpus.max_sentences=66", "backend.kind=inprocess"])
    with RunFolder.open(tmp_path, experiment) as folder:
        with measuring_service(folder) as service:
            card = {**service.card, "card_sha256": service.card_sha256, "clean_log_ppl": 2.0}
        path = tmp_path / "protocol_card.json"
        write_sealed(path, card)
        with same_measuring_service(folder):
            pass
        write_sealed(path, {**card, "device": "cuda", "card_sha256": "another"})
        with (
            pytest.raises(UserError, match="device is 'cuda' there and 'cpu' here"),
            same_measuring_service(folder),
        ):
            pass


@pytest.mark.parametrize("part", ["surrogate.safetensors", "surrogate.json"])
def test_agents_of_another_surrogate_are_forgotten(tmp_path, part):
    agents, surrogate = tmp_path / "agents", tmp_path / "surrogate"
    surrogate.mkdir()
    for name in ("surrogate.safetensors", "surrogate.json", "fit.json"):
        (surrogate / name).write_text(name)
    train._remove_agents_of_another_surrogate(agents, surrogate)
    (agents / "ppo").mkdir()
    (surrogate / "fit.json").write_text("it took longer")
    train._remove_agents_of_another_surrogate(agents, surrogate)
    assert (agents / "ppo").exists()
    (surrogate / part).write_text("another")
    train._remove_agents_of_another_surrogate(agents, surrogate)
    assert not (agents / "ppo").exists()
