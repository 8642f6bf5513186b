"""The JSON schema of the experiment file: what editors complete and underline."""

from __future__ import annotations

import json
from typing import Any

from raysplit.pipeline.experiment import Experiment

SCHEMA_FILE = "raysplit.schema.json"
EDITOR_LINE = f"# yaml-language-server: $schema={SCHEMA_FILE}"
"""First line of a YAML file from which editors learn its schema; it lies beside the file."""


def experiment_schema() -> str:
    """Return the schema as JSON text, made from the configuration models themselves."""
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "raysplit experiment",
        **Experiment.model_json_schema(by_alias=True),
    }
    return json.dumps(schema, indent=2) + "\n"
