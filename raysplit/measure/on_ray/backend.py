"""Backend `ray`: any number of UE and edge actors, on this machine or on a cluster."""

# Ray's actors and references have no complete types:
# pyright: reportFunctionMemberAccess=false, reportArgumentType=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
# pyright: reportUnknownLambdaType=false, reportMissingTypeArgument=false

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, remove_placement_group

from raysplit.base.errors import UserError
from raysplit.measure.config import BackendConfig
from raysplit.measure.on_ray.actors import EdgeActor, Shared, UEActor, ue_of
from raysplit.measure.on_ray.placement import (
    edge_count,
    edge_options,
    pair_count,
    reserve_pairs,
    ue_options,
)
from raysplit.measure.on_ray.scheduler import NoWorkersLeftError, Outcome, Scheduler
from raysplit.measure.on_ray.session import start_ray
from raysplit.measure.on_ray.waiting import Kind, Waiting
from raysplit.measure.rows import AnchorBlock, Row
from raysplit.measure.setting import Setting
from raysplit.measure.shards.job import AnchorDamages, Job
from raysplit.measure.shards.reference import CleanBlock, CleanReference


class RayBackend:
    """Edge actors measure; UE actors compute the clean hidden states that those ask for."""

    def __init__(self, job: Job, config: BackendConfig) -> None:
        """Join or start Ray and create the actors.

        Raises:
            UserError: If the cluster cannot hold one UE and one edge actor.
        """
        self._started_ray = start_ray(config)
        self._job = job
        self._config = config
        try:
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            edges = edge_count(config, nodes)
        except UserError:
            if self._started_ray:
                ray.shutdown()
            raise
        self._pairs = reserve_pairs(config, pair_count(config, edges, nodes))
        self._ues = [
            UEActor.options(**ue_options(config, pair)).remote(config)
            for pair in self._pair_of_each(config.ue_shards)
        ]
        self._edges = [
            EdgeActor.options(**edge_options(config, pair)).remote(config)
            for pair in self._pair_of_each(edges)
        ]
        self._shared = Shared(ray.put(job), ray.put(self._ues))
        self._waiting = Waiting(
            [
                Kind("edge actor", self._edges, edge_options(config)),
                Kind("UE actor", self._ues, ue_options(config)),
            ]
        )
        self._settings = self._scheduler(self._start_setting)
        self._reference: ray.ObjectRef | None = None
        self._anchors: dict[int, ray.ObjectRef] = {}

    @property
    def workers(self) -> int:
        """Edge actors that are ready now."""
        return self._settings.alive

    def clean_blocks(
        self, blocks: Sequence[int] | None = None, keep: Collection[int] = ()
    ) -> Iterator[tuple[int, CleanBlock]]:
        """Yield these blocks' parts of the clean pass, or all of them, as they are done."""
        self._ask_for(keep)
        wanted = self._job.all_blocks if blocks is None else blocks
        for outcome in _or_user_error(self._scheduler(self._start_block).run(wanted)):
            if outcome.reason:
                raise UserError(
                    f"the clean pass failed at block {outcome.unit}: {outcome.reason}; start again "
                    "to go on, or use --backend inprocess to see where"
                )
            yield outcome.unit, outcome.result

    def anchor_blocks(
        self, wanted: Iterable[tuple[Setting, int]], reference: CleanReference
    ) -> Iterator[AnchorBlock]:
        """Yield the blocks of the anchors as they are done."""
        wanted = list(wanted)
        self._ask_for(setting.split_point for setting, _ in wanted)
        self._reference = ray.put(reference)
        for outcome in _or_user_error(self._scheduler(self._start_anchor_block).run(wanted)):
            if outcome.reason:
                setting, block = outcome.unit
                raise UserError(
                    f"the anchor {setting} failed at block {block}: {outcome.reason}; start again "
                    "to go on, or do without anchors: --set measuring.anchors=false"
                )
            yield outcome.result

    def run(
        self,
        settings: Iterable[Setting],
        reference: CleanReference,
        anchors: AnchorDamages | None = None,
    ) -> Iterator[Row]:
        """Yield one row a setting, in any order."""
        settings = list(settings)
        self._ask_for(setting.split_point for setting in settings)
        self._reference = ray.put(reference)
        self._anchors = {seed: ray.put(of_seed) for seed, of_seed in (anchors or {}).items()}
        for outcome in _or_user_error(self._settings.run(settings)):
            yield _row(outcome)

    def close(self) -> None:
        """End the actors, and Ray where this backend started it."""
        for actor in (*self._edges, *self._ues):
            ray.kill(actor)
        for pair in self._pairs:
            remove_placement_group(pair)
        if self._started_ray:
            ray.shutdown()

    def _pair_of_each(self, actors: int) -> list[PlacementGroup | None]:
        """The pair that each of so many actors belongs to: the first ones have one."""
        return [*self._pairs, *[None] * (actors - len(self._pairs))]

    def _ask_for(self, split_points: Iterable[int]) -> None:
        """Have blocks computed at these split points together from now on."""
        self._shared = replace(self._shared, split_points=tuple(sorted(set(split_points))))

    def _scheduler(self, submit: Callable[[Any, Any], ray.ObjectRef]) -> Scheduler[Any]:
        return Scheduler(
            self._edges,
            submit,
            self._config.attempts,
            ready=lambda actor: actor.ready.remote(self._shared),
            watch=self._waiting.look,
        )

    def _start_block(self, actor: Any, block: int) -> ray.ObjectRef:  # noqa: ANN401
        # The UE begins while the edge may still be at another block.
        ue_of(block, self._ues).begin_clean_pass.remote(self._shared, block)
        return actor.clean_block.remote(self._shared, block)

    def _start_setting(self, actor: Any, setting: Setting) -> ray.ObjectRef:  # noqa: ANN401
        anchors = self._anchors.get(setting.seed)
        return actor.measure.remote(self._shared, setting, self._reference, anchors)

    def _start_anchor_block(self, actor: Any, wanted: tuple[Setting, int]) -> ray.ObjectRef:  # noqa: ANN401
        return actor.anchor_block.remote(self._shared, *wanted, self._reference)


def _or_user_error(outcomes: Iterator[Outcome[Any]]) -> Iterator[Outcome[Any]]:
    try:
        yield from outcomes
    except NoWorkersLeftError as error:
        raise UserError(
            f"no edge actor is left ({error}); what was measured is kept: start again to go on"
        ) from None


def _row(outcome: Outcome[Setting]) -> Row:
    if outcome.reason:
        return Row(
            setting=outcome.unit,
            status="quarantined",
            attempts=outcome.attempts,
            reason=outcome.reason,
        )
    return replace(outcome.result, attempts=outcome.attempts)
