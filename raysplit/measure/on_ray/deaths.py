"""What Ray's errors say about actors and nodes that are gone."""

# Ray's actors and references have no complete types:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from typing import TypeGuard

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayError, RayTaskError


def is_away(error: RayActorError) -> bool:
    """Tell an actor that is on its way back from one that was just lost.

    Ray says so anew every two seconds: first that it cannot connect, until it notices that a node
    is gone, then that the actor is restarting, for as long as it takes to find it another node.
    """
    said = str(error)
    return isinstance(error, ActorUnavailableError) and (
        "restarting" in said or "failed to connect" in said
    )


def node_is_dead(node_id: str) -> bool:
    """Tell whether a node has gone; the cluster may need some seconds to notice it."""
    return any(node["NodeID"] == node_id and not node["Alive"] for node in ray.nodes())


def is_death(error: RayError) -> TypeGuard[RayActorError]:
    """Tell a worker's own death from what it raised, which may be the death of another actor.

    Ray raises the latter as a `RayTaskError` that is an instance of its cause's class as well.
    """
    return isinstance(error, RayActorError) and not isinstance(error, RayTaskError)


def reason_of(error: RayError) -> str:
    """Return the first line of what went wrong, and its kind."""
    cause: BaseException = error
    while isinstance(cause, RayTaskError):  # once more for each actor that passed it on
        cause = cause.cause
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {lines[0] if lines else ''}"[:500]
