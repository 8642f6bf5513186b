"""`--set section.key=value`: one value of nested sections, as the command line overrides it."""

from __future__ import annotations

from typing import Any, cast

import yaml

from raysplit.base.errors import UserError, yaml_reason
from raysplit.base.yaml_text import parse_yaml


def apply_override(values: dict[str, Any], override: str) -> None:
    """Set one value in nested sections, in place.

    Args:
        values: Sections, keys and values; a section that is missing is made.
        override: `section.key=value`, the value in YAML.

    Raises:
        UserError: It has another form, names a value as a section, or the value is no YAML.
    """
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise UserError(f"--set {override!r} must have the form section.key=value")
    *sections, key = path.split(".")
    for section in sections:
        inner: Any = values.setdefault(section, {})
        if not isinstance(inner, dict):
            raise UserError(f"--set {path}: '{section}' is a value, not a section")
        values = cast("dict[str, Any]", inner)
    try:
        values[key] = parse_yaml(text)
    except yaml.YAMLError as error:
        reason = yaml_reason(error).removeprefix("line 1: ")
        raise UserError(f"--set {path}: {text!r} is not a YAML value ({reason})") from None
