"""The outline of a cluster file, over whose faults Ray's own check stumbles without naming them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from raysplit.doctor.check import Finding, error, warning
from raysplit.doctor.yaml_file import Section, section

_MAPPINGS = ("provider", "auth", "docker", "available_node_types", "file_mounts")
_LISTS = (
    "initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands",
    "head_start_ray_commands", "worker_start_ray_commands", "rsync_exclude", "rsync_filter",
)  # fmt: skip


def shape_findings(config: Section) -> Iterator[Finding]:
    """Yield sections that are missing, empty or of the wrong kind."""
    if "provider" not in config:
        yield error("provider is missing", "write provider with type: aws or type: local below it")
    elif isinstance(config["provider"], dict) and not section(config, "provider").get("type"):
        yield error("provider.type is missing", "write type: aws or type: local")
    for key in _MAPPINGS:
        if key in config:
            yield from _mapping(key, config[key])
    for name, node_type in section(config, "available_node_types").items():
        yield from _mapping(f"available_node_types.{name}", node_type)
    for key in _LISTS:
        if key in config:
            yield from _texts(key, config[key])


def _mapping(where: str, value: object) -> Iterator[Finding]:
    if value is None:
        yield error(f"{where} is empty", "fill it, or remove the key")
    elif not isinstance(value, dict):
        yield error(f"{where} is no mapping", "write `key: value` lines below it, indented")


def _texts(where: str, value: object) -> Iterator[Finding]:
    if not isinstance(value, list):
        yield error(f"{where} is no list", "write its items below it, each after `- `")
        return
    for number, item in enumerate(cast(list[Any], value), 1):
        if not isinstance(item, str):
            yield error(f"item {number} of {where} is no text for YAML", "put it in quotes")


def name_findings(config: Section) -> Iterator[Finding]:
    """Yield the absence of a name, by which `ray up` finds the machines of a cluster again."""
    if not config.get("cluster_name"):
        yield warning(
            "cluster_name is missing: Ray takes 'default', which any other cluster may be, too",
            "write cluster_name: raysplit, or another name of its own",
        )
