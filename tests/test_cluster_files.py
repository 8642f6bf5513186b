"""The shipped cluster files are sound, and every fault planted in them is found."""

import copy
import shutil
from pathlib import Path

import pytest
import yaml

from raysplit.doctor import run_checks
from raysplit.doctor.cluster_file import check_cluster_file

ROOT = Path(__file__).parent.parent
RAY = "2.60.0"


def replace(old, new):
    """Plant a fault in the text of the file; a fault that changes nothing is a broken test."""

    def plant(text):
        assert old in text
        return text.replace(old, new)

    return plant


def edit(change):
    """Plant a fault in the parsed file."""

    def plant(text):
        config = yaml.safe_load(text)
        before = copy.deepcopy(config)
        change(config)
        assert config != before
        return yaml.safe_dump(config)

    return plant


def drop(*path):
    def change(config):
        for key in path[:-1]:
            config = config[key]
        del config[path[-1]]

    return edit(change)


def put(*path_and_value):
    *path, key, value = path_and_value

    def change(config):
        for name in path:
            config = config[name]
        config[key] = value

    return edit(change)


OPEN_PORT = {"FromPort": 8265, "ToPort": 8265, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
TYPES = "available_node_types"

# The ten faults that the doctor promises to find: name, fault, row, words of the finding.
TEN_FAULTS = [
    ("instance type", replace("g6e.2xlarge", "g6e.2xlrage"), "instances", "g6e.2xlarge'"),
    ("global min_workers", put("min_workers", 1), "keys", "min_workers"),
    ("unpinned image", replace("ray:2.60.0-py311-cpu", "ray:latest"), "images", "not pinned"),
    ("open dashboard", replace("host=127.0.0.1", "host=0.0.0.0"), "start commands", "0.0.0.0"),
    ("no token mount", drop("file_mounts", "~/.ray/auth_token"), "token", "auth_token"),
    (
        "head on spot",
        put(TYPES, "head", "node_config", "InstanceMarketOptions", {"MarketType": "spot"}),
        "instances",
        "head is on spot",
    ),
    ("GPU count", put(TYPES, "gpu_quad", "resources", "GPU", 8), "instances", "has 4"),
    ("no idle timeout", drop("idle_timeout_minutes"), "limits", "idle_timeout_minutes"),
    ("no setup_commands", drop("setup_commands"), "setup", "setup_commands"),
    (
        "no autoscaling config",
        replace("--autoscaling-config=~/ray_bootstrap_config.yaml\n", "\n"),
        "start commands",
        "--autoscaling-config",
    ),
]

MORE_AWS_FAULTS = [
    ("key twice", replace("cluster_name: raysplit", "max_workers: 9"), "file", "twice"),
    ("not YAML", replace("provider:", "provider: ["), "file", "not YAML"),
    ("unknown key", put("idle_timout_minutes", 5), "schema", "mean 'idle_timeout_minutes'"),
    ("wrong type", put("max_workers", "five"), "schema", "max_workers"),
    ("half a GPU", put(TYPES, "gpu_single", "resources", "GPU", 0.5), "schema", "GPU"),
    ("no such head", put("head_node_type", "haed"), "schema", "head_node_type"),
    ("container name", drop("docker", "container_name"), "schema", "container"),
    ("provider type", put("provider", "type", "awss"), "schema", "awss"),
    ("old keys", put("worker_nodes", {"InstanceType": "m5.large"}), "keys", "worker_nodes"),
    ("gpus", put(TYPES, "gpu_single", "resources", {"gpus": 1}), "keys", "custom resource"),
    ("another Ray", replace("2.60.0-py311-cu128", "2.59.0-py311-cu128"), "images", "another Ray"),
    ("no tag", replace("rayproject/ray:2.60.0-py311-cpu", "rayproject/ray"), "images", "pinned"),
    ("two Pythons", replace("2.60.0-py311-cpu", "2.60.0-py312-cpu"), "images", "Pythons"),
    ("no CUDA", replace("py311-cu128", "py311-cpu"), "images", "no CUDA"),
    ("moving tag", replace("py311-cu128", "py311-gpu"), "images", "moves"),
    ("no image", drop("docker"), "images", "no docker image"),
    ("family", replace("m7i.2xlarge", "mm7i.2xlarge"), "instances", "mm7i"),
    ("no type", drop(TYPES, "head", "node_config", "InstanceType"), "instances", "InstanceType"),
    ("no node types", drop(TYPES), "instances", "m5.large"),
    ("CPU count", put(TYPES, "head", "resources", "CPU", 16), "instances", "has 8"),
    ("no disk", drop(TYPES, "gpu_quad", "node_config", "BlockDeviceMappings"), "instances", "disk"),
    ("small disk", replace("VolumeSize: 200", "VolumeSize: 20"), "instances", "no disk of 100 GB"),
    (
        "on demand",
        drop(TYPES, "gpu_quad", "node_config", "InstanceMarketOptions"),
        "instances",
        "multiple of spot",
    ),
    ("market", replace("MarketType: spot", "MarketType: sopt"), "instances", "sopt"),
    ("image id", put(TYPES, "head", "node_config", "ImageId", "ami-12"), "instances", "ami-12"),
    ("no image id", drop(TYPES, "gpu_quad", "node_config", "ImageId"), "instances", "18.04"),
    (
        "node_config key",
        replace("InstanceMarketOptions", "InstanceMarketOption"),
        "instances",
        "did you mean 'InstanceMarketOptions'",
    ),
    ("provider key", put("provider", "avalability_zone", "x"), "provider", "availability_zone"),
    ("region", put("provider", "region", "us-wset"), "provider", "us-wset"),
    ("zone", put("provider", "availability_zone", "eu-west-1a"), "provider", "eu-west-1a"),
    ("port", put("provider", "security_group", "IpPermissions", [OPEN_PORT]), "provider", "8265"),
    ("key pair", put("auth", "ssh_private_key", "~/.ssh/k.pem"), "provider", "KeyName"),
    ("ssh user", put("auth", {}), "ssh", "ssh_user"),
    ("long timeout", put("idle_timeout_minutes", 600), "limits", "600"),
    ("paid while idle", put(TYPES, "gpu_single", "min_workers", 1), "limits", "idle"),
    ("above the limit", put(TYPES, "gpu_single", "max_workers", 50), "limits", "50"),
    ("no limit", drop("max_workers"), "limits", "max_workers"),
    ("heads", put(TYPES, "head", "max_workers", 2), "limits", "head"),
    ("no head start", drop("head_start_ray_commands"), "start commands", "missing"),
    ("no worker start", drop("worker_start_ray_commands"), "start commands", "missing"),
    ("token mode", replace("RAY_AUTH_MODE=token\n", "\n"), "start commands", "RAY_AUTH_MODE"),
    ("option", replace("--dashboard-host", "--dashbord-host"), "start commands", "did you mean"),
    ("no --head", replace("ray start --head", "ray start"), "start commands", "--head"),
    ("no address", replace("--address=$RAY_HEAD_IP:6379", ""), "start commands", "--address"),
    ("ports", replace("$RAY_HEAD_IP:6379", "$RAY_HEAD_IP:6380"), "start commands", "6380"),
    ("quote", replace("--head --port", "--head '--port"), "start commands", "quot"),
    ("no stop", replace("  - ray stop\n", ""), "start commands", "ray stop"),
    ("block", replace("--head --port", "--head --block --port"), "start commands", "--block"),
    ("secret", replace("RAY_AUTH_MODE=token\n", "RAY_AUTH_TOKEN=abc1\n"), "secrets", "Ray's token"),
    ("mount", replace(": constraints.txt", ": constraint.txt"), "file mounts", "constraint.txt"),
    ("unpinned setup", replace("-c ~/raysplit/constraints.txt ", ""), "setup", "constraints.txt"),
    ("no README", drop("file_mounts", "~/raysplit/README.md"), "setup", "README.md is missing"),
    ("no envs", drop("file_mounts", "~/raysplit/envs"), "setup", "envs is missing"),
    ("login", replace("grep -q RAY_AUTH_MODE", "true #"), "setup", "for logins"),
    (
        "nothing mounted",
        drop("file_mounts", "~/raysplit/constraints.txt"),
        "setup",
        "no file mount",
    ),
]

LOCAL_FAULTS = [
    ("autoscaler", replace(" RAY_enable_autoscaler_v2=0\n", "\n"), "start commands", "_v2=0"),
    ("head address", put("provider", "head_ip", "192.168.1.9"), "start commands", "192.168.1.9"),
    ("twice", put("provider", "worker_ips", ["10.0.0.2"] * 2), "addresses", "twice"),
    ("head works", put("provider", "worker_ips", ["192.168.1.10"]), "addresses", "and a worker"),
    ("no address", put("provider", "worker_ips", ["node1", "10.0.0.2"]), "addresses", "'node1'"),
    ("loopback", put("provider", "worker_ips", ["127.0.0.1"]), "addresses", "127.0.0.1"),
    ("provider key", put("provider", "worker_ip", []), "addresses", "did you mean"),
    ("no workers", drop("provider", "worker_ips"), "schema", "worker_ips"),
    ("node types", put(TYPES, {"a": {"resources": {}, "node_config": {}}}), "schema", TYPES),
    ("count", put("max_workers", 1), "limits", "worker_ips names 2"),
    ("no key", put("auth", "ssh_private_key", "~/.ssh/none"), "ssh", "not on this machine"),
    ("dashboard", replace("host=127.0.0.1", "host=::"), "start commands", "listens on ::"),
    ("no token mount", drop("file_mounts", "~/.ray/auth_token"), "token", "auth_token"),
    ("no idle timeout", drop("idle_timeout_minutes"), "limits", "idle_timeout_minutes"),
]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder like the repository's root, and a home with a token and an ssh key."""
    for name in ("pyproject.toml", "constraints.txt", "README.md", "LICENSE"):
        (tmp_path / name).touch()
    for name in ("raysplit", "envs", "tuning", "home/.ray", "home/.ssh"):
        (tmp_path / name).mkdir(parents=True)
    for secret in ("home/.ray/auth_token", "home/.ssh/id_ed25519"):
        (tmp_path / secret).write_text("x")
        (tmp_path / secret).chmod(0o600)
    for name in ("cluster.yaml", "cluster-onprem.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


def findings(path):
    return {
        (row.name.partition(": ")[2], row.detail): row
        for row in check_cluster_file(path, RAY)
        if row.status != "ok"
    }


def assert_found(project, name, plant, row, words):
    path = project / name
    path.write_text(plant(path.read_text()))
    found = findings(path)
    assert any(row == group and words in detail for group, detail in found), found
    assert all(check.remedy for check in found.values())


@pytest.mark.parametrize("name", ["cluster.yaml", "cluster-onprem.yaml"])
def test_the_shipped_files_have_no_fault(project, name):
    assert findings(project / name) == {}


@pytest.mark.parametrize("name", ["cluster.yaml", "cluster-onprem.yaml"])
def test_what_the_shipped_files_mount_is_in_the_repository(name):
    mounts = yaml.safe_load((ROOT / name).read_text())["file_mounts"]
    local = [path for path in mounts.values() if not path.startswith("~")]
    assert [path for path in local if not (ROOT / path).exists()] == []


def test_the_images_have_the_pinned_ray():
    assert f"ray=={RAY}" in (ROOT / "constraints.txt").read_text().splitlines()


@pytest.mark.parametrize(
    ("plant", "row", "words"),
    [pytest.param(*fault, id=name) for name, *fault in TEN_FAULTS + MORE_AWS_FAULTS],
)
def test_a_fault_in_the_aws_file_is_found(project, plant, row, words):
    assert_found(project, "cluster.yaml", plant, row, words)


@pytest.mark.parametrize(
    ("plant", "row", "words"), [pytest.param(*fault, id=name) for name, *fault in LOCAL_FAULTS]
)
def test_a_fault_in_the_local_file_is_found(project, plant, row, words):
    assert_found(project, "cluster-onprem.yaml", plant, row, words)


def test_the_doctor_finds_ten_of_ten_faults_at_once(project, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("WANDB_MODE", "offline")
    path = project / "cluster.yaml"
    text = path.read_text()
    # The faults in the text first: the others write the file anew, without its line breaks.
    for _, plant, _, _ in sorted(TEN_FAULTS, key=lambda fault: fault[1].__qualname__, reverse=True):
        text = plant(text)
    path.write_text(text)
    bad = [row for row in run_checks([path], project) if row.status == "error"]
    missed = [
        name
        for name, _, row, words in TEN_FAULTS
        if not any(check.name == f"cluster.yaml: {row}" and words in check.detail for check in bad)
    ]
    assert len(TEN_FAULTS) == 10
    assert missed == []


def test_a_fault_found_is_not_followed_by_others(project):
    path = project / "cluster.yaml"
    for name, plant, _, _ in TEN_FAULTS:
        path.write_text(plant((ROOT / "cluster.yaml").read_text()))
        assert len(findings(path)) == 1, name


def test_a_secret_is_named_but_not_repeated(project):
    path = project / "cluster.yaml"
    secret = "AKIA" + "ABCDEFGHIJKLMNOP"
    path.write_text(path.read_text() + f"# {secret}\n")
    (row,) = findings(path).values()
    assert "AWS access key" in row.detail
    assert secret not in row.detail + row.remedy


def test_a_readable_ssh_key_is_found(project):
    (project / "home/.ssh/id_ed25519").chmod(0o644)
    (row,) = findings(project / "cluster-onprem.yaml").values()
    assert row.status == "error"
    assert "chmod 600" in row.remedy


def test_a_missing_token_is_a_warning_with_its_command(project):
    (project / "home/.ray/auth_token").unlink()
    (row,) = findings(project / "cluster.yaml").values()
    assert row.status == "warning"
    assert "ray get-auth-token --generate" in row.remedy


def test_a_moved_validator_is_a_warning_and_the_other_rules_go_on(project, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray.autoscaler._private.util", None)
    path = project / "cluster.yaml"
    path.write_text(TEN_FAULTS[0][1](path.read_text()))
    statuses = {group: row.status for (group, _), row in findings(path).items()}
    assert statuses == {"schema": "warning", "instances": "error"}
