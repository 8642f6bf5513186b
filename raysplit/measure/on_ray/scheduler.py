"""Hand units of work to Ray actors: each unit is answered exactly once, whatever dies on the way.

At most `IN_FLIGHT` units wait at a worker, so that its queue never runs dry and little is lost with
it. A worker gets its first unit only after it has answered `ready`, so one that finds no resources
never holds any. When a worker dies, the unit at the head of its queue (the one it was working on)
is charged with an attempt; the others go back without a charge. A unit that used up its attempts is
given up with the reason.

Where it was the node that died, as when it was preempted, the charge is taken back. Ray needs many
seconds to notice that; meanwhile the unit is done elsewhere, unless it would be given up now.
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
from typing import Any, Generic, TypeVar

import ray
from ray.actor import ActorHandle
from ray.exceptions import ActorDiedError, RayActorError, RayError

from raysplit.measure.on_ray.deaths import is_away, is_death, node_is_dead, reason_of

UnitT = TypeVar("UnitT")
_LOGGER = logging.getLogger(__name__)

IN_FLIGHT = 2
_MOST_DEATHS = 20  # in a row: whatever kills this worker will not stop
_MOST_NODES_LOST = 20  # under one unit: from then on it is charged, as it may be what kills them
_WATCH_EVERY_S = 2.0


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
    nodes_lost: int = 0


@dataclass(frozen=True, slots=True)
class _Death(Generic[UnitT]):
    """What a worker died at, until it is known whether its node did; held back if it was too often.

    A unit that is held is in no queue.
    """

    task: _Task[UnitT]
    reason: str
    held: bool


@dataclass(slots=True, eq=False)
class _Worker(Generic[UnitT]):
    actor: ActorHandle
    node: str = ""  # where it was when it was last ready
    ready: bool = False
    deaths: int = 0  # in a row, without having been ready in between
    load_failures: int = 0  # in a row, of loading what it works with
    queue: deque[tuple[ray.ObjectRef, _Task[UnitT]]] = field(default_factory=deque)
    death: _Death[UnitT] | None = None


class Scheduler(Generic[UnitT]):
    """Runs units on a fixed set of actors that may die and come back.

    Args:
        actors: Actors that may die and come back.
        submit: Starts one unit on one actor.
        attempts: Starts of a unit before it is given up.
        ready: Starts a call that returns, when an actor can work, the id of its node; by default
            its `ready()`.
        watch: Called every two seconds or more often while an actor is not ready or none answers.
    """

    def __init__(
        self,
        actors: Sequence[ActorHandle],
        submit: Callable[[ActorHandle, UnitT], ray.ObjectRef],
        attempts: int = 3,
        ready: Callable[[ActorHandle], ray.ObjectRef] = lambda actor: actor.ready.remote(),
        watch: Callable[[], None] = lambda: None,
    ) -> None:
        self._submit = submit
        self._ready = ready
        self._watch = watch
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
            while self._todo or any(w.queue or (w.death and w.death.held) for w in self._workers):
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
            worker.death = None

    def _fill(self) -> None:
        # Breadth first: a second unit for nobody while somebody has none.
        for depth in range(1, IN_FLIGHT + 1):
            for worker in self._workers:
                while worker.ready and len(worker.queue) < depth and self._todo:
                    if worker.queue and (self._todo[0].attempts or worker.queue[-1][1].attempts):
                        break  # alone: an answer is lost where the next unit kills the actor
                    task = self._todo.popleft()
                    ref = self._submit(worker.actor, task.unit)
                    worker.queue.append((ref, task))
                    self._owner[ref] = worker

    def _finished(self) -> list[ray.ObjectRef]:
        if not self._owner:
            raise NoWorkersLeftError(self._last_failure)
        refs = list(self._owner)
        some, _ = ray.wait(refs, num_returns=1, timeout=_WATCH_EVERY_S, fetch_local=False)
        if not some or not all(worker.ready for worker in self._workers):
            self._watch()
        done, _ = ray.wait(refs, num_returns=len(refs), timeout=0, fetch_local=False)
        return done

    def _on_finished(self, ref: ray.ObjectRef) -> Iterator[Outcome[UnitT]]:
        worker = self._owner.pop(ref, None)
        if worker is None:
            return  # finished with an earlier ref of this round, or taken back when its worker died
        if not worker.ready:
            yield from self._on_actor_ready(worker, ref)
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
            if not is_death(error):
                yield from self._retry(task, reason_of(error))
                return
            held = task.attempts >= self._attempts
            worker.death = _Death(task, reason_of(error), held)
            if not held:
                self._todo.append(task)
            yield from self._on_actor_death(worker, error)
        else:
            worker.deaths = 0
            yield Outcome(task.unit, result, None, task.attempts)

    def _on_actor_death(
        self, worker: _Worker[UnitT], error: RayActorError
    ) -> Iterator[Outcome[UnitT]]:
        """Take back what a dead worker held and, unless it died for good, wait for its return."""
        self._last_failure = reason_of(error)
        worker.deaths += not is_away(error)
        for ref, task in reversed(worker.queue):
            self._owner.pop(ref, None)
            self._todo.appendleft(task)
        worker.queue.clear()
        worker.ready = False
        ended = isinstance(error, ActorDiedError) or worker.deaths >= _MOST_DEATHS
        if not ended:
            self._await_ready(worker)
        if ended or node_is_dead(worker.node):
            yield from self._settle(worker, preempted=error.preempted)

    def _settle(
        self, worker: _Worker[UnitT], *, preempted: bool = False
    ) -> Iterator[Outcome[UnitT]]:
        """Take back the charge for a death that was the node's; a unit that was held goes on."""
        if worker.death is None:
            return
        death, worker.death = worker.death, None
        task = death.task
        if (preempted or node_is_dead(worker.node)) and task.nodes_lost < _MOST_NODES_LOST:
            task.attempts -= 1
            task.nodes_lost += 1
        if death.held:
            yield from self._retry(task, death.reason)

    def _await_ready(self, worker: _Worker[UnitT]) -> None:
        self._owner[self._ready(worker.actor)] = worker

    def _on_actor_ready(
        self, worker: _Worker[UnitT], ref: ray.ObjectRef
    ) -> Iterator[Outcome[UnitT]]:
        try:
            node = ray.get(ref)
        except RayError as error:
            if is_death(error):
                yield from self._on_actor_death(worker, error)
            else:
                yield from self._on_load_failure(worker, reason_of(error))
        else:
            yield from self._settle(worker)
            worker.node, worker.ready = node, True
            # It can load, so what killed it was a unit, and a unit's attempts are counted.
            worker.load_failures = worker.deaths = 0

    def _on_load_failure(self, worker: _Worker[UnitT], reason: str) -> Iterator[Outcome[UnitT]]:
        """Ask a worker that could not load again, as a disk or a hub may have been away."""
        self._last_failure = reason
        worker.load_failures += 1
        if worker.load_failures < self._attempts:
            self._await_ready(worker)
        else:
            _LOGGER.warning("a worker that cannot load is given up: %s", reason)
            yield from self._settle(worker)

    def _retry(self, task: _Task[UnitT], reason: str) -> Iterator[Outcome[UnitT]]:
        if task.attempts < self._attempts:
            self._todo.append(task)
        else:
            yield Outcome(task.unit, None, reason, task.attempts)
