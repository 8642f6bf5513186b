"""JSON schemas of cluster files, Ray's own and others, and each fault in the words of a YAML file.

Ray's private parts are touched only here; where a new Ray has moved them, one row says so.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import re
from collections.abc import Collection, Iterable, Iterator
from importlib import resources
from typing import Any

import jsonschema

from raysplit.base.errors import suggest
from raysplit.doctor.check import Check, error, warning
from raysplit.doctor.cluster_yaml import ClusterFile

_SHIPPED = "correct it; compare the shipped file"
_ANSI_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_FEW = 8  # names that fit into one remedy
_TYPES = {
    "object": ("mapping", "write `key: value` lines below it, indented"),
    "array": ("list", "write its items below it, each after `- `"),
    "string": ("text for YAML", "put it in quotes"),
}


def ray_findings(file: ClusterFile) -> Iterator[Check]:
    """Yield what Ray's schema objects to; without such, what the rest of its validation does."""
    if not file.config.get("cluster_name"):
        fault = "cluster_name is missing: Ray takes 'default', which any other cluster may be, too"
        yield warning(fault, "write cluster_name: raysplit, or another name of its own")
    try:
        from ray.autoscaler._private.util import prepare_config, validate_config
    except ImportError as reason:
        yield warning(f"Ray's own check is not available ({reason})", "pip install 'ray[default]'")
        return
    # What Ray prints and logs would break the doctor's table.
    logging.getLogger("ray.autoscaler").setLevel(logging.CRITICAL)
    printed = io.StringIO()
    try:
        faults = list(schema_findings({"cluster_name": "default"} | file.config, _ray_schema()))
        yield from faults
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            if not faults:
                validate_config(prepare_config(copy.deepcopy(file.config)))
    except Exception as reason:  # Ray raises ten kinds here, AssertionError and click's among them
        said = _ANSI_COLOUR.sub("", printed.getvalue()).strip().splitlines()
        text = str(reason) or (said[-1] if said else type(reason).__name__)
        yield error(" ".join(text.split())[:200], _SHIPPED)


def _ray_schema() -> dict[str, Any]:
    """Return Ray's schema for a file as it is written: before Ray fills in and moves keys."""
    schema = json.loads((resources.files("ray.autoscaler") / "ray-schema.json").read_text("utf-8"))
    keys = schema["properties"]
    keys["min_workers"] = keys["max_workers"]
    keys["rsync_exclude"] = keys["rsync_filter"] = {"$ref": "#/definitions/commands"}
    return schema


def ray_start_options() -> frozenset[str]:
    """Return the options that `ray start` knows, e.g. "--port"; empty where Ray hides them."""
    try:
        from ray.scripts import scripts
    except ImportError:
        return frozenset()
    parameters = getattr(getattr(scripts, "start", None), "params", ())
    return frozenset(name for parameter in parameters for name in parameter.opts)


def schema_findings(value: object, schema: dict[str, Any], where: str = "") -> Iterator[Check]:
    """Yield every fault of the value by the schema; `where` is its path in the file."""
    validator: Any = jsonschema.Draft7Validator(schema)
    for fault in validator.iter_errors(value):
        path = list(fault.absolute_path)
        place = ".".join([where, *(key for key in path if isinstance(key, str))]).strip(".")
        if path and isinstance(path[-1], int):
            place = f"item {path[-1] + 1} of {place}"
        yield from _in_plain_words(fault, place)


def _in_plain_words(fault: Any, place: str) -> Iterator[Check]:  # noqa: ANN401  half typed
    rule, wanted, found = fault.validator, fault.validator_value, fault.instance
    if rule == "additionalProperties":
        yield from unknown_keys(place or "the file", found, fault.schema["properties"])
    elif rule == "required":
        for key in sorted(set(wanted) - set(found)):
            yield error(f"{place}.{key} is missing".lstrip("."), _SHIPPED)
    elif rule == "enum":
        fault = f"{place}: '{found}' does not exist{suggest(str(found), wanted)}"
        yield error(fault, _one_of(sorted(wanted)))
    elif rule == "type" and found is None:
        yield error(f"{place} is empty", "fill it, or remove the key")
    elif rule == "type" and wanted in _TYPES:
        word, remedy = _TYPES[wanted]
        yield error(f"{place} is no {word}", remedy)
    else:
        yield error(f"{place}: {fault.message}", _SHIPPED)


def unknown_keys(where: str, found: Iterable[object], known: Collection[str]) -> Iterator[Check]:
    """Yield an error for each key that Ray or EC2 would refuse, or ignore without a word."""
    for key in map(str, found):
        if key not in known:
            yield error(f"{where} has the unknown key '{key}'{suggest(key, known)}", _one_of(known))


def _one_of(known: Collection[str]) -> str:
    return f"write one of {', '.join(known)}" if len(known) <= _FEW else "correct or remove it"
