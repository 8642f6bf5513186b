"""Several Ray nodes: measuring and a sweep spread over them, and nodes that go and come."""

import shutil

import pytest

from tests import cluster_nodes, fault_driver
from tests.fault_driver import facts, measure, settings
from tests.test_sweep_resume import LONG, WIDE
from tuning.sweep.records import trial_folders

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.thorough]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    fault_driver.save_model(folder)
    return folder


def test_one_node_goes_and_another_comes_while_two_measure(model, tmp_path):
    folder = shutil.copytree(model, tmp_path / "model")
    ledger = tmp_path / "ledger.sqlite"
    cluster_nodes.run("exchange_a_node", folder, ledger)
    notes = {path.name.removeprefix("edge-"): path for path in folder.glob("edge-*")}
    node_of = {pid: path.read_text().split()[1] for pid, path in notes.items()}
    rows = measure(folder, ledger, settings(cluster_nodes.EXCHANGED))  # nothing is left to measure
    by_node = [node_of[row.worker.rpartition(":")[2]] for row in rows.values()]
    counts = {node: by_node.count(node) for node in set(by_node)}
    assert len(counts) == 3, counts  # the one that went, the one that stayed, the one that came
    unbroken = measure(model, tmp_path / "unbroken.sqlite", settings(cluster_nodes.EXCHANGED))
    assert facts(rows) == facts(unbroken)


def test_a_sweep_over_two_nodes_finishes_on_one(tmp_path):
    cluster_nodes.run("sweep", tmp_path)
    records = [folder.record() for folder in trial_folders(tmp_path)]
    assert [(r.status, r.progress.steps) for r in records] == [("finished", LONG.total_steps)] * 4
    assert len(WIDE.space["learning_rate"]) == 4
    starts = [path.read_text() for path in sorted(tmp_path.glob("trial-*"))]
    assert len(set(starts)) == 2
    assert len(starts) > 4  # what the lost node trained was started again
    assert all(len(record.progress.starts) <= 2 for record in records)
