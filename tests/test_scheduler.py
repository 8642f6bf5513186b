"""The scheduler: every unit is answered once, whatever dies."""

import os
import time
from collections import Counter

import pytest
import ray
from ray.exceptions import ActorDiedError

from raysplit.measure.on_ray import scheduler as room
from raysplit.measure.on_ray import waiting
from raysplit.measure.on_ray.scheduler import NoWorkersLeftError, Scheduler
from raysplit.measure.on_ray.waiting import Kind, Waiting, has_room

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]


@ray.remote(num_cpus=0)
class Worker:
    def ready(self):
        return os.getpid()

    def double(self, unit):
        if unit == "poison":
            os._exit(1)
        if unit == "wrong":
            raise RuntimeError("cannot be done\nand a second line")
        if unit == "hearsay":
            raise ActorDiedError  # as when it asks for what a dead actor owned
        time.sleep(0.02)
        return 2 * unit

    def pid(self):
        return os.getpid()


def make(count, restarts=-1, attempts=3):
    workers = [Worker.options(max_restarts=restarts).remote() for _ in range(count)]
    return workers, Scheduler(workers, lambda actor, unit: actor.double.remote(unit), attempts)


def test_every_unit_is_answered_once():
    _, scheduler = make(3)
    outcomes = list(scheduler.run(range(50)))
    assert Counter(o.unit for o in outcomes) == Counter(range(50))
    assert all(o.result == 2 * o.unit and o.attempts == 1 for o in outcomes)


def test_units_survive_killed_workers():
    workers, scheduler = make(2)
    pids = ray.get([w.pid.remote() for w in workers])
    answered = Counter()
    for i, outcome in enumerate(scheduler.run(range(60))):
        assert outcome.result == 2 * outcome.unit
        answered[outcome.unit] += 1
        if i in (5, 25):
            os.kill(pids.pop(), 9)
    assert answered == Counter(range(60))


def test_a_unit_that_kills_its_worker_is_given_up_and_the_others_are_not_charged():
    _, scheduler = make(2)
    outcomes = {o.unit: o for o in scheduler.run([1, 2, "poison", 3, 4, 5, 6])}
    assert len(outcomes) == 7
    assert outcomes["poison"].result is None
    assert outcomes["poison"].attempts == 3
    assert "Actor" in outcomes["poison"].reason
    assert all(o.reason is None for unit, o in outcomes.items() if unit != "poison")


def test_a_unit_that_was_charged_runs_alone():
    """Else its answer may be lost, and itself charged, where the next one kills the actor."""
    given = []

    def submit(actor, unit):
        given.append([*(task.unit for _, task in scheduler._workers[0].queue), unit])
        return actor.double.remote(unit)

    scheduler = Scheduler([Worker.remote()], submit, attempts=3)
    assert len(list(scheduler.run(["wrong", 1, 2, 3]))) == 4
    assert given == [["wrong"], ["wrong", 1], [1, 2], [2, 3], ["wrong"], ["wrong"]]


def test_an_exception_is_retried_then_given_up_with_its_first_line():
    _, scheduler = make(1, attempts=2)
    (outcome,) = scheduler.run(["wrong"])
    assert outcome.attempts == 2
    assert outcome.reason == "RuntimeError: cannot be done"


def test_a_worker_that_tells_of_another_ones_death_goes_on():
    workers, scheduler = make(1, attempts=2)
    (pid,) = ray.get([worker.pid.remote() for worker in workers])
    outcomes = {o.unit: o for o in scheduler.run([1, "hearsay", 2, 3])}
    assert outcomes["hearsay"].attempts == 2
    assert outcomes["hearsay"].reason.startswith("ActorDiedError")
    assert [outcomes[unit].result for unit in (1, 2, 3)] == [2, 4, 6]
    assert all(outcomes[unit].attempts == 1 for unit in (1, 2, 3))
    assert scheduler.alive == 1
    assert ray.get(workers[0].pid.remote()) == pid


def test_an_abandoned_run_leaves_nothing_to_the_next():
    _, scheduler = make(2)
    begun = scheduler.run(range(100, 140))
    assert next(begun).unit >= 100
    begun.close()  # as Ctrl-C in a notebook does
    assert sorted(o.unit for o in scheduler.run([1, 2, 3])) == [1, 2, 3]


def test_workers_that_die_for_good_end_the_run_with_the_reason():
    workers, scheduler = make(1, restarts=0)
    outcomes = scheduler.run(range(100))
    for _ in range(3):
        next(outcomes)
    ray.kill(workers[0])
    with pytest.raises(NoWorkersLeftError, match="Actor"):
        list(outcomes)


def test_a_worker_without_resources_never_holds_work():
    working = Worker.remote()
    waiting = Worker.options(num_cpus=1000).remote()
    scheduler = Scheduler([waiting, working], lambda actor, unit: actor.double.remote(unit))
    assert len(list(scheduler.run(range(20)))) == 20
    assert scheduler.alive == 1
    ray.kill(waiting)


def test_a_second_run_uses_the_same_workers():
    _, scheduler = make(2)
    assert len(list(scheduler.run(range(5)))) == 5
    assert sorted(o.result for o in scheduler.run(range(4))) == [0, 2, 4, 6]


@ray.remote(num_cpus=0, max_restarts=-1)
class Returning:
    """Dies at its first unit, and takes its time to come back."""

    def __init__(self, note, seconds):
        if note.exists():
            time.sleep(seconds)
        self.note = note

    def ready(self):
        pass

    def double(self, unit):
        if not self.note.exists():
            self.note.touch()
            os._exit(1)
        return 2 * unit


def test_a_worker_that_is_long_in_coming_back_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "_MOST_DEATHS", 2)
    worker = Returning.remote(tmp_path / "note", 7)  # Ray reports it missing every two seconds
    scheduler = Scheduler([worker], lambda actor, unit: actor.double.remote(unit))
    assert sorted(o.result for o in scheduler.run(range(4))) == [0, 2, 4, 6]


@ray.remote(num_cpus=0, max_restarts=-1)
class Dying:
    """Dies so often at its unit, and notes each start of it."""

    def __init__(self, journal, deaths):
        self.journal = journal
        self.deaths = deaths

    def ready(self):
        return "a node"

    def double(self, unit):
        with self.journal.open("a") as file:
            file.write("started\n")
        if len(self.journal.read_text().splitlines()) <= self.deaths:
            os._exit(1)
        return 2 * unit


def starts_until_the_end(tmp_path, deaths):
    """The outcome of one unit, and how often it was started."""
    journal = tmp_path / "journal"
    worker = Dying.remote(journal, deaths)
    scheduler = Scheduler([worker], lambda actor, unit: actor.double.remote(unit), attempts=2)
    (outcome,) = scheduler.run([21])
    ray.kill(worker)
    return outcome, len(journal.read_text().splitlines())


def test_a_unit_whose_nodes_die_is_not_charged(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "node_is_dead", lambda node: node == "a node")
    outcome, starts = starts_until_the_end(tmp_path, deaths=3)
    assert (outcome.result, outcome.attempts, starts) == (42, 1, 4)


def test_a_unit_that_dies_on_living_nodes_is_charged(tmp_path):
    outcome, starts = starts_until_the_end(tmp_path, deaths=3)
    assert (outcome.result, outcome.attempts, starts) == (None, 2, 2)


def test_a_unit_that_outlives_no_node_is_given_up_in_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "node_is_dead", lambda _: True)
    monkeypatch.setattr(room, "_MOST_NODES_LOST", 1)
    outcome, starts = starts_until_the_end(tmp_path, deaths=99)
    assert (outcome.result, outcome.attempts, starts) == (None, 2, 3)


def test_living_nodes_are_not_dead():
    (node,) = ray.nodes()
    assert not room.node_is_dead(node["NodeID"])
    assert not room.node_is_dead("unheard of")


@ray.remote
class Slow:
    """Takes its time to start."""

    def __init__(self, seconds):
        time.sleep(seconds)

    def ready(self):
        return "a node"

    def double(self, unit):
        return 2 * unit


def until(condition):
    while not condition():
        time.sleep(0.05)


def test_waiting_for_resources_is_said_once_and_starting_is_not(monkeypatch, capsys):
    monkeypatch.setattr(waiting, "PATIENCE_S", 0.0)
    monkeypatch.setattr(waiting, "_LOOK_EVERY_S", 0.0)
    options = {"num_cpus": 2, "num_gpus": 0}
    first = Slow.options(**options).remote(1e9)  # takes both cores, and never ends to start
    until(lambda: has_room(first))
    Waiting([Kind("edge actor", [first], options)]).look()
    assert capsys.readouterr().err == ""
    second = Slow.options(**options).remote(0)
    both = Waiting([Kind("edge actor", [first, second], options), Kind("UE actor", [], options)])
    for _ in range(3):
        both.look()
    said = capsys.readouterr().err
    assert said == (
        "waiting for resources: no room for 1 of 2 edge actors (2 cores each); the cluster has "
        "2 cores and 2 GPUs, free are 0 cores and 2 GPUs\n"
    )
    ray.kill(first)
    until(lambda: has_room(second))
    both.look()
    assert capsys.readouterr().err == ""
    ray.kill(second)


def test_the_scheduler_has_somebody_look_while_nothing_is_ready():
    options = {"num_cpus": 2}
    hog = Slow.options(**options).remote(1e9)
    until(lambda: has_room(hog))
    worker = Slow.options(**options).remote(0)
    looks = []

    def look():
        looks.append(has_room(worker))
        if len(looks) == 2:
            ray.kill(hog)

    submit = lambda actor, unit: actor.double.remote(unit)  # noqa: E731
    scheduler = Scheduler([worker], submit, watch=look)
    assert sorted(outcome.result for outcome in scheduler.run(range(3))) == [0, 2, 4]
    assert looks[:2] == [False, False]
    ray.kill(worker)


@ray.remote(num_cpus=0, max_restarts=-1)
class Hopeless:
    def ready(self):
        os._exit(1)


def test_a_worker_that_loading_kills_every_time_is_given_up(monkeypatch):
    monkeypatch.setattr(room, "_MOST_DEATHS", 2)
    scheduler = Scheduler([Hopeless.remote()], lambda actor, unit: actor.double.remote(unit))
    with pytest.raises(NoWorkersLeftError, match="Actor"):
        list(scheduler.run(range(4)))
