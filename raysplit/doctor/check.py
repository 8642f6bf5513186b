"""One row of the doctor's table: what was looked at, how it stands, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of one check; `ok`, `warning` and `error` make one."""

    name: str  # what was looked at, e.g. "cluster.yaml: images"; "" until `named` writes it
    status: Literal["ok", "warning", "error"]
    detail: str  # what was found, with the value
    remedy: str = ""  # what to do; only an "ok" needs none

    def __post_init__(self) -> None:
        assert self.status == "ok" or self.remedy, f"{self.name}: a finding needs a remedy"


# ok(detail) holds; warning(detail, remedy) costs money, time, safety or repeatability;
# error(detail, remedy) keeps the work from starting, going on or being safe.
ok = partial(Check, "", "ok")
warning = partial(Check, "", "warning")
error = partial(Check, "", "error")


def named(name: str, checks: Check | Iterable[Check]) -> list[Check]:
    """Return the checks under the name of their row; one that has a name keeps it."""
    found = [checks] if isinstance(checks, Check) else checks
    return [replace(check, name=check.name or name) for check in found]


def about(what: str, checks: Iterable[Check]) -> Iterator[Check]:
    """Yield the checks with what they are about, e.g. a node type, before their details."""
    for check in checks:
        yield replace(check, detail=f"{what}: {check.detail}")
