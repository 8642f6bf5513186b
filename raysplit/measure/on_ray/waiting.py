"""Say what is waited for, where actors find no room on the cluster."""

# Ray's actors and its view of the cluster have no complete types:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray._private import state  # the public way, ray.util.state, needs a dashboard
from ray.actor import ActorHandle

from raysplit.base.progress import say

PATIENCE_S = 10.0
"""After so long without room it is said."""
_LOOK_EVERY_S = 2.0
_UNITS = {"CPU": "cores", "GPU": "GPUs"}


@dataclass(frozen=True, slots=True)
class Kind:
    """Actors of one kind.

    Attributes:
        name: Such as "edge actor".
        actors: All of them.
        options: Ray's options of each.
    """

    name: str
    actors: Sequence[ActorHandle[Any]]
    options: Mapping[str, Any]


class Waiting:
    """Watches whether actors have found room; loading and starting are no waiting for it."""

    def __init__(self, kinds: Sequence[Kind]) -> None:
        self._kinds = kinds
        self._next_look = 0.0
        self._since: float | None = None
        self._told = False

    def look(self) -> None:
        """Print a line, once, where some actor has had no room for `PATIENCE_S`."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + _LOOK_EVERY_S
        counts = [sum(not has_room(actor) for actor in kind.actors) for kind in self._kinds]
        if not any(counts):
            self._since, self._told = None, False
            return
        self._since = now if self._since is None else self._since
        if not self._told and now - self._since >= PATIENCE_S:
            self._told = True
            say_waiting(self._missing(counts))

    def _missing(self, counts: Sequence[int]) -> str:
        return " and ".join(
            f"{count} of {len(kind.actors)} {kind.name}s ({_asked(kind.options)} each)"
            for count, kind in zip(counts, self._kinds, strict=True)
            if count
        )


def say_waiting(who: str) -> None:
    """Print who waits, and what the cluster has."""
    there, free = _amounts(ray.cluster_resources()), _amounts(ray.available_resources())
    say(
        "waiting for resources",
        "yellow",
        f": no room for {who}; the cluster has {there}, free are {free}",
    )


def has_room(actor: ActorHandle[Any]) -> bool:
    """Tell whether some node has given an actor a process, or it has ended.

    Until then Ray notes for it the address of the node that it asks, not that of a process.
    """
    known = state.actors(actor._actor_id.hex())  # pyright: ignore[reportPrivateUsage]
    if known.get("State") in ("ALIVE", "DEAD"):
        return True
    address = known.get("Address", {})
    ports = {node["NodeID"]: node["NodeManagerPort"] for node in ray.nodes()}
    return address.get("Port", 0) not in (0, ports.get(address.get("NodeID")))


def _asked(options: Mapping[str, Any]) -> str:
    asked = {"CPU": options["num_cpus"], "GPU": options["num_gpus"]}
    return _amounts(asked, [kind for kind, amount in asked.items() if amount] or ["CPU"])


def _amounts(resources: Mapping[str, float], kinds: Iterable[str] = _UNITS) -> str:
    return " and ".join(f"{resources.get(kind, 0.0):g} {_UNITS[kind]}" for kind in kinds)
