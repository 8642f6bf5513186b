"""Why a section of an experiment was refused, in one line: where, the value, the rule."""

from __future__ import annotations

import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Union

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from raysplit.base.errors import suggest

_SCALARS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text (in quotes, where YAML reads it as something else)",
    Path: "a path",
}
Location = tuple[int | str, ...]


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Say what is wrong with the first bad key of a model's input, and how many more there are."""
    problems = error.errors(include_url=False)
    # A key that is misspelt is both unknown and missing: its near miss says more.
    problems.sort(key=lambda problem: problem["type"] != "extra_forbidden")
    first, union = _first(problems, model)
    location = first["loc"][:union]
    keys = _keys(location, model)
    where = ".".join(map(str, keys)) or "the experiment"
    others = {found for p in problems if (found := _keys(p["loc"], model)) != keys[: len(found)]}
    others = {found for found in others if found[: len(keys)] != keys}
    more = f" (and {len(others)} more)" if others else ""
    if first["type"] == "extra_forbidden":
        known = known_keys(first["loc"][:-1], model)
        hint = suggest(str(first["loc"][-1]), known) or f"; known here: {', '.join(known)}"
        return f"unknown key {where}{hint}{more}"
    if first["type"] == "missing" and union is None:
        return f"{where} is missing{more}"
    annotation = _annotations(location, model)[-1]
    message = first["msg"].removeprefix("Value error, ")
    if union is not None or _is_of_another_type(first) or first["type"] == "too_long":
        message = _rule(annotation) or message
    given: Any = first.get("input")
    # What a union was given stands with those of its alternatives that looked at the whole of it.
    if union is not None:
        whole = [p for p in problems if len(p["loc"]) == len(location) + 1]
        given = whole[0].get("input") if whole else {}
    shown = "" if isinstance(given, dict | BaseModel) else f" = {given!r}"
    return f"{where}{shown}: {message}{more}"


def known_keys(location: Location, model: type[BaseModel]) -> list[str]:
    """Return the keys of the section at a location of a model, such as ("agents", "ppo")."""
    for member in _members(_annotations(location, model)[-1]):
        if _is_model(member):
            return [
                str(field.validation_alias or field.alias or name)
                for name, field in member.model_fields.items()
            ]
    return []


def _first(
    problems: Sequence[ErrorDetails], model: type[BaseModel]
) -> tuple[ErrorDetails, int | None]:
    """Return the first problem, and where it is a union none of whose alternatives fits: where.

    Pydantic reports all alternatives of a union; those that expect another type say nothing.
    """
    begin = 0
    while True:
        first = problems[0]
        annotations = _annotations(first["loc"], model)
        at = next((i for i in range(begin, len(first["loc"])) if _is_union(annotations[i])), None)
        if at is None:
            return first, None
        same = [p for p in problems if p["loc"][:at] == first["loc"][:at]]
        fitting = [p for p in same if len(p["loc"]) > at and not _does_not_fit(p, at)]
        if not fitting:
            return first, at
        problems, begin = fitting, at + 1


def _does_not_fit(problem: ErrorDetails, at: int) -> bool:
    """Say whether a union's alternative expects another type, or a list of another length."""
    inside = problem["loc"][at + 1 :]
    if not inside:
        return _is_of_another_type(problem) or problem["type"] in ("too_long", "too_short")
    return problem["type"] == "missing" and isinstance(inside[0], int)


def _is_of_another_type(problem: ErrorDetails) -> bool:
    return problem["type"].endswith(("_type", "_parsing"))


def _annotations(location: Location, model: type[BaseModel]) -> list[Any]:
    """Return the type expected at every beginning of a location, the whole model first."""
    found: list[Any] = [model]
    for part in location:
        found.append(_inside(found[-1], part))
    return found


def _inside(annotation: Any, part: int | str) -> Any:  # noqa: ANN401 - any type expression
    members = _members(annotation)
    if len(members) > 1:  # the part is pydantic's name for one of them
        named = (m for m in members if getattr(m, "__name__", "no name") in str(part))
        return next(named, members[0])
    (member,) = members
    arguments = typing.get_args(member)
    if _is_model(member):
        for name, field in member.model_fields.items():
            if part in (name, field.alias, field.validation_alias):
                return field.annotation
    elif typing.get_origin(member) is dict:
        return arguments[1]
    elif arguments and isinstance(part, int):
        return arguments[part] if part < len(arguments) and ... not in arguments else arguments[0]
    return Any


def _keys(location: Location, model: type[BaseModel]) -> Location:
    """Return a location without pydantic's names for a union's alternatives."""
    annotations = _annotations(location, model)
    return tuple(part for i, part in enumerate(location) if not _is_union(annotations[i]))


def _members(annotation: Any) -> list[Any]:  # noqa: ANN401 - any type expression
    """Return the alternatives of a type, None left out; of most types, itself."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return _members(typing.get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        arguments = typing.get_args(annotation)
        return [m for a in arguments if a is not type(None) for m in _members(a)]
    return [annotation]


def _is_union(annotation: Any) -> bool:  # noqa: ANN401 - any type expression
    return len(_members(annotation)) > 1


def _is_model(annotation: Any) -> bool:  # noqa: ANN401 - any type expression
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _rule(annotation: Any) -> str:  # noqa: ANN401 - any type expression
    """Return what must stand there; empty where pydantic says it as well."""
    members = _members(annotation)
    if all(_is_model(member) for member in members):
        keys = ", ".join(known_keys((), members[0]))
        return f"this is a section: give keys with values; it has {keys}"
    kinds: list[str] = [kind for kind in dict.fromkeys(_kind(m) for m in members) if kind]
    if "a number" in kinds and "a whole number" in kinds:
        kinds.remove("a whole number")
    return f"must be {', or '.join(kinds)}" if kinds else ""


def _kind(annotation: Any) -> str:  # noqa: ANN401 - any type expression
    if _is_model(annotation):
        return f"a section with the keys {', '.join(known_keys((), annotation))}"
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is dict:
        return "a section of names with what belongs to each, such as {name: ...}"
    if typing.get_origin(annotation) in (tuple, list):
        item = _rule(arguments[0]).removeprefix("must be ").removeprefix("a ").partition(" (")[0]
        count = "" if ... in arguments or len(arguments) == 1 else f"{len(arguments)} "
        return f"a list of {count}{item}s in square brackets"
    return _SCALARS.get(annotation, "")
