"""YAML read strictly: a key written twice is an error instead of silently winning."""

from __future__ import annotations

from typing import Any, cast

import yaml


class _StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader, which by itself keeps the last of two equal keys."""


def _mapping_without_duplicates(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[str] = set()
    for key_node, _ in node.value:
        key = str(key_node.value)
        if key in seen:
            raise yaml.constructor.ConstructorError(
                problem=f"key '{key}' stands twice; keep one of them",
                problem_mark=key_node.start_mark,
            )
        seen.add(key)
    loader.flatten_mapping(node)
    return cast("dict[Any, Any]", loader.construct_mapping(node, deep=True))


_StrictLoader.add_constructor(
    yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_without_duplicates
)


def parse_yaml(text: str) -> Any:  # noqa: ANN401 - any YAML value
    """Return what a YAML text says, in plain values.

    Raises:
        yaml.YAMLError: It is no YAML, or a mapping has a key twice, at any depth;
            `errors.yaml_reason` says what and in which line.
    """
    try:
        # A SafeLoader: no tag can build anything but plain values.
        return yaml.load(text, Loader=_StrictLoader)
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None
    except ValueError as error:  # a date of the 31st of February and the like
        raise yaml.YAMLError(str(error)) from None
