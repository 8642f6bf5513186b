"""The base of every configuration section: frozen, and unknown keys are refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, cast, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo, field_validator

_LONGEST_NAME = 64


class Config(BaseModel):
    """A frozen section of an experiment; each room defines its own beside what reads it."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_number_from_a_truth_value(cls, value: Any, field: ValidationInfo) -> Any:  # noqa: ANN401
        """Refuse what pydantic would take for 0 or 1, also within a list of numbers."""
        if field.field_name is not None and any(isinstance(one, bool) for one in _items(value)):
            types = set(_types_in(cls.model_fields[field.field_name].annotation))
            if types & {int, float} and bool not in types:
                raise ValueError(
                    "must be a number, and YAML reads yes, no, on, off, true and false as none"
                )
        return value


def _items(value: Any) -> list[Any]:  # noqa: ANN401 - whatever the YAML holds
    return cast("list[Any]", value) if isinstance(value, list) else [value]


def _types_in(annotation: Any) -> Iterator[Any]:  # noqa: ANN401 - any type expression
    """Yield a type, or the types of a union and of a list's or tuple's items."""
    inner = get_args(annotation)
    if inner and get_origin(annotation) in (Annotated, Union, UnionType, list, tuple):
        for one in inner:
            yield from _types_in(one)
    else:
        yield annotation


def check_name(name: str) -> str:
    """Return a name that the user chose, fit for a folder, a key and a figure's legend.

    Raises:
        ValueError: It is none.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) or len(name) > _LONGEST_NAME:
        raise ValueError(
            f"{name!r} is no name: take up to {_LONGEST_NAME} letters, digits, '.', '_' and '-', "
            "a letter or digit first"
        )
    return name


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError(f"no home folder is known for {path.parts[0]}: write it out") from None


UserPath = Annotated[Path, AfterValidator(_expanded)]
"""A path that the user wrote: `~` is the home folder."""
