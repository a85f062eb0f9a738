"""How cores and GPUs are divided among trials, on pretended machines, and a Ray that does not start."""

from __future__ import annotations

import pytest

from autotl import clock
from autotl.errors import SearchError
from autotl.settings import Resources
from autotl.tune.session import (
    MAX_SLOTS,
    Node,
    RaySession,
    Slots,
    plan_slots,
    slot_choices,
    slots_in_memory,
    worker_bytes,
)


@pytest.mark.parametrize(
    ("cpus", "gpus", "asked", "expected"),
    [
        # Nothing asked: a slot a core, or a slot a GPU.
        (1, 0, Resources(), Slots(1, 1, 0.0)),
        (2, 0, Resources(), Slots(2, 1, 0.0)),
        (64, 0, Resources(), Slots(MAX_SLOTS, 8, 0.0)),
        (11, 0, Resources(), Slots(MAX_SLOTS, 1, 0.0)),
        (16, 1, Resources(), Slots(1, 16, 1.0)),
        (48, 8, Resources(), Slots(8, 6, 1.0)),
        (96, 16, Resources(), Slots(16, 6, 1.0)),
        (2, 4, Resources(), Slots(4, 1, 1.0)),
        # Slots asked.
        (8, 0, Resources(slots=2), Slots(2, 4, 0.0)),
        (2, 0, Resources(slots=5), Slots(5, 1, 0.0)),
        (64, 0, Resources(slots=16), Slots(16, 4, 0.0)),
        (32, 4, Resources(slots=2), Slots(2, 16, 1.0)),
        # Cores a trial asked.
        (8, 0, Resources(cpus_per_trial=3), Slots(2, 3, 0.0)),
        (4, 0, Resources(cpus_per_trial=8), Slots(1, 8, 0.0)),
        (32, 4, Resources(cpus_per_trial=2), Slots(4, 2, 1.0)),
        (8, 0, Resources(slots=3, cpus_per_trial=2), Slots(3, 2, 0.0)),
        # GPUs a trial asked.
        (32, 4, Resources(gpus_per_trial=0.5), Slots(8, 4, 0.5)),
        (32, 2, Resources(gpus_per_trial=0.4), Slots(4, 8, 0.4)),
        (32, 4, Resources(gpus_per_trial=2), Slots(2, 16, 2)),
        (6, 3, Resources(gpus_per_trial=2), Slots(1, 6, 2)),
        (8, 4, Resources(gpus_per_trial=0), Slots(8, 1, 0.0)),
        (32, 4, Resources(slots=3, gpus_per_trial=0.25), Slots(3, 10, 0.25)),
    ],
)
def test_slots_follow_the_machine_and_what_was_asked(cpus: int, gpus: int, asked: Resources, expected: Slots) -> None:
    assert plan_slots([Node(cpus, gpus)], asked) == expected


@pytest.mark.parametrize("gpus", [1, 2, 3, 7])
@pytest.mark.parametrize("parts", [*range(1, 11), 49])
def test_a_whole_number_of_trials_fills_a_gpu(gpus: int, parts: int) -> None:
    assert plan_slots([Node(64, gpus)], Resources(gpus_per_trial=1 / parts)).count == gpus * parts


@pytest.mark.parametrize("cpus", range(1, 70))
def test_slots_never_need_more_cores_than_there_are(cpus: int) -> None:
    slots = plan_slots([Node(cpus, 0)], Resources())
    assert 1 <= slots.count * slots.cpus <= cpus


@pytest.mark.parametrize(
    ("nodes", "asked", "expected"),
    [
        ([Node(32, 0)] * 10, Resources(), Slots(MAX_SLOTS, 32, 0.0)),  # not 40 cores, which no node has
        ([Node(4, 0)] * 3, Resources(), Slots(MAX_SLOTS, 1, 0.0)),
        ([Node(16, 0), Node(4, 0)], Resources(slots=3), Slots(3, 5, 0.0)),
        ([Node(4, 0)] * 2, Resources(cpus_per_trial=3), Slots(2, 3, 0.0)),
        ([Node(16, 2), Node(64, 0)], Resources(), Slots(2, 8, 1.0)),  # cores without a GPU beside them do not count
        ([Node(8, 1)] * 3, Resources(gpus_per_trial=0.5), Slots(6, 4, 0.5)),
        ([Node(8, 1)], Resources(slots=4), Slots(4, 2, 0.25)),  # they share it
        ([Node(8, 2)], Resources(slots=3), Slots(3, 2, 0.5)),
    ],
)
def test_slots_are_planned_by_node(nodes: list[Node], asked: Resources, expected: Slots) -> None:
    assert plan_slots(nodes, asked) == expected


@pytest.mark.parametrize(
    ("nodes", "asked", "message"),
    [
        ([Node(8, 1)], Resources(gpus_per_trial=2), "2 GPUs a trial cannot be placed: the nodes have 1 GPUs"),
        ([Node(8, 1)] * 2, Resources(gpus_per_trial=2), "2 GPUs a trial cannot be placed: the nodes have 1, 1 GPUs"),
        ([Node(8, 0)], Resources(gpus_per_trial=0.5), "0.5 GPUs a trial cannot be placed: the nodes have 0 GPUs"),
        ([Node(8, 1)], Resources(slots=4, gpus_per_trial=1), "4 slots of 1 GPUs each cannot be placed"),
    ],
)
def test_gpus_that_are_not_there_are_an_error(nodes: list[Node], asked: Resources, message: str) -> None:
    with pytest.raises(SearchError, match=message):
        plan_slots(nodes, asked)


def test_the_cores_of_one_machine_are_divided_in_several_ways() -> None:
    assert slot_choices(Slots(8, 2, 0.0), 16) == tuple(Slots(count, 16 // count, 0.0) for count in (1, 2, 4, 8))


def test_with_gpus_the_slots_stay() -> None:
    assert slot_choices(Slots(2, 4, 1.0), 8) == (Slots(2, 4, 1.0),)


@pytest.mark.parametrize(
    ("resources", "owned", "several"),
    [
        (Resources(), True, True),
        (Resources(), False, False),  # joined: its cores are not those of this machine
        (Resources(gpus_per_trial=0.0), True, True),  # without GPUs, or with those there are left alone
        (Resources(gpus_per_trial=0.5), True, False),
        (Resources(slots=2), True, False),
        (Resources(address="ray://somewhere:10001"), True, False),
    ],
)
def test_there_is_a_choice_where_ray_is_ones_own_and_nothing_was_asked(
    monkeypatch: pytest.MonkeyPatch, resources: Resources, owned: bool, several: bool
) -> None:
    monkeypatch.setattr("autotl.tune.session.local_cpus", lambda: 6)
    monkeypatch.setattr(RaySession, "wait", lambda session: Slots(2, 3, 0.0))
    session = RaySession(resources)
    session._owned = owned
    assert (len(session.choices()) > 1) is several
    assert Slots(2, 3, 0.0) in session.choices()


def test_a_ray_that_does_not_come_up_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autotl.tune.session.START_SECONDS", 0.01)
    session = RaySession(Resources())  # never entered: nothing starts it
    with pytest.raises(SearchError, match="this machine: it has not come up"):
        session.wait()


def test_nothing_is_waited_for_after_the_deadline() -> None:
    session = RaySession(Resources(), deadline=clock.now() - 1)  # never entered: nothing starts it
    with pytest.raises(SearchError, match="it has not come up in 0 s more"):
        session.wait()


def test_an_import_in_advance_that_fails_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ImportError("no module named anything")

    monkeypatch.setattr("autotl.tune.session._import_trainable", fail)
    monkeypatch.setattr(RaySession, "_connect", lambda session: Slots(1, 1, 0.0))
    with RaySession(Resources()) as session:
        assert session.wait() == Slots(1, 1, 0.0)


def test_ways_with_more_trials_than_memory_are_left_out() -> None:
    choices = slot_choices(Slots(4, 1, 0.0), 4)
    assert slots_in_memory(choices, 2) == (Slots(1, 4, 0.0), Slots(2, 2, 0.0))
    assert slots_in_memory(choices, 4) == choices


def test_where_all_ways_have_more_the_first_has_fewer_trials() -> None:
    assert slots_in_memory([Slots(8, 2, 0.0)], 3) == (Slots(3, 2, 0.0),)


def test_a_large_backbone_takes_more_than_a_small_one() -> None:
    small, large = worker_bytes(13 * 2**20), worker_bytes(350 * 2**20)
    assert 2**30 < small < 1.5 * 2**30
    assert large - small > 4 * 337 * 2**20  # weights, gradients and two moments at least
