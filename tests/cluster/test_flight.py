"""Two windows, workers that come and go, and nobody left."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from distributed import Client, LocalCluster, Worker, get_worker
from hypothesis import given
from hypothesis import strategies as st

from tilemap.cluster.census import GPU, TILE, Member, Route, route_of, take_census, tell_roles
from tilemap.cluster.embedded import add_workers
from tilemap.cluster.flight import IN_FLIGHT_PER_SLOT, Flight, Task
from tilemap.errors import UnavailableError

members = st.builds(Member, st.integers(1, 4), st.integers(0, 2), st.integers(0, 3))


@given(st.dictionaries(st.text(min_size=1, max_size=3), members, max_size=6))
def test_where_tasks_go(census: dict[str, Member]) -> None:
    """Somebody can do every task, if there is anybody; a GPU worker is spared if others are."""
    route = Route.among(census)
    for segments in (True, False):
        lane = route.lane(segments)
        slots = route.slots(lane, census)
        assert bool(slots) == bool(census)
        for address, count in slots.items():
            has = {GPU: census[address].gpu, TILE: census[address].tile}
            assert count > 0
            assert all(has[name] >= needed for name, needed in route.resources(lane).items())
    if any(m.gpu for m in census.values()) and any(m.tile for m in census.values()):
        assert route == Route(gpu=True, tile=True)


def _where(item: int) -> tuple[int, str]:
    time.sleep(0.01)
    return item, str(get_worker().name)


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    """One worker without a GPU, threads of this process."""
    with LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0"
    ) as cluster:
        yield cluster


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[Client]:
    """Of the cluster; who has no GPU is told what it is for."""
    with Client(cluster) as client:
        tell_roles(client)
        yield client


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _tasks(count: int, segments: bool, name: str) -> list[Task[int]]:
    return [Task(i, (_where, i), f"{name}-{i}", segments) for i in range(count)]


def test_every_kind_goes_to_those_that_are_for_it(cluster: LocalCluster, client: Client) -> None:
    """A worker that joins without a word is for all but segmenting; one with a GPU for that."""
    assert route_of(client) == Route()
    add_workers(cluster, "gpu", 1, {"resources": {GPU: 2}})
    _until(lambda: len(take_census(client)) == 2)
    route = route_of(client)
    assert route == Route(gpu=True, tile=True)
    flight: Flight[int] = Flight(client, route, 20)
    assert flight.room(True) == flight.room(False) == 2 * IN_FLIGHT_PER_SLOT
    for segments, expected in ((True, {"gpu-0"}), (False, {"0"})):
        found = flight.all_of(_tasks(12, segments, f"kind-{segments}"), 0)
        assert {who for _, who in found.values()} == expected
        assert sorted(item for item, _ in found.values()) == list(range(12))


def test_a_worker_may_be_for_both(client: Client) -> None:
    """If it says so itself."""
    census = {"a": Member(2, 0, 2), "b": Member(2, gpu=1, tile=1)}
    route = Route.among(census)
    assert route.slots("gpu", census) == {"b": 1}
    assert route.slots("cpu", census) == {"a": 2, "b": 1}


def test_gpus_alone_do_everything() -> None:
    """One machine with GPUs is a cluster too."""
    census = {"a": Member(2, gpu=2), "b": Member(1, gpu=1)}
    route = Route.among(census)
    assert route == Route(gpu=True, tile=False)
    assert route.slots("cpu", census) == {"a": 2, "b": 1}
    assert route.resources("cpu") == {}


def test_a_full_window_leaves_room_in_the_other(cluster: LocalCluster, client: Client) -> None:
    """GPUs do not wait while the others have all they can take."""
    add_workers(cluster, "gpu", 1, {"resources": {GPU: 1}})
    _until(lambda: len(take_census(client)) == 2)
    flight: Flight[int] = Flight(client, route_of(client), 20)
    for task in _tasks(2 * IN_FLIGHT_PER_SLOT, False, "full"):
        flight.submit(task)
    assert flight.room(False) == 0
    assert flight.room(True) == IN_FLIGHT_PER_SLOT
    while len(flight):
        flight.landed()
    assert flight.room(False) == 2 * IN_FLIGHT_PER_SLOT


def test_nobody_is_left(cluster: LocalCluster, client: Client) -> None:
    """The only GPU worker goes away in the middle: said so after the time that was stated."""
    add_workers(cluster, "gpu", 1, {"resources": {GPU: 1}})
    _until(lambda: len(take_census(client)) == 2)
    flight: Flight[int] = Flight(client, route_of(client), wait_s=0.5)
    for task in _tasks(4, True, "lost"):
        flight.submit(task)
    client.retire_workers(names=["gpu-0"])
    done: list[int] = []

    def wait() -> None:
        while len(flight):
            done.extend(landed.item for landed in flight.landed())

    says = r"declares a GPU must be there.* for 0\.5 s"
    with pytest.raises(UnavailableError, match=says) as why:
        wait()
    assert why.value.exit_code == 69
    assert len(done) < 4
    flight.cancel()
    assert flight.all_of(_tasks(3, False, "others"), 0).keys() == {0, 1, 2}


def test_all_are_replaced_by_others(cluster: LocalCluster, client: Client) -> None:
    """The last worker of a kind goes and another comes: tasks that wait are done by that one."""
    add_workers(cluster, "gpu", 1, {"resources": {GPU: 1}})
    _until(lambda: len(take_census(client)) == 2)
    flight: Flight[int] = Flight(client, route_of(client), wait_s=20)
    client.retire_workers(names=[0])
    _until(lambda: len(take_census(client)) == 1)
    for task in _tasks(3, False, "moved"):
        flight.submit(task)
    flight._depart()
    time.sleep(0.2)
    cluster.scale(3)
    found: list[int] = []
    while len(flight):
        for landed in flight.landed():
            found.append(landed.item)
            assert landed.value[1] not in ("0", "gpu-0")
    assert sorted(found) == [0, 1, 2]


def test_a_few_tasks_that_fail_are_tried_again(client: Client) -> None:
    """As often as is said; then the error of the task itself."""
    failed = threading.Lock(), Counter[int]()
    _played.append(failed)
    flight: Flight[int] = Flight(client, Route(), 20)
    tasks = [Task(i, (_flaky, i), f"flaky-{i}") for i in range(3)]
    assert flight.all_of(tasks, retries=2) == {0: 0, 1: 1, 2: 2}
    with pytest.raises(ValueError, match="2 is not ready"):
        flight.all_of([Task(2, (_flaky, 2), "flaky-more")], retries=0)
    assert len(flight) == 0


_played: list[tuple[Any, Counter[int]]] = []


def _flaky(item: int) -> int:
    lock, count = _played[-1]
    with lock:
        count[item] += 1
        if count[item] % (item + 1):
            raise ValueError(f"{item} is not ready")
    return item


def test_a_lost_connection_is_said_so(client: Client) -> None:
    """Asking who is there tells it as well."""

    def gone(_: Client) -> dict[str, Member]:
        raise OSError("closed")

    with pytest.raises(UnavailableError, match="the connection to it was lost"):
        Flight(client, Route(), 20, census=gone)


def test_a_cluster_that_grows_sees_work_for_all(client: Client) -> None:
    """The window is that of the workers that may come, or none would."""
    flight: Flight[int] = Flight(client, Route(), 20, at_least=12)
    assert flight.room(False) == 12 * IN_FLIGHT_PER_SLOT
    assert flight.slots(False) == 2


def test_roles_are_told_once(cluster: LocalCluster, client: Client) -> None:
    """A worker that says what it is for is left alone."""
    add_workers(cluster, "both", 1, {"resources": {GPU: 1, TILE: 1}})
    _until(lambda: len(take_census(client)) == 2)
    told = set(take_census(client).values())
    assert told == {Member(2, 0, 2), Member(2, 1, 1)}
    assert all(isinstance(worker, Worker) for worker in cluster.workers.values())
