"""The promises about faults, each with real processes: nothing is lost, doubled or made up."""

import contextlib
import dataclasses
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from raysplit.base.errors import UserError
from raysplit.base.files import sha256_of
from raysplit.link.state import LinkState
from raysplit.measure.config import BackendConfig
from raysplit.measure.ledger import Ledger
from raysplit.measure.service import MeasuringService, as_table
from raysplit.measure.setting import Setting
from raysplit.measure.table import Measurements
from tests import cluster_nodes, fault_driver
from tests.fault_driver import POISON_SEED, facts, measure, prepared, settings, when_rows

pytestmark = pytest.mark.slow

TWO_ACTORS = BackendConfig(kind="ray", edge_shards=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    fault_driver.save_model(folder)
    return folder


@pytest.fixture(scope="module")
def unbroken(folder, tmp_path_factory):
    """The rows of a run in which nothing happens."""
    return measure(folder, tmp_path_factory.mktemp("unbroken") / "ledger.sqlite", settings())


@pytest.fixture
def actors_noted(tmp_path, monkeypatch, ray_session):
    """Slow actors that write down where they are; the folder with their notes."""
    from raysplit.measure.on_ray import backend as cluster

    ue, edge = fault_driver.faulty_actors(tmp_path)
    monkeypatch.setattr(cluster, "UEActor", ue)
    monkeypatch.setattr(cluster, "EdgeActor", edge)
    return tmp_path


@pytest.mark.ray
def test_an_edge_actor_killed_in_the_clean_pass_and_one_in_the_middle_of_a_setting(
    folder, unbroken, actors_noted
):
    ledger, journal = actors_noted / "ledger.sqlite", actors_noted / "clean-blocks"
    killed = []

    def kill(pid):
        killed.append(pid)
        os.kill(pid, signal.SIGKILL)

    def kill_in_the_clean_pass():
        while not journal.exists() or not (lines := journal.read_text().splitlines()):
            time.sleep(0.02)
        kill(int(lines[0].split()[1]))

    watchers = [
        threading.Thread(target=kill_in_the_clean_pass, daemon=True),
        when_rows(ledger, 3, lambda workers: kill(int(workers[-1].rpartition(":")[2]))),
    ]
    watchers[0].start()
    rows = measure(folder, ledger, settings(), TWO_ACTORS)
    for watcher in watchers:
        watcher.join()
    assert facts(rows) == facts(unbroken)
    assert len(set(killed)) == 2
    # The clean pass repeats the block that was at work.
    starts = [line.split()[0] for line in journal.read_text().splitlines()]
    assert len(starts) == len(set(starts)) + 1
    # The setting at work is charged with an attempt, what waited behind it is not.
    assert sum(row.attempts - 1 for row in rows.values()) == 1


@pytest.mark.ray
def test_the_ue_actor_killed_while_it_prepares_and_when_all_its_work_is_done(
    folder, unbroken, actors_noted
):
    ledger = actors_noted / "ledger.sqlite"
    killed = []

    def kill_a_new_one():
        notes = {int(note.name.partition("-")[2]) for note in actors_noted.glob("ue-*")}
        for pid in notes.difference(killed):
            killed.append(pid)
            os.kill(pid, signal.SIGKILL)

    def kill_while_it_prepares():
        while not list(actors_noted.glob("ue-*")):
            time.sleep(0.02)
        time.sleep(0.1)
        kill_a_new_one()

    watchers = [
        threading.Thread(target=kill_while_it_prepares, daemon=True),
        when_rows(ledger, 3, lambda _workers: kill_a_new_one()),
    ]
    watchers[0].start()
    rows = measure(folder, ledger, settings(), BackendConfig(edge_shards=1))
    for watcher in watchers:
        watcher.join()
    assert facts(rows) == facts(unbroken)
    assert len(killed) == 2
    assert len(list(actors_noted.glob("ue-*"))) == 3  # it came back in other processes
    assert all(row.attempts == 1 for row in rows.values())  # what it had made is made anew


@pytest.mark.ray
def test_a_poisoned_setting_is_quarantined_and_everything_else_measured(
    folder, unbroken, actors_noted
):
    ledger = actors_noted / "ledger.sqlite"
    poison = Setting(2, LinkState(noise_std=0.7), POISON_SEED)
    wanted = [*settings()[:4], poison, *settings()[4:]]
    rows = measure(folder, ledger, wanted, BackendConfig(edge_shards=1, attempts=2))
    bad = rows.pop(poison)
    assert (bad.status, bad.attempts, bad.log_ppl) == ("quarantined", 2, None)
    assert "Actor" in bad.reason
    assert facts(rows) == facts(unbroken)


def _driver(folder, ledger):
    command = [sys.executable, "-W", "ignore", "-m", "tests.fault_driver"]
    return subprocess.Popen(
        [*command, str(folder), str(ledger)],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@pytest.mark.ray
@pytest.mark.slow
def test_a_killed_driver_takes_its_actors_along_and_loses_nothing(folder, unbroken, tmp_path):
    ledger = tmp_path / "ledger.sqlite"
    model = shutil.copytree(folder, tmp_path / "model")
    driver = _driver(model, ledger)
    when_rows(ledger, 3, lambda _workers: driver.kill()).join(120)
    assert driver.wait(timeout=10) == -signal.SIGKILL
    held = fault_driver.rows_in(ledger)
    assert 3 <= len(held) < len(unbroken)
    actors = [Path("/proc", note.name.partition("-")[2]) for note in model.glob("edge-*")]
    assert len(actors) == 2
    deadline = time.monotonic() + 60
    while any(actor.exists() for actor in actors):
        assert time.monotonic() < deadline, "actors outlive their driver"
        time.sleep(0.1)
    rows = measure(model, ledger, settings())
    assert facts(rows) == facts(unbroken)
    assert [row.worker for row in rows.values()].count("") == len(unbroken) - len(held)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.thorough
def test_a_node_removed_with_a_spare_one(folder, unbroken, tmp_path):
    ledger = tmp_path / "ledger.sqlite"
    model = shutil.copytree(folder, tmp_path / "model")
    cluster_nodes.run("lose_the_only_node", model, ledger)
    rows = measure(model, ledger, settings())  # all is there: nothing is measured
    assert facts(rows) == facts(unbroken)
    assert len({row.worker for row in rows.values()}) == 2
    assert all(row.attempts == 1 for row in rows.values())  # what died with the node is not charged


@pytest.mark.parametrize(
    "lives", [3, pytest.param(20, marks=[pytest.mark.slow, pytest.mark.thorough], id="20 points")]
)
def test_the_driver_killed_at_random_points(folder, tmp_path, lives):
    count = 15 * lives
    ledger, journal = tmp_path / "ledger.sqlite", tmp_path / "journal"
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tests.fault_driver"])
    rng, kept, kills = random.Random(lives), 0, 0
    while kills < lives:
        driver = processes.Process(
            target=fault_driver.drive_slowly, args=(folder, ledger, journal, count)
        )
        driver.start()
        driver.join(rng.uniform(0.0, 1.5))
        assert driver.exitcode in (None, 0)
        if driver.exitcode == 0:
            break
        driver.kill()
        driver.join()
        kills += 1
        held = len(fault_driver.rows_in(ledger))
        assert held >= kept
        kept = held
    last = processes.Process(
        target=fault_driver.drive_slowly, args=(folder, ledger, journal, count)
    )
    last.start()
    last.join()
    assert last.exitcode == 0
    starts = Counter(journal.read_text().split())
    assert len(starts) == count
    assert sum(starts.values()) <= count + kills  # in one process one setting is in flight
    unbroken = measure(folder, tmp_path / "unbroken.sqlite", settings(count))
    assert facts(measure(folder, ledger, settings(count))) == facts(unbroken)


def test_a_kill_in_the_clean_pass_repeats_one_block(folder, unbroken, tmp_path):
    ledger, journal = tmp_path / "ledger.sqlite", tmp_path / "journal"
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tests.fault_driver"])
    blocks = len(prepared(folder)[0].corpus.blocks)
    for held in (1, 3):
        driver = processes.Process(
            target=fault_driver.drive_clean_pass_slowly, args=(folder, ledger, journal)
        )
        driver.start()
        while len(fault_driver.clean_blocks_in(ledger)) < held:
            assert driver.is_alive()
            time.sleep(0.01)
        driver.kill()
        driver.join()
    kept = fault_driver.clean_blocks_in(ledger)
    assert len(kept) < blocks
    begun = journal.read_text().split()
    assert all(begun.count(str(block)) == 1 for block in kept[:-1])
    last = processes.Process(
        target=fault_driver.drive_clean_pass_slowly, args=(folder, ledger, journal)
    )
    last.start()
    last.join()
    assert last.exitcode == 0
    starts = Counter(journal.read_text().split())
    assert len(starts) == blocks
    assert sum(starts.values()) <= blocks + 2
    assert fault_driver.clean_blocks_in(ledger) == []  # they made way for the whole
    assert facts(measure(folder, ledger, settings())) == facts(unbroken)


@contextlib.contextmanager
def small_disk(path, size):
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a small tmpfs could not be mounted: {done.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_a_full_disk_is_named_and_after_space_is_freed_it_goes_on(folder, tmp_path):
    wanted = settings(60)
    expected = measure(folder, tmp_path / "unbroken.sqlite", wanted)
    with small_disk(tmp_path / "disk", "1m") as disk:
        ledger = disk / "ledger.sqlite"
        measure(folder, ledger, wanted[:2])
        filler = disk / "filler"
        filler.write_bytes(bytes(shutil.disk_usage(disk).free - 96 * 1024))
        with pytest.raises(UserError, match=f"no space left for {ledger}"):
            measure(folder, ledger, wanted)
        held = fault_driver.rows_in(ledger)
        assert 2 <= len(held) < len(wanted)
        filler.unlink()
        rows = measure(folder, ledger, wanted)
        assert facts(rows) == facts(expected)
        kept = [row for row in rows.values() if row.finished][: len(held)]
        assert all(row.status == "done" for row in kept)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_a_table_that_does_not_fit_leaves_the_old_one(unbroken, tmp_path):
    table = as_table(unbroken, ("noise_std",), 1.0)
    many = table.select(np.arange(40_000) % len(table))
    with small_disk(tmp_path / "disk", "128k") as disk:
        path = disk / "table.parquet"
        table.to_parquet(path)
        before = path.read_bytes()
        many = dataclasses.replace(many, log_ppl_N=np.random.default_rng(0).random(40_000))
        with pytest.raises(UserError, match=f"^no space left for {path}: free some and start"):
            many.to_parquet(path)
        assert path.read_bytes() == before
        assert [file.name for file in disk.iterdir()] == [path.name]  # the part is gone, too
        table.to_parquet(path)


def _with_a_changed_weight(folder, target, layer, value):
    shutil.copytree(folder, target)
    tensors = load_file(folder / "model.safetensors")
    tensors[f"model.layers.{layer}.mlp.down_proj.weight"][0, 0] = value
    save_file(tensors, target / "model.safetensors", {"format": "pt"})
    return target


@pytest.mark.parametrize("layer", [1, 4])
def test_nan_in_one_suffix_layer_gives_no_number(folder, tmp_path, layer):
    broken = _with_a_changed_weight(folder, tmp_path / "broken", layer, float("nan"))
    ledger = tmp_path / "ledger.sqlite"
    with pytest.raises(UserError, match="NaN NLL without any link effect"):
        measure(broken, ledger, settings())
    assert fault_driver.rows_in(ledger) == []


def test_noise_that_overflows_makes_an_invalid_row_and_leaves_the_others(
    folder, unbroken, tmp_path
):
    deadly = Setting(2, LinkState(noise_std=3e38))
    ledger = tmp_path / "ledger.sqlite"
    rows = measure(folder, ledger, [*settings(), deadly])
    assert measure(folder, ledger, [deadly]) == {deadly: rows[deadly]}
    bad = rows.pop(deadly)
    assert (bad.status, bad.log_ppl, bad.stderr) == ("invalid", None, None)
    assert "NLL under the link in" in bad.reason
    assert facts(rows) == facts(unbroken)
    assert len(as_table({**rows, deadly: bad}, ("noise_std",), 1.0)) == len(rows)


def test_a_changed_weight_is_another_model(folder, tmp_path):
    changed = _with_a_changed_weight(folder, tmp_path / "changed", 2, 0.125)
    keys = [sha256_of(prepared(where)[1]) for where in (folder, changed)]
    assert keys[0] != keys[1]


@pytest.mark.parametrize(
    "kind",
    ["inprocess", pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.thorough])],
)
def test_weights_that_change_before_they_are_loaded_are_noticed(folder, tmp_path, kind, request):
    """Between the hash in the protocol card and an actor's load, as by a download that goes on."""
    if kind == "ray":
        request.getfixturevalue("ray_session")
    model = shutil.copytree(folder, tmp_path / "model")
    job, card = prepared(model)
    changed = _with_a_changed_weight(folder, tmp_path / "changed", 3, 0.125)
    shutil.copy(changed / "model.safetensors", model / "model.safetensors")
    ledger, backend = tmp_path / "ledger.sqlite", BackendConfig(kind=kind, edge_shards=1)
    with Ledger(ledger) as opened, MeasuringService(job, card, opened, backend) as service:
        tensor = r"tensor 'model\.layers\.3\.mlp\.down_proj\.weight' is not the one"
        with pytest.raises(UserError, match=rf"model\.safetensors: {tensor}"):
            service.measure(settings())
    assert fault_driver.rows_in(ledger) == []


@pytest.mark.parametrize("seed", range(4))
def test_truncated_files_are_detected(folder, unbroken, tmp_path, seed):
    rng = random.Random(seed)

    def cut(path):
        content = path.read_bytes()
        path.write_bytes(content[: rng.randrange(1, len(content))])

    model = shutil.copytree(folder, tmp_path / "model")
    cut(model / "model.safetensors")
    with pytest.raises(UserError, match=r"model\.safetensors: damaged or truncated"):
        prepared(model)
    table = tmp_path / "table.parquet"
    as_table(unbroken, ("noise_std",), 1.0).to_parquet(table)
    cut(table)
    with pytest.raises(UserError, match=r"table\.parquet: cannot be read"):
        Measurements.from_parquet(table)
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        ledger.add_card("card", {})
        ledger.add("card", unbroken.values())
    cut(path)
    with pytest.raises(UserError, match=r"ledger\.sqlite is damaged"):
        Ledger(path)
