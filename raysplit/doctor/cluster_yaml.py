"""A cluster file: read strictly, and the parts of it that the rules look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import yaml

from raysplit.base.errors import UserError, yaml_reason
from raysplit.base.yaml_text import parse_yaml

Section = dict[str, Any]
_Kind = TypeVar("_Kind", dict[str, Any], list[Any])


class Node(NamedTuple):
    """One of `available_node_types`."""

    name: str
    config: Section  # what stands below the name
    is_head: bool
    ec2: Section  # its node_config: what EC2 is asked for
    instance_type: str  # the InstanceType in there; "" for none
    resources: Section


class ClusterFile(NamedTuple):
    """A cluster file; sections that are missing, or wrong (see the schema row), are empty."""

    text: str
    config: Section
    ray_version: str  # that the project is pinned to, e.g. "2.60.0"
    provider: Section
    is_local: bool  # whether the machines are the user's own
    docker: Section
    mounts: dict[str, str]  # the local path of each remote one
    nodes: list[Node]


def read_cluster_file(path: Path, ray_version: str) -> ClusterFile:
    """Return the file; `ray_version` is the one that the project is pinned to.

    Raises:
        UserError: The file is missing, not YAML, not a mapping, or has a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
        config = parse_yaml(text)
    except OSError as reason:
        raise UserError(f"{path} cannot be read ({reason.strerror}); check the path") from reason
    except yaml.YAMLError as reason:
        raise UserError(f"{path} is not YAML ({yaml_reason(reason)}); check it there") from reason
    if not isinstance(config, dict):
        raise UserError(f"{path} holds no keys at its top level; start from the shipped file")
    config = cast(Section, config)
    provider, docker = part(config, "provider", dict), part(config, "docker", dict)
    mounts = {str(k): str(v) for k, v in part(config, "file_mounts", dict).items()}
    is_local, nodes = provider.get("type") == "local", _nodes(config)
    return ClusterFile(text, config, ray_version, provider, is_local, docker, mounts, nodes)


def _nodes(config: Section) -> list[Node]:
    types, head = part(config, "available_node_types", dict), config.get("head_node_type")
    nodes: list[Node] = []
    for name in types:
        below = part(types, name, dict)
        ec2, resources = part(below, "node_config", dict), part(below, "resources", dict)
        machine = str(ec2.get("InstanceType", ""))
        if isinstance(types[name], dict):
            nodes.append(Node(str(name), below, name == head, ec2, machine, resources))
    return nodes


def part(parent: Section, key: str, kind: type[_Kind]) -> _Kind:
    """Return a section or list of the file, empty where it is missing or of the wrong kind."""
    value = parent.get(key)
    return value if isinstance(value, kind) else kind()


def sections(parent: Section, key: str) -> list[Section]:
    """Return the mappings of a list."""
    return [item for item in part(parent, key, list) if isinstance(item, dict)]


def strings(parent: Section, key: str) -> list[str]:
    """Return the items of a list as text."""
    return [str(item) for item in part(parent, key, list)]
