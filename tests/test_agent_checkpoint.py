"""Checkpoints: what is loaded is what was saved, or nothing is loaded."""

import json
import shutil

import numpy as np
import pytest

from envs.example import example_params, example_source
from raysplit.base.errors import UserError
from tuning.checkpoint import (
    restore_checkpoint,
    save_checkpoint,
    verify_checkpoint,
    weights_sha256,
)
from tuning.rllib.algorithms import algorithm_config
from tuning.rllib.env import register_with_ray
from tuning.rllib.local import quiet_rllib
from tuning.settings import TrainConfig

SMALL = {
    "ppo": {"steps_per_update": 100, "minibatch_size": 50, "epochs": 2, "num_envs": 10},
    "a2c": {"steps_per_update": 100, "num_envs": 10},
    "dqn": {"steps_per_update": 20, "num_envs": 10, "learning_starts": 40},
}


@pytest.fixture(autouse=True)
def _quiet():
    with quiet_rllib(0):
        yield


def algorithm(kind="ppo", seed=0, engine="lean"):
    config = TrainConfig(
        algorithm=kind, preset="tuned", engine=engine, total_steps=4_000, overrides=SMALL[kind]
    )
    return algorithm_config(
        config,
        env=register_with_ray(),
        env_config={"params": example_params(), "source": example_source},
        actor_inputs=2,
        critic_inputs=2,
        seed=seed,
    ).build_algo()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """An algorithm after one iteration, and its checkpoint."""
    folder = tmp_path_factory.mktemp("saved") / "step-400"
    with quiet_rllib(0):
        algo = algorithm()
        algo.train()
        save_checkpoint(algo, folder, {"step": 400})
    yield algo, folder
    algo.stop()


def test_a_checkpoint_brings_back_weights_and_record(saved):
    algo, folder = saved
    other = algorithm(seed=1)
    assert weights_sha256(other) != weights_sha256(algo)
    assert restore_checkpoint(other, folder) == {"step": 400}
    assert weights_sha256(other) == weights_sha256(algo)
    runner_weights = other.env_runner.module.get_state()
    learner_weights = algo.get_module().get_state()
    other.stop()
    for name, value in runner_weights.items():
        np.testing.assert_array_equal(value, learner_weights[name])


@pytest.mark.parametrize("kind", ["ppo", "a2c", "dqn"])
def test_a_restored_run_repeats_the_unbroken_one(kind, tmp_path):
    unbroken = algorithm(kind)
    unbroken.train()
    save_checkpoint(unbroken, tmp_path / "checkpoint", {})
    unbroken.train()
    resumed = algorithm(kind)
    restore_checkpoint(resumed, tmp_path / "checkpoint")
    result = resumed.train()
    assert weights_sha256(resumed) == weights_sha256(unbroken)
    assert result["num_env_steps_sampled_lifetime"] == 800
    unbroken.stop()
    resumed.stop()


def files_of(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def damage_truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def damage_flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def damage_remove(path):
    path.unlink()


@pytest.mark.parametrize("damage", [damage_truncate, damage_flip, damage_remove])
def test_damage_to_any_file_is_noticed(saved, tmp_path, damage):
    _, folder = saved
    for name in files_of(folder):
        copy = tmp_path / "copy"
        shutil.copytree(folder, copy)
        damage(copy / name)
        with pytest.raises(UserError, match="checkpoint"):
            verify_checkpoint(copy)
        shutil.rmtree(copy)


def test_a_damaged_checkpoint_is_never_loaded(saved, tmp_path):
    algo, folder = saved
    shutil.copytree(folder, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy/rllib/learner_group")  # RLlib itself would load random weights
    before = weights_sha256(algo)
    with pytest.raises(UserError, match="is missing"):
        restore_checkpoint(algo, tmp_path / "copy")
    assert weights_sha256(algo) == before


def test_a_file_that_does_not_belong_is_noticed(saved, tmp_path):
    shutil.copytree(saved[1], tmp_path / "copy")
    (tmp_path / "copy/rllib/other.pkl").write_bytes(b"")
    with pytest.raises(UserError, match=r"other\.pkl"):
        verify_checkpoint(tmp_path / "copy")


def test_every_bit_of_the_manifest_counts(saved, tmp_path):
    shutil.copytree(saved[1], tmp_path / "copy")
    manifest = tmp_path / "copy/manifest.json"
    content = manifest.read_bytes()
    for position in range(0, len(content), 97):
        for bit in (1, 4):
            flipped = bytearray(content)
            flipped[position] ^= bit
            if not same_json(content, flipped):
                manifest.write_bytes(flipped)
                with pytest.raises(UserError):
                    verify_checkpoint(tmp_path / "copy")


def same_json(one, other):
    """Whether a flipped bit only changed white space into other white space."""
    try:
        return json.loads(one) == json.loads(other)
    except ValueError:
        return False


def test_loaded_weights_are_compared_with_the_manifest(saved, tmp_path, monkeypatch):
    algo, folder = saved
    monkeypatch.setattr(type(algo), "restore_from_path", lambda *_: None)  # loads nothing, silently
    other = algorithm(seed=1)
    with pytest.raises(UserError, match="other weights"):
        restore_checkpoint(other, folder)
    other.stop()


def test_saving_again_replaces_and_a_broken_attempt_is_no_checkpoint(saved, tmp_path, monkeypatch):
    algo, _ = saved
    folder = tmp_path / "step-1"
    save_checkpoint(algo, folder, {"step": 1})
    monkeypatch.setattr("tuning.checkpoint.weights_sha256", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_checkpoint(algo, folder, {"step": 2})
    monkeypatch.undo()
    assert verify_checkpoint(folder)
    assert json.loads((folder / "record.json").read_text()) == {"step": 1}
    save_checkpoint(algo, folder, {"step": 3})
    assert json.loads((folder / "record.json").read_text()) == {"step": 3}
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]


@pytest.mark.parametrize("kind", ["ppo", "dqn"])
def test_tunes_save_and_restore_work_too(kind, tmp_path):
    algo = algorithm(kind)
    algo.train()
    algo.save(str(tmp_path))
    other = algorithm(kind, seed=1)
    other.restore(str(tmp_path))
    assert weights_sha256(other) == weights_sha256(algo)
    if kind == "dqn":
        assert other.replay.added == algo.replay.added == 400
    algo.stop()
    other.stop()
