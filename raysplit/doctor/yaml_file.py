"""Read a cluster file strictly: a key written twice is refused instead of silently winning."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import yaml

from raysplit.base.errors import UserError, yaml_reason

Section = dict[str, Any]


class _StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader, which by itself keeps the last of two equal keys."""


def _mapping_without_duplicates(loader: _StrictLoader, node: yaml.MappingNode) -> Section:
    seen: set[str] = set()
    for key_node, _ in node.value:
        key = str(key_node.value)
        if key in seen:
            line = key_node.start_mark.line + 1
            raise UserError(f"line {line}: key '{key}' stands twice; keep one of them")
        seen.add(key)
    loader.flatten_mapping(node)
    return cast(Section, loader.construct_mapping(node, deep=True))


_StrictLoader.add_constructor(
    yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_without_duplicates
)


def read_yaml(path: Path) -> Section:
    """Return the file's top-level mapping.

    Raises:
        UserError: The file is missing, not YAML, not a mapping, or has a key twice.
    """
    try:
        # _StrictLoader is a SafeLoader: no tag can build anything but plain values.
        loaded = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)
    except OSError as reason:
        raise UserError(f"{path} cannot be read ({reason.strerror}); check the path") from reason
    except (yaml.YAMLError, UnicodeDecodeError) as reason:
        raise UserError(
            f"{path} is not YAML ({yaml_reason(reason)}); check indentation and quotes"
        ) from reason
    if not isinstance(loaded, dict):
        raise UserError(f"{path} holds no keys at its top level; start from the shipped file")
    return cast(Section, loaded)


def section(parent: Section, key: str) -> Section:
    """Return a nested mapping, or an empty one where it is absent or (see the schema row) wrong."""
    value = parent.get(key)
    return cast(Section, value) if isinstance(value, dict) else {}


def strings(parent: Section, key: str) -> list[str]:
    """Return a list's items as text, or an empty list where the key is absent or no list."""
    value = parent.get(key)
    return [str(item) for item in cast(list[object], value)] if isinstance(value, list) else []


def sections(parent: Section, key: str) -> list[Section]:
    """Return the mappings of a list, or an empty list where the key is absent or no list."""
    value = parent.get(key)
    items = cast(list[object], value) if isinstance(value, list) else []
    return [cast(Section, item) for item in items if isinstance(item, dict)]


def node_types(config: Section) -> dict[str, Section]:
    """Return the node types of a cloud cluster by name."""
    return {
        str(name): cast(Section, node_type)
        for name, node_type in section(config, "available_node_types").items()
        if isinstance(node_type, dict)
    }
