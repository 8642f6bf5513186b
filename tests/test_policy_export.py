"""Exported policies: the network's own choices, light imports, damage noticed, ONNX."""

import itertools
import json
import subprocess
import sys

import numpy as np
import pytest

from raysplit.base.errors import UserError
from tuning.policy import ExportedPolicy, PolicyDescription


def make_policy(activation="tanh", sees_step=False, hidden=16, seed=6):
    rng = np.random.default_rng(seed)
    inputs = 3 if sees_step else 2
    sizes = [inputs, hidden, hidden, 3]
    layers = [
        (
            rng.standard_normal((after, before)).astype(np.float32),
            rng.standard_normal(after).astype(np.float32),
        )
        for before, after in itertools.pairwise(sizes)
    ]
    description = PolicyDescription(
        link_names=("noise_std",),
        min_split_point=1,
        max_split_point=10,
        sees_step=sees_step,
        activation=activation,
        trained_by="ppo tuned, seed 0, 24000 steps",
    )
    centre, half_range = np.array([0.6, 5.5, 2.5]), np.array([0.6, 4.5, 2.5])
    return ExportedPolicy(description, layers, centre[:inputs], half_range[:inputs])


def settings(rows=200, seed=1):
    rng = np.random.default_rng(seed)
    return rng.integers(1, 11, rows), rng.uniform(0, 1.2, (rows, 1)), rng.integers(0, 5, rows)


def by_definition(policy, split_points, links, steps):
    """Scale, then layer by layer in float64."""
    columns = [links, split_points[:, None]] + [steps[:, None]] * policy.description.sees_step
    x = (np.hstack(columns) - policy.centre_I) / policy.half_range_I
    activate = np.tanh if policy.description.activation == "tanh" else lambda x: np.maximum(x, 0)
    for number, (weight, bias) in enumerate(policy.layers):
        x = x @ weight.T.astype(float) + bias
        x = activate(x) if number < len(policy.layers) - 1 else x
    return x


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("sees_step", [False, True])
def test_one_call_and_many_choose_what_the_network_says(activation, sees_step):
    policy = make_policy(activation, sees_step)
    split_points, links, steps = settings()
    expected = by_definition(policy, split_points, links, steps).argmax(1)
    assert len(set(expected.tolist())) > 1
    np.testing.assert_array_equal(policy.actions(split_points, links, steps), expected)
    one_by_one = [
        policy(tuple(link), int(p), int(step))
        for p, link, step in zip(split_points, links, steps, strict=True)
    ]
    assert one_by_one == expected.tolist()


@pytest.mark.parametrize("knots", [(), (21, 10)])
def test_a_policy_of_the_module_is_the_modules_policy(knots):
    import gymnasium
    import torch
    from ray.rllib.core.columns import Columns
    from ray.rllib.core.rl_module.rl_module import RLModuleSpec

    from tuning.rllib.module import ActorCritic

    low, high = np.array([0, 1, 0], np.float32), np.array([1.2, 10, 5], np.float32)
    module = RLModuleSpec(
        module_class=ActorCritic,
        observation_space=gymnasium.spaces.Box(low, high),
        action_space=gymnasium.spaces.Discrete(3),
        model_config={
            "actor_inputs": 2,
            "critic_inputs": 3,
            "hidden_sizes": (32, 32),
            "activation": "relu",
            "scale_observations": True,
            "scale_rewards": True,
            "knots": knots,
        },
    ).build()
    policy = ExportedPolicy(make_policy("relu").description, *module.policy_arrays())
    split_points, links, steps = settings()
    obs = np.column_stack([links, split_points, steps]).astype(np.float32)
    logits = module.forward_inference({Columns.OBS: torch.from_numpy(obs)})
    expected = logits[Columns.ACTION_DIST_INPUTS].detach().numpy()
    np.testing.assert_allclose(policy.outputs(obs[:, :2]), expected, atol=1e-5)


def test_a_narrow_range_far_from_zero_keeps_its_digits():
    """-97 to -96.9 dB: what is left of the centre is a thousandth of it."""
    policy = make_policy("relu")
    low, high = np.float32(-97), np.float32(-96.9)
    policy = ExportedPolicy(
        policy.description, policy.layers, [(low + high) / 2, 5.5], [(high - low) / 2, 4.5]
    )
    split_points, _, steps = settings()
    links = np.linspace(low, high, len(steps), dtype=np.float32)[:, None]
    expected = by_definition(policy, split_points, links.astype(float), steps)
    inputs = np.column_stack([links, split_points]).astype(np.float32)
    np.testing.assert_allclose(policy.outputs(inputs), expected, rtol=1e-4, atol=1e-4)


def test_a_saved_policy_comes_back(tmp_path):
    policy = make_policy(sees_step=True)
    policy.save(tmp_path / "policy")
    loaded = ExportedPolicy.load(tmp_path / "policy")
    assert loaded.description == policy.description
    np.testing.assert_array_equal(loaded.actions(*settings()), policy.actions(*settings()))


def test_every_flipped_or_missing_byte_of_the_weights_is_noticed(tmp_path):
    make_policy(hidden=2).save(tmp_path)
    weights = tmp_path / "policy.safetensors"
    content = weights.read_bytes()
    for position in range(0, len(content), 17):
        flipped = bytearray(content)
        flipped[position] ^= 1
        weights.write_bytes(flipped)
        with pytest.raises(UserError, match="changed after it was saved"):
            ExportedPolicy.load(tmp_path)
    weights.write_bytes(content[:-1])
    with pytest.raises(UserError):
        ExportedPolicy.load(tmp_path)
    weights.unlink()
    with pytest.raises(UserError, match="export it again"):
        ExportedPolicy.load(tmp_path)


def test_a_description_of_something_else_is_refused(tmp_path):
    make_policy().save(tmp_path)
    file = tmp_path / "policy.json"
    description = json.loads(file.read_text())
    changed = {"activation": "tanj"}, {"max_split_point": 11}, {"format": 99}
    for broken in ("{", "[]", *(json.dumps(description | change) for change in changed)):
        file.write_text(broken)
        with pytest.raises(UserError):
            ExportedPolicy.load(tmp_path)


def test_what_the_policy_cannot_see_is_refused():
    policy = make_policy()
    trained_on = r"was trained on: .* noise_std, and split points 1\.\.10"
    for wrong in ([0.5, 0.5], [], 0.5, np.float64(0.5), [[0.5]], [np.nan], [np.inf]):
        with pytest.raises(UserError, match=trained_on):
            policy(wrong, 3)
    for split_point in (0, 11, np.nan, [3]):
        with pytest.raises(UserError, match=trained_on):
            policy([0.5], split_point)
    for wrong in ([0.5, 0.5], [[0.5, 0.5], [0.5, 0.5]], [[0.5], [np.nan]]):
        with pytest.raises(UserError, match=trained_on):
            policy.actions([3, 3], wrong, [0, 0])
    for wrong in ([99, 3], [3, np.nan], [3, 3, 3], 3):
        with pytest.raises(UserError, match=trained_on):
            policy.actions(wrong, [[0.5], [0.5]], [0, 0])


def test_running_a_policy_loads_neither_ray_nor_torch(tmp_path):
    make_policy().save(tmp_path)
    program = (
        "import sys; from tuning.policy import ExportedPolicy; "
        f"print(ExportedPolicy.load({str(tmp_path)!r})((0.8,), 3)); "
        "assert not {'ray', 'torch', 'gymnasium', 'pandas'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == make_policy()((0.8,), 3)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_onnx_gives_the_same_actions(tmp_path, activation):
    onnxruntime = pytest.importorskip("onnxruntime")
    from tuning.onnx_export import export_onnx

    policy = make_policy(activation, sees_step=True)
    export_onnx(policy, tmp_path / "policy.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "policy.onnx")
    split_points, links, steps = settings()
    inputs = np.column_stack([links, split_points, steps]).astype(np.float32)
    outputs, actions = session.run(["outputs", "action"], {"inputs": inputs})
    np.testing.assert_allclose(outputs, policy.outputs(inputs), atol=1e-4)
    np.testing.assert_array_equal(actions, policy.actions(split_points, links, steps))
