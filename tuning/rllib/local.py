"""RLlib without a Ray cluster, and one source of PPL for all the copies RLlib makes of it."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cloudpickle
import ray
from ray.tune.trainable import trainable

from envs.sources import PPLSource, Quantity, codecs_of, link_names_of
from raysplit.base.arrays import FloatArray, IntArray
from raysplit.base.errors import UserError

_trainable: Any = trainable  # it exports no setting for the folder


@contextmanager
def quiet_rllib(num_env_runners: int) -> Iterator[None]:
    """Let RLlib build and train, where it can without starting a Ray and without its notices.

    With everything in one process RLlib 2.60 still puts its configuration and each update's weights
    into the object store, for remote runners that do not exist, and the first `ray.put` starts a
    cluster: six processes and about ten seconds. Where no Ray runs and no runner is remote, `put`
    hands back the object itself here. With remote runners, RLlib starts or joins a Ray as usual.

    RLlib makes a folder for each algorithm, which stays empty, in ~/ray_results: here it is a
    temporary one, as not every home folder can be written.
    """
    put, results = ray.put, _trainable.DEFAULT_STORAGE_PATH
    loggers = [logging.getLogger(name) for name in ("ray", "ray.rllib")]
    levels = [logger.level for logger in loggers]
    if num_env_runners == 0 and not ray.is_initialized():
        # A source that measures may start a Ray of its own meanwhile.
        ray.put = lambda value, **kwargs: put(value, **kwargs) if ray.is_initialized() else value
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), tempfile.TemporaryDirectory(prefix="raysplit-") as folder:
            _trainable.DEFAULT_STORAGE_PATH = folder
            # Each runner registers its env under the same name.
            warnings.filterwarnings("ignore", ".*Overriding environment rllib-single-agent-env")
            yield
    finally:
        ray.put, _trainable.DEFAULT_STORAGE_PATH = put, results
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


class SharedSource:
    """Passes a source through RLlib by reference.

    RLlib deep-copies an env's configuration several times and pickles it for remote runners; a
    source that measures holds a database and actors, of which there must be one.
    """

    def __init__(self, source: PPLSource) -> None:
        self.source = source

    @property
    def quantity(self) -> Quantity:
        """The source's own."""
        return self.source.quantity

    @property
    def link_names(self) -> tuple[str, ...] | None:
        """The source's own."""
        return link_names_of(self.source)

    @property
    def codecs(self) -> tuple[str, ...]:
        """The source's own."""
        return codecs_of(self.source)

    def __call__(
        self, split_points_N: IntArray, link_states_NK: FloatArray, *codecs_N: IntArray
    ) -> FloatArray:
        """Ask the source."""
        return self.source(split_points_N, link_states_NK, *codecs_N)

    def __deepcopy__(self, memo: dict[int, Any]) -> SharedSource:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        try:
            return _unpickled, (cloudpickle.dumps(self.source), self.quantity)
        except Exception:  # whatever the source holds decides what is raised
            return _unpickled, (None, self.quantity)


def _unpickled(content: bytes | None, quantity: Quantity) -> SharedSource:
    return SharedSource(
        UnavailableSource(quantity) if content is None else cloudpickle.loads(content)
    )


class UnavailableSource:
    """Takes the place of a source that could not be pickled into another process."""

    def __init__(self, quantity: Quantity) -> None:
        self.quantity: Quantity = quantity

    def __call__(self, split_points_N: IntArray, link_states_NK: FloatArray) -> FloatArray:
        """Refuse.

        Raises:
            UserError: Always.
        """
        raise UserError(
            "this source of PPL cannot leave the process it was made in; "
            "set num_env_runners of the agent to 0"
        )
