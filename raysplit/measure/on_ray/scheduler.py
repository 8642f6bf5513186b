"""Hand units of work to Ray actors: each unit is answered exactly once, whatever dies on the way.

At most `IN_FLIGHT` units wait at a worker, so that its queue never runs dry and little is lost with
it. A worker gets its first unit only after it has answered `ready`, so one that finds no resources
never holds any. When a worker dies, the unit at the head of its queue (the one it was working on)
is charged with an attempt; the others go back without a charge. A unit that used up its attempts is
given up with the reason.
"""

# Ray's actors and references have no complete types:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
# pyright: reportUnknownLambdaType=false, reportMissingTypeArgument=false

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeGuard, TypeVar

import ray
from ray.actor import ActorHandle
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    RayActorError,
    RayError,
    RayTaskError,
)

UnitT = TypeVar("UnitT")
_LOGGER = logging.getLogger(__name__)

IN_FLIGHT = 2
_MOST_DEATHS = 20  # in a row: whatever kills this worker will not stop


class NoWorkersLeftError(RuntimeError):
    """Every worker died for good while units were still to be done."""


@dataclass(frozen=True, slots=True)
class Outcome(Generic[UnitT]):
    """One unit's end: its result, or the reason why it was given up (then result is None)."""

    unit: UnitT
    result: Any
    reason: str | None
    attempts: int


@dataclass(slots=True)
class _Task(Generic[UnitT]):
    unit: UnitT
    attempts: int = 0


@dataclass(slots=True, eq=False)
class _Worker(Generic[UnitT]):
    actor: ActorHandle
    ready: bool = False
    deaths: int = 0  # in a row, without having been ready in between
    load_failures: int = 0  # in a row, of loading what it works with
    queue: deque[tuple[ray.ObjectRef, _Task[UnitT]]] = field(default_factory=deque)


class Scheduler(Generic[UnitT]):
    """Runs units on a fixed set of actors that may die and come back.

    Args:
        actors: Actors that may die and come back.
        submit: Starts one unit on one actor.
        ready: Starts a call that returns when an actor can work; by default its `ready()`.
        attempts: Starts of a unit before it is given up.
    """

    def __init__(
        self,
        actors: Sequence[ActorHandle],
        submit: Callable[[ActorHandle, UnitT], ray.ObjectRef],
        attempts: int = 3,
        ready: Callable[[ActorHandle], ray.ObjectRef] = lambda actor: actor.ready.remote(),
    ) -> None:
        self._submit = submit
        self._ready = ready
        self._attempts = attempts
        self._workers = [_Worker[UnitT](actor) for actor in actors]
        self._owner: dict[ray.ObjectRef, _Worker[UnitT]] = {}
        self._todo: deque[_Task[UnitT]] = deque()
        self._last_failure = "no worker was given"

    @property
    def alive(self) -> int:
        """Workers that are ready now."""
        return sum(worker.ready for worker in self._workers)

    def run(self, units: Iterable[UnitT]) -> Iterator[Outcome[UnitT]]:
        """Yield each unit's outcome as it becomes known.

        Raises:
            NoWorkersLeftError: If all workers died for good; what is done was already yielded.
        """
        self._todo.extend(_Task(unit) for unit in units)
        for worker in self._workers:
            if not worker.ready and worker not in self._owner.values():
                self._await_ready(worker)
        try:
            while self._todo or any(worker.queue for worker in self._workers):
                self._fill()
                for ref in self._finished():
                    yield from self._on_finished(ref)
        finally:
            self._drop_pending()

    def _drop_pending(self) -> None:
        """Drop what a caller that went away left behind, so that the next run is its own."""
        self._todo.clear()
        for worker in self._workers:
            for ref, _ in worker.queue:
                self._owner.pop(ref, None)
            worker.queue.clear()

    def _fill(self) -> None:
        # Breadth first: a second unit for nobody while somebody has none.
        for depth in range(1, IN_FLIGHT + 1):
            for worker in self._workers:
                while worker.ready and len(worker.queue) < depth and self._todo:
                    task = self._todo.popleft()
                    ref = self._submit(worker.actor, task.unit)
                    worker.queue.append((ref, task))
                    self._owner[ref] = worker

    def _finished(self) -> list[ray.ObjectRef]:
        if not self._owner:
            raise NoWorkersLeftError(self._last_failure)
        refs = list(self._owner)
        ray.wait(refs, num_returns=1, fetch_local=False)
        done, _ = ray.wait(refs, num_returns=len(refs), timeout=0, fetch_local=False)
        return done

    def _on_finished(self, ref: ray.ObjectRef) -> Iterator[Outcome[UnitT]]:
        worker = self._owner.pop(ref, None)
        if worker is None:
            return  # finished with an earlier ref of this round, or taken back when its worker died
        if not worker.ready:
            self._on_actor_ready(worker, ref)
            return
        # An actor works in order, so whatever stands before this ref has ended too. Settling the
        # queue from its head charges the right unit when a dead worker fails all of them at once.
        finished = None
        while finished != ref and worker.ready:
            finished, task = worker.queue.popleft()
            self._owner.pop(finished, None)
            yield from self._finish_task(worker, finished, task)

    def _finish_task(
        self, worker: _Worker[UnitT], ref: ray.ObjectRef, task: _Task[UnitT]
    ) -> Iterator[Outcome[UnitT]]:
        task.attempts += 1
        try:
            result = ray.get(ref)
        except RayError as error:
            if _is_death(error):
                self._on_actor_death(worker, error)
            yield from self._retry(task, _reason(error))
        else:
            worker.deaths = 0
            yield Outcome(task.unit, result, None, task.attempts)

    def _on_actor_death(self, worker: _Worker[UnitT], error: RayActorError) -> None:
        """Take back what a dead worker held and, unless it died for good, wait for its return."""
        self._last_failure = _reason(error)
        worker.deaths += not is_restarting(error)
        for ref, task in reversed(worker.queue):
            self._owner.pop(ref, None)
            self._todo.appendleft(task)
        worker.queue.clear()
        worker.ready = False
        if not isinstance(error, ActorDiedError) and worker.deaths < _MOST_DEATHS:
            self._await_ready(worker)

    def _await_ready(self, worker: _Worker[UnitT]) -> None:
        self._owner[self._ready(worker.actor)] = worker

    def _on_actor_ready(self, worker: _Worker[UnitT], ref: ray.ObjectRef) -> None:
        try:
            ray.get(ref)
            worker.ready = True
            # It can load, so what killed it was a unit, and a unit's attempts are counted.
            worker.load_failures = worker.deaths = 0
        except RayError as error:
            if _is_death(error):
                self._on_actor_death(worker, error)
            else:
                self._on_load_failure(worker, _reason(error))

    def _on_load_failure(self, worker: _Worker[UnitT], reason: str) -> None:
        """Ask a worker that could not load again, as a disk or a hub may have been away."""
        self._last_failure = reason
        worker.load_failures += 1
        if worker.load_failures < self._attempts:
            self._await_ready(worker)
        else:
            _LOGGER.warning("a worker that cannot load is given up: %s", reason)

    def _retry(self, task: _Task[UnitT], reason: str) -> Iterator[Outcome[UnitT]]:
        if task.attempts < self._attempts:
            self._todo.append(task)
        else:
            yield Outcome(task.unit, None, reason, task.attempts)


def is_restarting(error: RayActorError) -> bool:
    """Tell an actor that is on its way back from one that was just lost.

    Ray says so anew every two seconds, for as long as it takes to find it another node.
    """
    return isinstance(error, ActorUnavailableError) and "restarting" in str(error)


def _is_death(error: RayError) -> TypeGuard[RayActorError]:
    """Tell a worker's own death from what it raised, which may be the death of another actor.

    Ray raises the latter as a `RayTaskError` that is an instance of its cause's class as well.
    """
    return isinstance(error, RayActorError) and not isinstance(error, RayTaskError)


def _reason(error: RayError) -> str:
    cause: BaseException = error
    while isinstance(cause, RayTaskError):  # once more for each actor that passed it on
        cause = cause.cause
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {lines[0] if lines else ''}"[:500]
