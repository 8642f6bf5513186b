"""One row of the doctor's table: what was looked at, how it stands, and what to do about it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from raysplit.base.errors import suggest

Status = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of one check.

    Attributes:
        name: What was looked at, e.g. "cluster.yaml: images" or "disk: run folder".
        status: "ok", "warning" (works, but slower, dearer or less safe) or "error" (will not work).
        detail: What was found, with the value.
        remedy: What to do; empty where the status is "ok".
    """

    name: str
    status: Status
    detail: str
    remedy: str = ""

    def __post_init__(self) -> None:
        assert self.status == "ok" or self.remedy, f"{self.name}: a finding needs a remedy"


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault found by one rule of a cluster file; the file's name is added by the caller."""

    status: Literal["warning", "error"]
    detail: str
    remedy: str


def error(detail: str, remedy: str) -> Finding:
    """Return a finding that stops the cluster from starting, working or being safe."""
    return Finding("error", detail, remedy)


def unknown_keys(where: str, found: Iterable[object], known: Collection[str]) -> Iterator[Finding]:
    """Yield a fault for each key that Ray or EC2 would ignore without a word."""
    for key in map(str, found):
        if key not in known:
            yield error(
                f"{where} has the unknown key '{key}'{suggest(key, known)}",
                "correct or remove it; Ray ignores it silently",
            )


def warning(detail: str, remedy: str) -> Finding:
    """Return a finding that costs money, time or repeatability."""
    return Finding("warning", detail, remedy)
