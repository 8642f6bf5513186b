"""The shipped cluster files are sound, and every fault planted in them is found."""

import copy
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from raysplit.doctor import ec2, run_checks
from raysplit.doctor.cluster_file import check_cluster_file
from raysplit.doctor.setup_rules import OLDEST_PYTHON
from tests.closed_folder import forbid

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


def nodes(config):
    return config["available_node_types"].values()


def put(*path_and_value):
    *path, key, value = path_and_value

    def change(config):
        for name in path:
            config = config[name]
        config[key] = value

    return edit(change)


def in_setup(command):
    return edit(lambda config: config["setup_commands"].append(command))


def open_to(net):
    return {"FromPort": 8265, "ToPort": 8265, "IpRanges": [{"CidrIp": net}]}


OPEN_PORT = open_to("0.0.0.0/0")
RULES = ("provider", "security_group", "IpPermissions")
TYPES = "available_node_types"
TOKEN_PATH = "RAY_AUTH_TOKEN_PATH"
AMAZON_LINUX = "resolve:ssm:/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"

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
        replace("    --autoscaling-config=~/ray_bootstrap_config.yaml\n", ""),
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
    ("$HOME", replace("-e ~/raysplit", "-e $HOME/raysplt"), "setup", "uses ~/raysplt"),
    ("login", replace("grep -q RAY_AUTH_MODE", "true #"), "setup", "for logins"),
    # Start commands: what YAML and the shell make of them.
    ("literal", replace("- >-\n    ulimit", "- |\n    ulimit"), "start commands", "cuts it off"),
    (
        "deeper line",
        replace("    --dashboard-host", "      --dashboard-host"),
        "start commands",
        "ends before --dashboard-host",
    ),
    ("not exported", replace("MODE=token\n", "MODE=token;\n"), "start commands", "its own"),
    ("other mode", replace("MODE=token\n", "MODE=disabled\n"), "start commands", "disabled"),
    ("no dollar", replace("$RAY_HEAD_IP", "RAY_HEAD_IP"), "start commands", "=RAY_HEAD_IP:6379"),
    (
        "single quotes",
        replace("$RAY_HEAD_IP:6379", "'$RAY_HEAD_IP:6379'"),
        "start commands",
        "does not name the head",
    ),
    ("config", replace("ray_bootstrap_config", "ray_config"), "start commands", "ray_config.yaml"),
    (
        "second start",
        replace("worker_start", "  - RAY_AUTH_MODE=token ray start --head\nworker_start"),
        "start commands",
        "second",
    ),
    (
        "second, open",
        replace("worker_start", "  - ray start --head --dashboard-host=0.0.0.0\nworker_start"),
        "start commands",
        "listens on 0.0.0.0",
    ),
    (
        "open worker",
        replace("$RAY_HEAD_IP:6379", "$RAY_HEAD_IP:6379 --dashboard-host=0.0.0.0"),
        "start commands",
        "worker_start_ray_commands: --dashboard-host=0.0.0.0",
    ),
    ("one dash", replace("--dashboard-host", "-dashboard-host"), "start commands", "did you mean"),
    ("no port", replace("--port=6379", "--port=63x9"), "start commands", "63x9 is no port"),
    # Names inside node_config and the security group.
    ("EBS", replace("  Ebs:", "  EBS:"), "instances", "unknown key 'EBS'"),
    ("volume", replace("VolumeType:", "VolumTyp:"), "instances", "did you mean 'VolumeType'"),
    ("volume type", replace("gp3", "gp9"), "instances", "'gp9' does not exist"),
    ("device", replace("DeviceName", "DeviceNme"), "instances", "did you mean 'DeviceName'"),
    ("market key", replace("MarketType:", "MarketTyp:"), "instances", "did you mean 'MarketType'"),
    (
        "spot key",
        put(
            TYPES,
            "gpu_quad",
            "node_config",
            "InstanceMarketOptions",
            "SpotOptions",
            {"MaxPrise": "1"},
        ),
        "instances",
        "did you mean 'MaxPrice'",
    ),
    (
        "no market",
        put(TYPES, "gpu_quad", "node_config", "InstanceMarketOptions", {"SpotOptions": {}}),
        "instances",
        "no MarketType",
    ),
    (
        "profile",
        put(TYPES, "head", "node_config", "IamInstanceProfile", "ray"),
        "instances",
        "IamInstanceProfile is no mapping",
    ),
    (
        "no list",
        put(TYPES, "head", "node_config", "BlockDeviceMappings", {"DeviceName": "/dev/sda1"}),
        "instances",
        "BlockDeviceMappings is no list",
    ),
    (
        "rule key",
        put(*RULES, [{**OPEN_PORT, "IpRange": []}]),
        "provider",
        "did you mean 'IpRanges'",
    ),
    ("CidrIP", put(*RULES, [{"IpRanges": [{"CidrIP": "10.0.0.0/8"}]}]), "provider", "'CidrIP'"),
    # Types and words that boto3 or EC2 refuse when the first machine is asked for.
    ("size in quotes", replace("VolumeSize: 200", "VolumeSize: '200'"), "instances", "'integer'"),
    (
        "price",
        put(
            TYPES,
            "gpu_quad",
            "node_config",
            "InstanceMarketOptions",
            {"SpotOptions": {"MaxPrice": 3}},
        ),
        "instances",
        "MaxPrice is no text",
    ),
    (
        "tenancy",
        put(TYPES, "head", "node_config", "Placement", {"Tenancy": "shared"}),
        "instances",
        "head: node_config.Placement.Tenancy: 'shared' does not exist",
    ),
    ("counts", put(TYPES, "head", "node_config", "MinCount", 1), "instances", "key 'MinCount'"),
    (
        "port in quotes",
        put(*RULES, [{**open_to("10.0.0.0/8"), "ToPort": "8265"}]),
        "provider",
        "ToPort: '8265'",
    ),
    # Who may come in.
    ("half the net", put(*RULES, [open_to("0.0.0.0/1")]), "provider", "internet (0.0.0.0/1)"),
    ("public /8", put(*RULES, [open_to("80.0.0.0/8")]), "provider", "internet (80.0.0.0/8)"),
    ("around 10/8", put(*RULES, [open_to("8.0.0.0/6")]), "provider", "internet (8.0.0.0/6)"),
    ("own address", put(*RULES, [open_to("80.1.2.3/32")]), "provider", "in the clear"),
    ("no net", put(*RULES, [open_to("10.0.0/8")]), "provider", "no net"),
    (
        "IPv6",
        put(*RULES, [{"FromPort": 8265, "ToPort": 8265, "Ipv6Ranges": [{"CidrIpv6": "::/0"}]}]),
        "provider",
        "internet (::/0)",
    ),
    (
        "all ports",
        put(*RULES, [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]),
        "provider",
        "all ports",
    ),
    ("no region", replace("us-west-2", "us-west-9"), "provider", "did you mean 'us-west-"),
    ("zone z", replace("us-west-2a,", "us-west-2z,"), "provider", "'us-west-2z'"),
    ("zone 21", replace("us-west-2a,", "us-west-21,"), "provider", "'us-west-21'"),
    ("semicolon", replace("us-west-2a,", "us-west-2a;"), "provider", "us-west-2a;us"),
    # Images and processors.
    ("tag", replace("py311-cpu", "py311-cppu"), "images", "no tag of Ray's"),
    ("no such CUDA", replace("py311-cu128", "py311-cu999"), "images", "no tag of Ray's"),
    ("no Python", replace("2.60.0-py311-cpu", "2.60.0-cpu"), "images", "names no Python"),
    ("old Python", replace("-py311-", "-py310-"), "images", "older Python"),
    ("ARM", replace("m7i.2xlarge", "m7g.2xlarge"), "images", "ARM machine"),
    ("x86", replace("py311-cpu", "py311-cpu-aarch64"), "images", "x86 machine"),
    ("ARM's AMI", replace("ami/x86_64", "ami/arm64"), "instances", "for arm64"),
    # What the machine boots. Neither region nor user can be known of a fixed id.
    (
        "fixed AMI",
        put(TYPES, "head", "node_config", "ImageId", "ami-0123456789abcdef0"),
        "instances",
        "head: ami-0123456789abcdef0 says neither its region (us-west-2?) nor its ssh user (ubuntu",
    ),
    (
        "AMI of another region",
        replace("resolve:ssm:/", "resolve:ssm:arn:aws:ssm:us-east-1::parameter/"),
        "instances",
        "the ImageId is of us-east-1, provider.region is us-west-2",
    ),
    (
        "ec2-user on Ubuntu",
        put("auth", "ssh_user", "ec2-user"),
        "instances",
        "images of Ubuntu 22.04 let in ubuntu",
    ),
    (
        "ubuntu on Amazon Linux",
        put(TYPES, "head", "node_config", "ImageId", AMAZON_LINUX),
        "instances",
        "auth.ssh_user is ubuntu, images of Amazon Linux 2023 let in ec2-user",
    ),
    (
        "pip of another Python",
        replace("- pip install -c", "- pip3.10 install -c"),
        "setup",
        "a command is for Python 3.10, rayproject/ray:2.60.0-py311-cpu has 3.11",
    ),
    ("the machine's Python", drop("docker"), "setup", "head: Ubuntu 22.04 has Python 3.10"),
    # Setup.
    (
        "Ray pinned",
        put("head_setup_commands", ["pip install 'ray[default]<2.50'"]),
        "setup",
        "installs Ray <2.50",
    ),
    (
        "a type's Ray",
        put(TYPES, "gpu_quad", "worker_setup_commands", ["pip install ray==2.59.0"]),
        "setup",
        "==2.59.0",
    ),
    (
        "nightly",
        put(
            "worker_setup_commands", ["pip install -U https://s3/ray-3.0.0.dev0-cp311-cp311-l.whl"]
        ),
        "setup",
        "3.0.0.dev0",
    ),
    # Secrets; none of them is one.
    ("HF_TOKEN", in_setup("export HF_TOKEN=abcdefghijk"), "secrets", "a key, token or password"),
    ("HF token", in_setup("hf auth login --token hf_" + "a" * 30), "secrets", "Hugging Face"),
    ("WANDB", in_setup("export WANDB_API_KEY=0123456789"), "secrets", "W&B key"),
    ("wandb login", in_setup("wandb login --relogin " + "0a" * 20), "secrets", "W&B key"),
    ("AWS", in_setup("export AWS_SECRET_ACCESS_KEY=" + "a/b+" * 10), "secrets", "a key, token"),
    ("--token", in_setup("hf auth login --token abcdefgh1"), "secrets", "a key, token"),
    ("GitHub", in_setup("git clone https://me:ghp_x1@github.com/a/b"), "secrets", "in an address"),
    (
        "AWS key",
        put("provider", "aws_credentials", {"aws_secret_access_key": "abc1" * 10}),
        "secrets",
        "a key, token",
    ),
    # Outline.
    ("no name", drop("cluster_name"), "schema", "cluster_name is missing"),
    ("docker: null", put("docker", None), "schema", "docker is empty"),
    ("no provider", drop("provider"), "schema", "provider is missing"),
    ("no provider type", drop("provider", "type"), "schema", "provider.type is missing"),
    ("provider word", put("provider", "aws"), "schema", "provider is no mapping"),
    ("empty type", put(TYPES, "gpu_quad", None), "schema", "gpu_quad is empty"),
    ("commands", put("setup_commands", "pip install x"), "schema", "setup_commands is no list"),
    ("mapping", put("setup_commands", [{"echo a": "b"}]), "schema", "item 1 of setup_commands"),
    ("rsync", put("rsync_exclude", ["a", 5]), "schema", "item 2 of rsync_exclude is no text"),
    ("mounts", put("file_mounts", ["a"]), "schema", "file_mounts is no mapping"),
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
    ("bare name", put("provider", "worker_ips", ["node1", "10.0.0.2"]), "addresses", "'node1'"),
    ("nothing", put("provider", "worker_ips", ["", "10.0.0.2"]), "addresses", "'' is no address"),
    ("loopback", put("provider", "worker_ips", ["127.0.0.1"]), "addresses", "127.0.0.1"),
    ("provider key", put("provider", "worker_ip", []), "addresses", "did you mean"),
    ("no workers", drop("provider", "worker_ips"), "schema", "worker_ips"),
    ("node types", put(TYPES, {"a": {"resources": {}, "node_config": {}}}), "schema", TYPES),
    ("count", put("min_workers", 1), "limits", "worker_ips names 2"),
    ("min above max", put("min_workers", 3), "limits", "min_workers 3 is above max_workers 2"),
    ("no address 300", replace(": 192.168.1.10", ": 192.168.1.300"), "addresses", "1.300'"),
    ("three parts", replace("- 192.168.1.11", "- 192.168.1"), "addresses", "'192.168.1'"),
    ("letter O", replace(": 192.168.1.10", ": 192.168.1.1O"), "addresses", "1.1O'"),
    ("comma", replace("- 192.168.1.11", "- 192,168.1.11"), "addresses", "192,168"),
    ("underscore", replace("- 192.168.1.11", "- gpu_1.lab.org"), "addresses", "gpu_1"),
    ("hyphen", replace("- 192.168.1.11", "- gpu-.lab.org"), "addresses", "gpu-"),
    ("IPv6", replace("- 192.168.1.11", "- fe80:::1"), "addresses", "fe80:::1"),
    ("local |", replace("  - >-\n    ulimit", "  - |\n    ulimit"), "start commands", "line break"),
    ("venv", replace("-e ~/raysplit\n", "-e ~/raysplit ray==2.59.0\n"), "setup", "==2.59.0"),
    ("no key", put("auth", "ssh_private_key", "~/.ssh/none"), "ssh", "not on this machine"),
    ("dashboard", replace("host=127.0.0.1", "host=::"), "start commands", "listens on ::"),
    ("no token mount", drop("file_mounts", "~/.ray/auth_token"), "token", "auth_token"),
    ("no idle timeout", drop("idle_timeout_minutes"), "limits", "idle_timeout_minutes"),
]


def all_of(*plants):
    """Change the text several times, e.g. where an image and a machine must fit each other."""

    def plant(text):
        for one in plants:
            text = one(text)
        return text

    return plant


PAIR = "RAY_AUTH_MODE=token\n    ray start"
# What a file may say as well: no finding must follow.
VALID_AWS_FILES = {
    "literal": replace(
        "  - >-\n    ulimit -n 65536;\n    RAY_AUTH_MODE=token\n    ray start --address",
        "  - |\n    # the worker's own\n    ulimit -n 65536\n    RAY_AUTH_MODE=token \\\n"
        "      ray start --address",
    ),
    "exported": replace(PAIR, "export RAY_AUTH_MODE=token;\n    ray start"),
    "braces": replace("$RAY_HEAD_IP:6379", '"${RAY_HEAD_IP}:6379"'),
    "retry": put(
        "worker_start_ray_commands",
        [
            "ray stop",
            "export RAY_AUTH_MODE=token; ray start --address=$RAY_HEAD_IP:6379 ||"
            " (sleep 5; ray start --address=$RAY_HEAD_IP:6379)",
        ],
    ),
    "home": replace("=~/ray_bootstrap", "=$HOME/ray_bootstrap"),
    "Graviton": all_of(
        replace("m7i.2xlarge", "m7g.2xlarge"),
        replace("py311-cpu", "py311-cpu-aarch64"),
        put(TYPES, "head", "node_config", "ImageId", "resolve:ssm:/aws/x/arm64/ami-id"),
    ),
    "Python 3.12": replace("-py311-", "-py312-"),
    "extra": replace("2.60.0-py311", "2.60.0-extra-py311"),
    "CUDA 13": replace("cu128", "cu130"),
    "digest": replace("py311-cpu", "py311-cpu@sha256:" + "0" * 64),
    "image of the region": replace(
        "resolve:ssm:/", "resolve:ssm:arn:aws:ssm:us-west-2::parameter/"
    ),
    "Amazon Linux": all_of(
        edit(lambda config: [n["node_config"].update(ImageId=AMAZON_LINUX) for n in nodes(config)]),
        put("auth", "ssh_user", "ec2-user"),
    ),
    "the image's pip": replace("- pip install -c", "- pip3.11 install -c"),
    "other region": replace("us-west-2", "eu-central-1"),
    "local zone": replace("us-west-2b", "us-west-2-lax-1a"),
    "any zone": drop("provider", "availability_zone"),
    "own nets": put(*RULES, [open_to("10.0.0.0/8"), open_to("172.16.5.0/24"), open_to("fd00::/8")]),
    "ssh and ping": put(
        *RULES,
        [
            {**open_to("0.0.0.0/0"), "FromPort": 22, "ToPort": 22, "IpProtocol": "tcp"},
            {**open_to("0.0.0.0/0"), "FromPort": -1, "ToPort": -1, "IpProtocol": "icmp"},
            {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": "sg-1"}]},
        ],
    ),
    "spot options": put(
        TYPES, "gpu_quad", "node_config", "InstanceMarketOptions", "SpotOptions",
        {"MaxPrice": "3.5", "SpotInstanceType": "one-time"},
    ),
    "capacity block": put(
        TYPES, "gpu_quad", "node_config", "InstanceMarketOptions", {"MarketType": "capacity-block"}
    ),
    "head on demand": put(
        TYPES, "head", "node_config", "InstanceMarketOptions", {"MarketType": "on-demand"}
    ),
    "more of EC2": edit(
        lambda config: config[TYPES]["head"]["node_config"].update(
            IamInstanceProfile={"Arn": "arn:aws:iam::1:instance-profile/ray"},
            MetadataOptions={"HttpTokens": "required", "HttpPutResponseHopLimit": 2},
            NetworkInterfaces=[{"DeviceIndex": 0, "Groups": ["sg-1"], "SubnetId": "subnet-1"}],
            Placement={"Tenancy": "default"},
            TagSpecifications=[
                {"ResourceType": "instance", "Tags": [{"Key": "team", "Value": "radio"}]}
            ],
        )
    ),
    "home in more places": all_of(
        replace("AUTH_MODE=token\n", f"AUTH_MODE=token {TOKEN_PATH}=$HOME/.ray/auth_token\n"),
        replace(" ~/raysplit/constraints.txt -e ~/", " ${HOME}/raysplit/constraints.txt -e $HOME/"),
    ),
    "our Ray": in_setup("pip install 'ray[default]==2.60.0' 'ray>=2.50,<3' x-ray==1.0"),
    "not Ray": in_setup("which ray > ray.txt; pip show ray >ray.txt"),
    "no secrets": all_of(
        in_setup("export HF_TOKEN_PATH=$HOME/.hf_token HF_TOKEN=$(cat ~/.hf_token)"),
        in_setup("export WANDB_API_KEY=$KEY; wandb login --verify; hf auth login --token $T"),
        lambda text: text + "# The token: generated by Ray. HF_TOKEN=your_token_here, too.\n",
    ),
}  # fmt: skip
VALID_LOCAL_FILES = {
    "names": all_of(
        replace("- 192.168.1.11", "- gpu-1.lab.example.org"),
        replace("- 192.168.1.12", "- fd00::12"),
    ),
    "written out": replace("=$RAY_HEAD_IP:6379", "=192.168.1.10:6379"),
    "coordinator": all_of(
        put("provider", {"type": "local", "coordinator_address": "192.168.1.9:1234"}),
        put("max_workers", 7),
    ),
    "no limits": all_of(drop("min_workers"), drop("max_workers")),
}


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
@pytest.mark.slow
def test_the_shipped_files_have_no_fault(project, name):
    assert findings(project / name) == {}


@pytest.mark.parametrize("name", ["cluster.yaml", "cluster-onprem.yaml"])
def test_what_the_shipped_files_mount_is_in_the_repository(name):
    mounts = yaml.safe_load((ROOT / name).read_text())["file_mounts"]
    local = [path for path in mounts.values() if not path.startswith("~")]
    assert [path for path in local if not (ROOT / path).exists()] == []


def test_the_oldest_python_is_that_of_the_project():
    oldest = ".".join(map(str, OLDEST_PYTHON))
    assert f'requires-python = ">={oldest}"' in (ROOT / "pyproject.toml").read_text()


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


@pytest.mark.parametrize("change", VALID_AWS_FILES.values(), ids=VALID_AWS_FILES)
def test_a_valid_aws_file_raises_no_alarm(project, change):
    path = project / "cluster.yaml"
    path.write_text(change(path.read_text()))
    assert findings(path) == {}


@pytest.mark.parametrize("change", VALID_LOCAL_FILES.values(), ids=VALID_LOCAL_FILES)
def test_a_valid_local_file_raises_no_alarm(project, change):
    path = project / "cluster-onprem.yaml"
    path.write_text(change(path.read_text()))
    assert findings(path) == {}


@pytest.fixture
def fresh_ec2():
    """EC2's model is read anew in the test, and anew after it."""
    for cached in (ec2._loader, ec2._shapes):
        cached.cache_clear()
    yield
    for cached in (ec2._loader, ec2._shapes):
        cached.cache_clear()


def test_without_botocore_two_rows_say_so_and_the_rest_goes_on(project, fresh_ec2, monkeypatch):
    monkeypatch.setitem(sys.modules, "botocore.loaders", None)
    path = project / "cluster.yaml"
    rows = findings(path)
    assert {group for group, _ in rows} == {"instances", "provider"}
    assert {row.status for row in rows.values()} == {"warning"}
    assert {row.remedy for row in rows.values()} == {"pip install 'raysplit[aws]'"}
    text = path.read_text()
    for name in ("GPU count", "head on spot", "unpinned image", "no setup_commands"):
        plant = next(plant for known, plant, _, _ in TEN_FAULTS if known == name)
        path.write_text(plant(text))
        assert [row.status for row in findings(path).values()].count("error") == 1, name
    # Nothing is claimed about what is not known.
    path.write_text(text.replace("g6e.2xlarge", "g9.2xlarge").replace("us-west-2", "us-west-9"))
    assert findings(path).keys() == rows.keys()


def test_no_aws_account_or_profile_is_asked(project, fresh_ec2, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "not-there")
    assert findings(project / "cluster.yaml") == {}


def test_ec2_is_known_by_name():
    assert {"us-west-2", "eu-central-1", "cn-north-1", "us-gov-west-1"} <= ec2.regions()
    assert "us-west-9" not in ec2.regions()
    assert list(ec2.node_config_findings({"InstanceType": "x", "SubnetIds": ["subnet-1"]})) == []


def test_every_fault_of_the_outline_is_named_at_once(project):
    path = project / "cluster.yaml"
    config = yaml.safe_load(path.read_text())
    config |= {"idle_timout_minutes": 5, "auth": None, "setup_commands": ["true", 5]}
    path.write_text(yaml.safe_dump(config))
    found = {detail for group, detail in findings(path) if group == "schema"}
    assert found == {
        "the file has the unknown key 'idle_timout_minutes'; did you mean 'idle_timeout_minutes'?",
        "auth is empty",
        "item 2 of setup_commands is no text for YAML",
    }


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


def test_the_same_fault_of_two_commands_is_one_row(project):
    path = project / "cluster.yaml"
    start = "ray start --address=$RAY_HEAD_IP:6379"
    plant = put("worker_start_ray_commands", ["ray stop", f"{start} || {start}"])
    path.write_text(plant(path.read_text()))
    rows = [row for row in check_cluster_file(path, RAY) if row.status != "ok"]
    assert len(rows) == 1


def test_a_secret_is_named_but_not_repeated(project):
    path = project / "cluster.yaml"
    secret = "AKIA" + "ABCDEFGHIJKLMNOP"
    path.write_text(path.read_text() + f"# {secret}\n")
    (row,) = findings(path).values()
    assert "AWS access key" in row.detail
    assert secret not in row.detail + row.remedy
    assert f"line {len(path.read_text().splitlines())}:" in row.detail


def test_a_secret_is_not_repeated_by_another_rule(project):
    path = project / "cluster.yaml"
    secret = "hf_" + "abcdefghijklmnopqrstuvwxyz"
    path.write_text(path.read_text().replace("RAY_AUTH_MODE=token\n", f"RAY_AUTH_MODE={secret}\n"))
    rows = findings(path).values()
    assert {row.name.partition(": ")[2] for row in rows} == {"start commands", "secrets"}
    assert all(secret not in row.detail + row.remedy for row in rows)


def test_a_readable_ssh_key_is_found(project):
    (project / "home/.ssh/id_ed25519").chmod(0o644)
    (row,) = findings(project / "cluster-onprem.yaml").values()
    assert row.status == "error"
    assert row.remedy == f"chmod 600 {project}/home/.ssh/id_ed25519"


def test_the_command_that_hides_a_key_can_be_pasted(project):
    key = project / "home/.ssh/my key"
    key.write_text("x")
    key.chmod(0o644)
    path = project / "cluster-onprem.yaml"
    path.write_text(put("auth", "ssh_private_key", "~/.ssh/my key")(path.read_text()))
    (row,) = findings(path).values()
    assert row.remedy == f"chmod 600 '{key}'"


def test_files_that_may_not_be_seen_count_as_missing(project, monkeypatch):
    forbid(monkeypatch, project / "home")
    found = {detail for _, detail in findings(project / "cluster-onprem.yaml")}
    assert found == {
        "the ssh key ~/.ssh/id_ed25519 is not on this machine",
        "~/.ray/auth_token is not here",
    }


def test_a_token_elsewhere_is_mounted_where_it_is_wanted(project):
    path = project / "cluster.yaml"
    wanted = f"{TOKEN_PATH}=${{HOME}}/secrets/token RAY_AUTH_MODE=token\n"
    path.write_text(replace("RAY_AUTH_MODE=token\n", wanted)(path.read_text()))
    (row,) = findings(path).values()
    assert "no file mount brings ~/secrets/token" in row.detail
    assert row.remedy == 'add "~/secrets/token": "~/.ray/auth_token" to file_mounts'


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
