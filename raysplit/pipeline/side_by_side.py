"""Calls in processes of their own, as many at a time as there are cores."""

from __future__ import annotations

import multiprocessing
import queue
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext, SpawnContext
from typing import Any, cast

from raysplit.base.errors import UserError
from raysplit.base.progress import Advance

_POLL_S = 0.2
# A child that was killed may have written its last words just before.
_LAST_WORDS_S = 1.0

Call = Callable[..., None]
"""Takes its arguments and, as the last one, what moves the bar."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    """How a call ended: well, with what the user has to mend, or with another error."""

    call: int
    refusal: str | None = None
    error: str | None = None


def run_side_by_side(
    call: Call, arguments: Sequence[tuple[Any, ...]], processes: int, advance: Advance
) -> None:
    """Call a function of a module with each of the arguments, each in a fresh process.

    The module is loaded once, by a process from which the others are forked: torch, transformers
    and RLlib take longer to import than a short training lasts. An interrupt, or the first call
    that fails, ends the others.

    Args:
        call: Given each of the arguments and an `Advance`.
        arguments: What can be sent to another process.
        processes: How many run at a time.
        advance: Moves the bar of all.

    Raises:
        UserError: A call raised one.
        RuntimeError: A call raised another error, or its process was killed.
    """
    context = _context(call)
    messages: Any = context.Queue()
    waiting = list(enumerate(arguments))[::-1]
    running: dict[int, Any] = {}
    dead_since: dict[int, float] = {}
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                number, given = waiting.pop()
                target = (call, number, given, messages)
                running[number] = context.Process(target=_child, args=target, daemon=True)
                running[number].start()
            outcome = _next_outcome(messages, advance)
            if outcome is None:
                outcome = _outcome_of_killed(running, dead_since)
            if outcome is not None:
                _raise_what_failed(outcome)
                running.pop(outcome.call).join()
    finally:
        for process in running.values():
            process.terminate()
            process.join()


def _context(call: Call) -> ForkServerContext | SpawnContext:
    """Fork from a process that has loaded the call's module and nothing else has run in.

    Where there is none (Windows), each process loads it.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([call.__module__])
    return context


def _next_outcome(messages: Any, advance: Advance) -> _Outcome | None:  # noqa: ANN401 - a queue
    try:
        message = messages.get(timeout=_POLL_S)
    except queue.Empty:
        return None
    if isinstance(message, _Outcome):
        return message
    advance(*message)
    return None


def _outcome_of_killed(running: dict[int, Any], dead_since: dict[int, float]) -> _Outcome | None:
    """Return how a call ended whose process is dead and has had time for its last words."""
    now = time.monotonic()
    for number, process in running.items():
        if process.exitcode is None:
            continue
        if now - dead_since.setdefault(number, now) > _LAST_WORDS_S:
            return _Outcome(number, error=f"its process ended with exit code {process.exitcode}")
    return None


def _raise_what_failed(outcome: _Outcome) -> None:
    if outcome.refusal is not None:
        raise UserError(outcome.refusal)
    if outcome.error is not None:
        raise RuntimeError(outcome.error)


def _child(call: Call, number: int, arguments: tuple[Any, ...], messages: Any) -> None:  # noqa: ANN401 - a queue
    """Run one call; Ctrl-C is the parent's, which ends its children."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def advance(*step: Any) -> None:  # noqa: ANN401 - what `Advance` takes
        messages.put(step)

    outcome = _Outcome(number)
    try:
        call(*arguments, cast(Advance, advance))
    except UserError as error:
        outcome = _Outcome(number, refusal=str(error))
    except Exception:
        outcome = _Outcome(number, error=traceback.format_exc())
    messages.put(outcome)
