"""The one place that touches Ray's private parts: its cluster schema and `ray start`'s options.

Both may move with a new Ray. Then the doctor says so in one row and goes on with its own rules.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import logging
import re
from collections.abc import Generator, Iterator
from typing import Any, cast

from raysplit.base.errors import suggest
from raysplit.doctor.check import Finding, error, warning
from raysplit.doctor.yaml_file import Section

_ANSI_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def schema_findings(config: Section) -> Iterator[Finding]:
    """Yield what Ray's `prepare_config` and `validate_config` object to (at most one finding)."""
    try:
        from ray.autoscaler._private.util import prepare_config, validate_config
    except ImportError as reason:
        yield warning(
            f"Ray's own check is not available ({reason})", "install ray[default]==2.60.0"
        )
        return
    printed = io.StringIO()
    try:
        with _captured(printed):
            validate_config(prepare_config(copy.deepcopy(config)))
    except Exception as reason:  # Ray raises ten kinds here, AssertionError and click's among them
        hint = _suggestion(reason)
        yield error(
            _message(reason, printed.getvalue()) + hint, "correct it; compare the shipped file"
        )


@contextlib.contextmanager
def _captured(printed: io.StringIO) -> Generator[None]:
    """Keep Ray's prints and log lines out of the doctor's table."""
    logger = logging.getLogger("ray.autoscaler")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            yield
    finally:
        logger.setLevel(level)


def _message(reason: Exception, printed: str) -> str:
    """Return one line: where in the file, and Ray's complaint (which it may only have printed)."""
    path = str(getattr(reason, "json_path", ""))
    text = str(getattr(reason, "message", "") or reason)
    if not text.strip():
        lines = _ANSI_COLOUR.sub("", printed).strip().splitlines()
        text = lines[-1] if lines else type(reason).__name__
    where = f"{path}: " if path not in ("", "$") else ""
    line = " ".join(f"{where}{text}".split())
    return line if len(line) <= 200 else line[:197] + "..."


def _suggestion(reason: Exception) -> str:
    """Return "; did you mean 'x'?" where jsonschema met a key that its schema does not name."""
    schema: Any = getattr(reason, "schema", None)
    instance: Any = getattr(reason, "instance", None)
    if getattr(reason, "validator", "") != "additionalProperties" or not isinstance(schema, dict):
        return ""
    known = set(cast(dict[str, Any], schema).get("properties", {}))
    return next(filter(None, (suggest(str(key), known) for key in set(instance) - known)), "")


@functools.cache
def ray_start_options() -> frozenset[str]:
    """Return the options that `ray start` knows, e.g. "--port"; empty where Ray hides them."""
    try:
        from ray.scripts import scripts
    except ImportError:
        return frozenset()
    start: Any = getattr(scripts, "start", None)
    names = (name for parameter in getattr(start, "params", ()) for name in parameter.opts)
    return frozenset(names)
