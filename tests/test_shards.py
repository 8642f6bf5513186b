"""The halves as workers: where they sit, what they keep, and how little they compute."""

import dataclasses
import errno
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import ray
import torch
from pydantic import ValidationError

from raysplit.base.errors import UserError
from raysplit.link import channel
from raysplit.link.state import LinkState
from raysplit.measure.anchors import choose_anchors
from raysplit.measure.config import BackendConfig
from raysplit.measure.ledger import Ledger
from raysplit.measure.on_ray import backend as cluster
from raysplit.measure.on_ray.placement import (
    edge_count,
    edge_options,
    pair_count,
    ue_options,
)
from raysplit.measure.service import MeasuringService, in_measuring_order
from raysplit.measure.setting import Setting
from raysplit.measure.shards import edge, hidden, local
from raysplit.measure.shards.edge import EdgeShard
from raysplit.measure.shards.hidden import DeviceCache, HostStore, padded, room_on, without_padding
from raysplit.measure.shards.local import LocalBackend
from raysplit.measure.shards.packing import Piece, packed
from raysplit.measure.shards.reference import CleanReference
from raysplit.measure.shards.ue import UEShard
from raysplit.model.chain import SpanChain
from tests import fault_driver

NOISY = [Setting(p, LinkState(noise_std=0.5), seed=p) for p in (1, 3, 5)]


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    fault_driver.save_model(folder)
    return fault_driver.prepared(folder)[0]


def reference_of(job, backend):
    blocks = dict(backend.clean_blocks())
    return CleanReference.gather(blocks, job.corpus.tokens_N, job.split_points[0])


class TestPlacement:
    def test_options_are_what_the_configuration_asks_for(self):
        config = BackendConfig(gpus_per_ue=0.3, gpus_per_edge=0.7, cpus_per_shard=2)
        ue, edge = ue_options(config), edge_options(config)
        assert (ue["num_cpus"], ue["num_gpus"]) == (0, 0.3)
        assert (edge["num_cpus"], edge["num_gpus"]) == (2, 0.7)
        # They come back as often as it takes; what they were asked is asked again by those who
        # count, and Ray's own retries, which print a line each, stay off.
        for options in (ue, edge):
            assert options["max_restarts"] == -1
            assert not options.get("max_task_retries")

    @pytest.mark.parametrize(
        ("backend", "cpus", "gpus", "edges"),
        [
            ({}, 8, 0, 8),
            ({"cpus_per_shard": 3}, 8, 0, 2),
            ({"gpus_per_ue": 0.3, "gpus_per_edge": 0.7}, 8, 1, 1),  # a pair on one GPU
            ({"gpus_per_ue": 1, "gpus_per_edge": 1}, 8, 2, 1),  # a pair on two
            ({"gpus_per_ue": 0.3, "gpus_per_edge": 0.7}, 8, 4, 4),
            ({"gpus_per_ue": 0.5, "gpus_per_edge": 0.5, "ue_shards": 2}, 8, 4, 6),
            ({"gpus_per_ue": 0.3, "gpus_per_edge": 0.7, "ue_shards": 2}, 8, 2, 2),  # two pairs
            ({"gpus_per_ue": 0.3, "gpus_per_edge": 0.7, "ue_shards": 3}, 8, 2, 1),
            ({"gpus_per_ue": 0.5, "gpus_per_edge": 1}, 8, 4, 3),  # half a GPU is left over
            ({"gpus_per_edge": 2}, 8, 5, 2),  # chains over two GPUs
            ({"gpus_per_edge": 0.25}, 3, 1, 3),
            ({"gpus_per_edge": 0.1}, 64, 1, 10),
            ({"edge_shards": 5}, 8, 0, 5),
        ],
    )
    def test_as_many_edges_as_there_is_room_for(self, backend, cpus, gpus, edges):
        resources = {"CPU": float(cpus), "GPU": float(gpus)}
        assert edge_count(BackendConfig(**backend), [resources]) == edges

    @pytest.mark.parametrize(
        ("backend", "edges", "gpus", "pairs"),
        [
            ({}, 4, 0, 0),
            ({"gpus_per_ue": 0.3, "gpus_per_edge": 0.7}, 1, 1, 1),
            ({"gpus_per_ue": 0.3, "gpus_per_edge": 0.7}, 4, 4, 1),  # the other edges have no UE
            ({"gpus_per_ue": 0.3, "gpus_per_edge": 0.7, "ue_shards": 2}, 2, 2, 2),
            ({"gpus_per_ue": 0.3, "gpus_per_edge": 0.7, "ue_shards": 3}, 1, 2, 1),
            ({"gpus_per_ue": 0.1, "gpus_per_edge": 0.2, "ue_shards": 2}, 1, 1, 1),
            ({"gpus_per_ue": 0.3, "gpus_per_edge": 0.7, "ue_shards": 2}, 4, 0, 2),  # nodes may come
            ({"gpus_per_ue": 0.5, "gpus_per_edge": 1}, 3, 4, 0),  # no GPU holds both
            ({"gpus_per_edge": 0.5}, 2, 1, 0),
        ],
    )
    def test_who_shares_a_gpu_is_a_pair(self, backend, edges, gpus, pairs):
        nodes = [{"CPU": 8.0, "GPU": float(gpus)}]
        assert pair_count(BackendConfig(**backend), edges, nodes) == pairs

    @pytest.mark.ray
    @pytest.mark.usefixtures("ray_session")
    def test_two_pairs_fill_two_gpus(self, monkeypatch):
        """Without pairs both UEs land on one GPU, and an edge finds .7 of none free."""

        class Idle:  # made here, Ray carries it to its process whole, which then loads nothing else
            def __init__(self, config):
                pass

            def gpu(self):
                return ray.get_runtime_context().get_accelerator_ids()["GPU"]

        for kind in ("UEActor", "EdgeActor"):
            monkeypatch.setattr(cluster, kind, ray.remote(Idle))
        there = ray.cluster_resources()
        assert (there["CPU"], there["GPU"]) == (2, 2)
        config = BackendConfig(ue_shards=2, gpus_per_ue=0.3, gpus_per_edge=0.7)
        backend = cluster.RayBackend(None, config)
        try:
            ues, edges = (
                ray.get([actor.gpu.remote() for actor in actors], timeout=200)
                for actors in (backend._ues, backend._edges)
            )
        finally:
            backend.close()
        assert sorted(ues) == sorted(edges) == [["0"], ["1"]]
        free = {}
        while (free.get("CPU"), free.get("GPU")) != (2, 2):  # reservations are given back, too
            time.sleep(0.1)
            free = ray.available_resources()

    @pytest.mark.parametrize(
        "backend",
        [
            {"cpus_per_shard": 9},
            {"gpus_per_edge": 3},
            {"gpus_per_ue": 0.6, "gpus_per_edge": 0.6, "ue_shards": 3},
        ],
    )
    def test_what_would_wait_for_ever_is_refused(self, backend):
        resources = {"CPU": 8.0, "GPU": 2.0}
        with pytest.raises(UserError, match=r"do not fit.*lower backend\.cpus_per_shard"):
            edge_count(BackendConfig(**backend), [resources])
        # On a cluster that grows, as many as asked for wait for the nodes to come.
        waiting = BackendConfig(**backend, address="auto", edge_shards=4)
        assert edge_count(waiting, [resources]) == 4
        with pytest.raises(UserError, match=r"no node of the cluster has room.*edge_shards=4"):
            edge_count(BackendConfig(**backend, address="auto"), [resources])

    def test_an_edge_never_spans_two_nodes(self):
        nodes = [{"CPU": 3.0, "GPU": 1.0}] * 3
        assert edge_count(BackendConfig(cpus_per_shard=2), nodes) == 3
        for backend in ({"cpus_per_shard": 4}, {"gpus_per_edge": 2}):
            with pytest.raises(UserError, match="no node of the cluster has room"):
                edge_count(BackendConfig(**backend, address="auto"), nodes)

    def test_one_and_a_half_gpus_are_refused(self):
        with pytest.raises(ValidationError, match="a whole number of GPUs"):
            BackendConfig(gpus_per_edge=1.5)

    @pytest.mark.ray
    @pytest.mark.usefixtures("ray_session")
    def test_the_backend_gives_them_to_its_actors(self, job, monkeypatch):
        made = []

        class Noted:
            def __init__(self, kind):
                self.kind = kind

            def options(self, **options):
                made.append((self.kind, options))
                return self

            def remote(self, config):
                made.append((self.kind, config))

        config = BackendConfig(gpus_per_ue=0.4, gpus_per_edge=1, ue_shards=2)  # no pairs
        monkeypatch.setattr(cluster, "UEActor", Noted("ue"))
        monkeypatch.setattr(cluster, "EdgeActor", Noted("edge"))
        node = {"Alive": True, "Resources": {"CPU": 3.0, "GPU": 4.0}}
        monkeypatch.setattr(cluster.ray, "nodes", lambda: [node])
        cluster.RayBackend(job, config)
        assert ("ue", ue_options(config)) in made
        assert ("edge", edge_options(config)) in made
        assert [made.count((kind, config)) for kind in ("ue", "edge")] == [2, 3]


@pytest.mark.parametrize("spans", [2, 3])
def test_a_chain_of_spans_gives_the_rows_of_a_single_one(job, monkeypatch, spans):
    def rows():
        backend = LocalBackend(job, BackendConfig(kind="inprocess"))
        reference = reference_of(job, backend)
        rows = {row.setting: row for row in backend.run(NOISY, reference)}
        return backend, reference, fault_driver.facts(rows)

    _, reference, expected = rows()
    monkeypatch.setattr(local, "shard_devices", lambda *_: ("cpu",) * spans)
    backend, of_chain, found = rows()
    assert len(backend._edge._chain.spans) == spans
    assert (of_chain.corpus.nll_N == reference.corpus.nll_N).all()
    assert found == expected


def test_a_chain_of_spans_keeps_the_hidden_states_of_a_single_one(job):
    of_one, of_three = (
        UEShard(job.ue_part(("cpu",) * spans), job.corpus, job.link).clean_hidden(0, range(1, 6))[0]
        for spans in (1, 3)
    )
    for one, three in zip(of_one, of_three, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, three, strict=True))


def test_hidden_states_are_kept_without_their_padding_and_get_it_back():
    hidden_BTD, lengths_B = torch.randn(4, 7, 3), torch.tensor([7, 1, 4, 6])
    kept_RD = without_padding(hidden_BTD, lengths_B)
    assert kept_RD.shape == (18, 3)
    again_BTD = padded(kept_RD, lengths_B.numpy())
    real_BT1 = (torch.arange(7) < lengths_B[:, None])[..., None]
    assert torch.equal(again_BTD, torch.where(real_BT1, hidden_BTD, 0.0))


class TestDeviceCache:
    """Blocks of 40 bytes, on a device that holds nothing and is no CPU."""

    def cache(self, budget_bytes):
        self.fetched = []

        def fetch(key):
            self.fetched.append(key)
            return [torch.zeros(10)]

        return DeviceCache(torch.device("meta"), budget_bytes, fetch)

    def kept(self, cache, keys):
        """Which of the blocks come from the device."""
        return [cache.get(key)[0].device.type == "meta" for key in keys]

    def test_what_belongs_to_another_split_point_makes_room(self):
        cache = self.cache(100)
        assert self.kept(cache, [(0, 1), (1, 1), (0, 1)]) == [True] * 3
        assert self.kept(cache, [(2, 1)]) == [False]  # its own split point fills it
        assert self.kept(cache, [(0, 2), (1, 1), (0, 2), (0, 1)]) == [True] * 4
        assert self.fetched == [(0, 1), (1, 1), (2, 1), (0, 2), (0, 1)]  # (0, 2) took (0, 1)'s room

    def test_it_takes_what_is_free_now(self, monkeypatch):
        free = {"bytes": 50.0}
        monkeypatch.setattr(hidden, "room_on", lambda _: free["bytes"])
        cache = self.cache(None)
        assert self.kept(cache, [(0, 1)]) == [True]
        free["bytes"] = 10.0  # what it took, and others have grown
        assert self.kept(cache, [(1, 1), (0, 1)]) == [False, True]
        free["bytes"] = 1e9
        assert self.kept(cache, [(1, 1)]) == [True]

    def test_a_budget_bounds_it_whatever_is_free(self):
        assert self.kept(self.cache(0), [(0, 1)]) == [False]
        assert self.kept(self.cache(40), [(0, 1), (1, 1)]) == [True, False]

    def test_a_cpu_keeps_nothing(self):
        cache = DeviceCache(torch.device("cpu"), None, lambda _: [torch.zeros(10)])
        cache.get((0, 1))
        assert not cache._kept

    def test_an_eighth_of_a_gpu_is_left_to_the_passes(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (50, 160))
        assert room_on(torch.device("cuda:0")) == 50 - 20

    def test_out_of_memory_halves_it_and_the_states_stay_where_they_are(self, monkeypatch):
        cache = self.cache(None)
        assert self.kept(cache, [(0, 1), (1, 1), (2, 1), (3, 1)]) == [True] * 4
        plain = torch.Tensor.to

        def full(*_):
            raise torch.OutOfMemoryError

        monkeypatch.setattr(torch.Tensor, "to", full)
        assert self.kept(cache, [(4, 1)]) == [False]
        assert sorted(cache._kept) == [(2, 1), (3, 1)]
        monkeypatch.setattr(torch.Tensor, "to", plain)
        assert self.kept(cache, [(4, 1), (2, 1), (3, 1)]) == [False, True, True]


def test_settings_of_one_split_point_are_measured_together_longest_suffix_first():
    settings = [Setting(p, LinkState(noise_std=x)) for p, x in [(3, 0.1), (1, 0.2), (3, 0.0)]]
    assert in_measuring_order(settings) == [settings[1], settings[0], settings[2]]


def test_only_the_blocks_that_a_setting_draws_are_computed(job, monkeypatch):
    reference = reference_of(job, LocalBackend(job, BackendConfig(kind="inprocess")))
    computed, plain = [], UEShard.clean_hidden

    def noted(self, block, *arguments):
        computed.append(block)
        return plain(self, block, *arguments)

    monkeypatch.setattr(UEShard, "clean_hidden", noted)
    assert len(job.corpus.blocks) == 4
    list(LocalBackend(_coarse(job), BackendConfig(kind="inprocess")).run(NOISY, reference))
    assert computed == [0, 1, 2]


def _bytes_of(states):
    return sum(state.nbytes for state in states)


def _positions(job):
    """Real ones: padding is not kept."""
    return int(job.corpus.inputs_N.sum())


@pytest.mark.parametrize(("dtype", "item_bytes"), [("float32", 4), ("bfloat16", 2)])
def test_hidden_states_are_kept_where_settings_ask_and_in_the_models_format(job, dtype, item_bytes):
    job = dataclasses.replace(job, model=job.model.model_copy(update={"dtype": dtype}))
    backend = LocalBackend(job, BackendConfig(kind="inprocess"))
    blocks = dict(backend.clean_blocks(keep=(1, 3)))
    assert all(len(block.sums_P) == 5 for block in blocks.values())  # every split point's signal
    reference = CleanReference.gather(blocks, job.corpus.tokens_N, job.split_points[0])
    list(backend.run(NOISY[:2], reference))  # at 1 and 3
    kept = backend._store._memory
    assert {p for _, p in kept} == {1, 3}
    a_split_point = _positions(job) * job.checkpoint.hidden_size * item_bytes
    assert sum(map(_bytes_of, kept.values())) == 2 * a_split_point
    list(backend.run(NOISY[2:], reference))  # at 5, which nobody had asked for before
    assert {p for _, p in kept} == {1, 3, 5}
    backend.close()


@pytest.mark.parametrize("keep", [(), (3,), (1, 3, 5)])
def test_what_was_kept_changes_no_row(job, keep):
    rows = {}
    for kept in (range(1, 6), keep):
        backend = LocalBackend(job, BackendConfig(kind="inprocess"))
        blocks = dict(backend.clean_blocks(keep=kept))
        reference = CleanReference.gather(blocks, job.corpus.tokens_N, job.split_points[0])
        found = {row.setting: row for row in backend.run(NOISY, reference)}
        rows[tuple(kept)] = (reference.to_bytes(), fault_driver.facts(found))
        backend.close()
    one, other = rows.values()
    assert one == other


def test_a_block_runs_through_the_first_layers_once(job, monkeypatch, tmp_path):
    """By the clean pass, for all split points that the settings and their anchors ask for."""
    computed, plain = [], UEShard.clean_hidden

    def noted(self, block, *arguments):
        computed.append(block)
        return plain(self, block, *arguments)

    monkeypatch.setattr(UEShard, "clean_hidden", noted)
    plan = choose_anchors((1, 4), {"noise_std": (0.0, 1.0)}, 100)
    job = dataclasses.replace(job, anchors=plan, target_stderr=0.01)
    inprocess = BackendConfig(kind="inprocess")
    with (
        Ledger(tmp_path / "ledger.sqlite") as ledger,
        MeasuringService(job, {}, ledger, inprocess) as service,
    ):
        service.measure(dataclasses.replace(setting, seed=0) for setting in NOISY)
        assert {p for _, p in service._running()._store._memory} == {1, 2, 3, 4, 5}
    assert computed == [0, 1, 2, 3]


def _coarse(job):
    return dataclasses.replace(job, target_stderr=10.0)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_actors_compute_and_keep_what_settings_ask_for_in_the_models_format(job):
    job = dataclasses.replace(job, model=job.model.model_copy(update={"dtype": "bfloat16"}))
    reference = reference_of(job, LocalBackend(job, BackendConfig(kind="inprocess")))
    backend = cluster.RayBackend(_coarse(job), BackendConfig(edge_shards=1, ue_shards=2))
    try:
        # Only the blocks that a setting draws.
        assert {row.status for row in backend.run(NOISY, reference)} == {"done"}
        kept = [_kept_by(ue) for ue in backend._ues]
        assert [sorted(blocks) for blocks in kept] == [[0, 2], [1]]
        assert all(set(of_block) == {1, 3, 5} for blocks in kept for of_block in blocks.values())
        # What the clean pass is told to keep, of every block.
        blocks = dict(backend.clean_blocks(keep=(2, 4)))
        reference = CleanReference.gather(blocks, job.corpus.tokens_N, job.split_points[0])
        settings = [dataclasses.replace(NOISY[0], split_point=p) for p in (2, 4)]
        assert [row.status for row in backend.run(settings, reference)] == ["done"] * 2
        of_blocks = [kept for ue in backend._ues for kept in _kept_by(ue).values()]
        assert [set(kept) - {1, 3, 5} for kept in of_blocks] == [{2, 4}] * len(job.corpus.blocks)
        weight = sum(kept[p] for kept in of_blocks for p in (2, 4))
        assert weight == 2 * _positions(job) * job.checkpoint.hidden_size * 2
    finally:
        backend.close()


def _kept_by(ue):
    """Bytes that a UE actor keeps, by block and split point."""

    def weigh(actor):
        kept = {block: dict(of_block) for block, of_block in actor._kept.items()}
        assert not actor._ahead
        return {
            block: {p: sum(a.nbytes for a in ray.get(ref)) for p, ref in of_block.items()}
            for block, of_block in kept.items()
        }

    return ray.get(ue.__ray_call__.remote(weigh))


_CUT_SHORT = """
import sys
from pathlib import Path
from raysplit.measure.on_ray.backend import RayBackend
from raysplit.measure.config import BackendConfig
from tests import fault_driver

if __name__ == "__main__":
    job, _ = fault_driver.prepared(Path(sys.argv[1]))
    backend = RayBackend(job, BackendConfig(edge_shards=1))
    next(backend.clean_blocks())  # further blocks are on their way to both kinds of actors
    backend.close()
"""


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.thorough  # what a command that is stopped prints, tests/test_cli.py looks at
def test_a_backend_closed_in_the_middle_leaves_the_terminal_clean(tmp_path):
    fault_driver.save_model(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", _CUT_SHORT, str(tmp_path)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.slow
class TestPacking:
    @pytest.mark.parametrize("tokens_per_pass", [1, 7, 40, 10_000])
    @pytest.mark.parametrize("state", [{"noise_std": 0.5}, {"loss_probability": 0.02}])
    def test_rows_that_run_together_give_what_each_batch_gives_alone(
        self, job, tokens_per_pass, state
    ):
        settings = [Setting(p, LinkState(**state), seed=p) for p in (1, 4)]
        backend = LocalBackend(job, BackendConfig(kind="inprocess"))
        reference = reference_of(job, backend)
        alone = list(backend.run(settings, reference))
        backend._edge.tokens_per_pass = tokens_per_pass
        together = list(backend.run(settings, reference))
        backend.close()
        for one, other in zip(alone, together, strict=True):
            assert other.log_ppl == pytest.approx(one.log_ppl, rel=1e-6)
            assert (other.sequences, other.recomputed) == (one.sequences, one.recomputed)
        assert alone[0].recomputed > 0

    def test_a_pass_is_padded_little_and_never_larger_than_asked(self, job):
        pieces = [
            Piece(batch, np.arange(len(batch.lengths_B)), torch.zeros(*batch.inputs_BT.shape, 2))
            for block in job.corpus.blocks
            for batch in block
        ]
        passes = list(packed(pieces, lambda: 60))
        rows = np.concatenate([one.rows_B for one in passes])
        assert sorted(rows) == list(range(sum(len(piece.rows) for piece in pieces)))
        lengths = np.concatenate([piece.batch.lengths_B for piece in pieces])
        for one in passes:
            assert one.hidden_BTD.shape[1] == lengths[one.rows_B].max()
            assert len(one.rows_B) == 1 or one.targets_BT.size <= 60
        padded = sum(one.targets_BT.size for one in passes)
        assert padded < 1.1 * lengths.sum() < sum(piece.batch.inputs_BT.size for piece in pieces)


CPU_ERROR = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")


@pytest.mark.slow
class TestOutOfMemory:
    """Every part of a pass that is given too many rows does them in halves, with the same rows."""

    @pytest.fixture
    def measured(self, job):
        def run(settings=NOISY):
            backend = LocalBackend(job, BackendConfig(kind="inprocess"))
            reference = reference_of(job, backend)
            rows = {row.setting: row for row in backend.run(settings, reference)}
            backend.close()
            return reference, rows

        return run

    @staticmethod
    def limit(monkeypatch, owner, name, rows_of, error=CPU_ERROR, most=3):
        """Let a function fail where it is given more rows than `most`; count the failures."""
        plain, failures = getattr(owner, name), []

        def limited(*arguments, **keywords):
            if rows_of(*arguments) > most:
                failures.append(rows_of(*arguments))
                raise error
            return plain(*arguments, **keywords)

        monkeypatch.setattr(owner, name, limited)
        return failures

    @pytest.mark.parametrize("error", [CPU_ERROR, torch.OutOfMemoryError(), MemoryError()])
    def test_the_suffix(self, measured, monkeypatch, error):
        _, alone = measured()
        failures = self.limit(
            monkeypatch, SpanChain, "run_from", lambda _, hidden, *__: len(hidden), error
        )
        _, halved = measured()
        assert failures
        for setting, row in halved.items():
            assert row.log_ppl == pytest.approx(alone[setting].log_ppl, rel=1e-6)
            assert "run in halves" in row.reason

    def test_the_prefix(self, measured, monkeypatch):
        expected, alone = measured()
        failures = self.limit(
            monkeypatch, SpanChain, "run_keeping", lambda _, hidden, *__: len(hidden)
        )
        reference, halved = measured()
        assert failures
        assert reference.corpus.nll_N == pytest.approx(expected.corpus.nll_N, rel=1e-6)
        assert reference.rms_P == pytest.approx(expected.rms_P, rel=1e-6)
        assert reference.mean_PD == pytest.approx(expected.mean_PD, abs=1e-5)
        for setting, row in halved.items():
            assert row.log_ppl == pytest.approx(alone[setting].log_ppl, rel=1e-6)

    @pytest.mark.parametrize("state", [{"noise_std": 0.5}, {"loss_probability": 0.2}])
    def test_the_link(self, measured, monkeypatch, state):
        """Its randomness is drawn for the whole batch, so here even the last bit is the same."""
        settings = [Setting(p, LinkState(**state), seed=p) for p in (1, 4)]
        _, alone = measured(settings)
        failures = self.limit(monkeypatch, channel, "_propagate", lambda hidden, *_: len(hidden))
        _, halved = measured(settings)
        assert failures
        assert fault_driver.facts(halved) == fault_driver.facts(alone)

    def test_putting_rows_together(self, job, measured, monkeypatch):
        _, alone = measured()
        failures = self.limit(
            monkeypatch,
            edge,
            "packed",
            lambda pieces, _: sum(len(piece.rows) for piece in pieces),
            most=40,
        )
        monkeypatch.setattr(edge, "tuned_tokens_per_pass", lambda *_: 1000)
        backend = LocalBackend(job, BackendConfig(kind="inprocess"))
        backend._edge.tokens_per_pass = 1000
        reference = reference_of(job, backend)
        for row in backend.run(NOISY, reference):
            assert row.log_ppl == pytest.approx(alone[row.setting].log_ppl, rel=1e-6)
        assert failures
        backend.close()

    def test_what_waits_is_run_before_a_batch_is_given_up(self, job, monkeypatch):
        """A batch that cannot be sent at all has its second try once nothing waits any more."""
        backend = LocalBackend(job, BackendConfig(kind="inprocess"))
        backend._edge.tokens_per_pass = 10_000  # everything waits until the end
        reference = reference_of(job, backend)
        (alone,) = backend.run(NOISY[:1], reference)
        plain, ran, calls = edge.transmit, [], []
        together = EdgeShard._together

        def noted(self, pieces, split_point):
            ran.append(len(pieces))
            return together(self, pieces, split_point)

        def full_once(*arguments, **keywords):
            calls.append(1)
            if len(calls) == 4:
                raise torch.OutOfMemoryError
            return plain(*arguments, **keywords)

        monkeypatch.setattr(EdgeShard, "_together", noted)
        monkeypatch.setattr(edge, "transmit", full_once)
        (row,) = backend.run(NOISY[:1], reference)
        assert row.log_ppl == pytest.approx(alone.log_ppl, rel=1e-6)
        assert ran[0] == 3
        backend.close()

    def test_a_single_row_that_does_not_fit_is_an_error(self, measured, monkeypatch):
        self.limit(monkeypatch, SpanChain, "run_keeping", lambda _, hidden, *__: 99)
        with pytest.raises(RuntimeError, match="can't allocate memory"):
            measured()

    def test_another_error_is_not_tried_again(self, measured, monkeypatch):
        error = RuntimeError("something else")
        failures = self.limit(monkeypatch, SpanChain, "run_keeping", lambda *_: 99, error)
        with pytest.raises(RuntimeError, match="something else"):
            measured()
        assert len(failures) == 1


class TestSpilling:
    def test_a_full_disk_is_named(self, monkeypatch, tmp_path):
        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        monkeypatch.setattr(hidden, "save_file", full)
        store = HostStore(0)
        with pytest.raises(UserError, match=rf"do not fit into {tmp_path}.*raise backend"):
            store.put((0, 1), [torch.zeros(2, 3)])
        store.close()

    def test_what_a_killed_process_left_is_removed(self, monkeypatch, tmp_path):
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        ended = subprocess.Popen(["true"])
        ended.wait()
        for pid in (ended.pid, os.getpid()):
            (tmp_path / f"raysplit-hidden-{pid}-x").mkdir()
        store = HostStore(0)
        store.put((0, 1), [torch.ones(2, 3)])
        left = {folder.name for folder in tmp_path.iterdir()}
        assert f"raysplit-hidden-{ended.pid}-x" not in left
        assert f"raysplit-hidden-{os.getpid()}-x" in left
        (kept,) = store.get((0, 1))
        assert kept.sum() == 6
        store.close()
