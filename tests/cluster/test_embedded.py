"""A cluster of this machine: workers that come with the work, and some that play GPU."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tilemap.cluster import connect, make_flight, pins, route_of
from tilemap.cluster.census import Member, Route, take_census
from tilemap.cluster.flight import Flight, Task
from tilemap.cluster.table import parse_table


def test_workers_come_as_there_is_work() -> None:
    """From none to as many as may be, though no more is in flight than a window."""
    table = parse_table(
        {"adaptive": {"minimum": 0, "maximum": 2}, "memory_limit": "1GiB", "wait_s": 60}, Path("/")
    )

    def work(item: int) -> tuple[int, int]:
        time.sleep(0.3)
        return item, os.getpid()

    with connect(table.settings()) as client:
        flight: Flight[int] = make_flight(client, table.settings())
        assert flight.slots(False) == 0
        waiting = [Task(i, (work, i), f"grow-{i}") for i in range(40)]
        found = []
        while waiting or len(flight):
            while waiting and flight.room(False) > 0:
                flight.submit(waiting.pop())
            found += [landed.value for landed in flight.landed()]
        assert sorted(item for item, _ in found) == list(range(40))
        assert len({process for _, process in found}) == 2


def test_some_play_gpu() -> None:
    """To try the routing on a laptop; no worker gets a core for itself then."""
    table = parse_table({"workers": 1, "gpu_workers": 1, "memory_limit": "1GiB"}, Path("/"))
    assert not pins(table.settings())
    with connect(table.settings()) as client:
        assert set(take_census(client).values()) == {Member(2, 0, 2), Member(2, 2, 0)}
        assert route_of(client) == Route(gpu=True, tile=True)
