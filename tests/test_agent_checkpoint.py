"""Checkpoints: what is loaded is what was saved, or nothing is loaded."""

import json
import shutil
import sys

import numpy as np
import pytest

from envs.example import example_params, example_source
from raysplit.base.errors import UserError
from raysplit.base.files import sha256_of_file
from raysplit.base.sealed_json import read_sealed, write_sealed
from tests.pickles import pickles_in
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

pytestmark = pytest.mark.slow

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
@pytest.mark.parametrize("engine", ["lean", "stock"])
def test_a_checkpoint_brings_back_the_whole_state(kind, engine, tmp_path):
    """Weights, optimiser, counters, metrics, DQN's replay of the lean engine: bit by bit."""
    algo, other = algorithm(kind, engine=engine), algorithm(kind, 1, engine)
    algo.train()
    save_checkpoint(algo, tmp_path / "checkpoint", {})
    assert pickles_in(tmp_path) == []
    before = algo.get_state()
    restore_checkpoint(other, tmp_path / "checkpoint")
    after = other.get_state()
    assert leaves(after).keys() == leaves(before).keys()
    for place, value in leaves(before).items():
        np.testing.assert_array_equal(leaves(after)[place], value, str(place))
    algo.stop()
    other.stop()


def leaves(state, place=()):
    """Every value of nested containers by its place."""
    if not isinstance(state, dict | list | tuple):
        return {place: state}
    items = state.items() if isinstance(state, dict) else enumerate(state)
    return {
        at: leaf
        for key, value in items
        if "timers" not in str(key)  # how long a synchronisation took: restoring is one
        for at, leaf in leaves(value, (*place, key)).items()
    }


@pytest.mark.parametrize("engine", ["lean", "stock"])
def test_loading_a_checkpoint_unpickles_nothing(engine, tmp_path):
    algo = algorithm(engine=engine)
    algo.train()
    save_checkpoint(algo, tmp_path / "checkpoint", {})
    unpickled = []
    loading = True

    def watch(event, arguments):
        if loading and event == "pickle.find_class":
            unpickled.append(arguments)

    sys.addaudithook(watch)
    restore_checkpoint(algo, tmp_path / "checkpoint")
    loading = False
    assert unpickled == []
    algo.stop()


def test_a_state_that_does_not_fit_is_refused_though_its_hashes_do(saved, tmp_path):
    """Whoever writes a checkpoint writes its hashes too."""
    algo, folder = saved
    for name, content in {
        "state.json": "[]",
        "state.safetensors": b"",
        "other.json": json.dumps({"metrics_logger": {"stats": 1}}),
    }.items():
        copy = shutil.copytree(folder, tmp_path / name)
        path = copy / name.replace("other", "state")
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        manifest = read_sealed(copy / "manifest.json", "")
        manifest["files"][path.name] = sha256_of_file(path)
        write_sealed(copy / "manifest.json", manifest)
        with pytest.raises(UserError, match="holds no state of this algorithm"):
            restore_checkpoint(algo, copy)


def test_a_checkpoint_of_an_older_version_is_refused(saved, tmp_path):
    """Its state was a pickle."""
    copy = shutil.copytree(saved[1], tmp_path / "copy")
    manifest = read_sealed(copy / "manifest.json", "")
    del manifest["format"]
    write_sealed(copy / "manifest.json", manifest)
    with pytest.raises(UserError, match="another version of raysplit and is not loaded: delete"):
        verify_checkpoint(copy)


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
    (tmp_path / "copy/state.safetensors").unlink()
    before = weights_sha256(algo)
    with pytest.raises(UserError, match="is missing"):
        restore_checkpoint(algo, tmp_path / "copy")
    assert weights_sha256(algo) == before


def test_a_file_that_does_not_belong_is_noticed(saved, tmp_path):
    shutil.copytree(saved[1], tmp_path / "copy")
    (tmp_path / "copy/other.json").write_bytes(b"")
    with pytest.raises(UserError, match=r"other\.json"):
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
    monkeypatch.setattr(type(algo), "set_state", lambda *_: None)  # loads nothing, silently
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
