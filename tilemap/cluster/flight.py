"""Tasks in flight: how many more may go, which came back, and whether anybody can run the rest."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from distributed import Client, Future

from tilemap.cluster.census import Census, Lane, Route, take_census
from tilemap.cluster.driver import LOST
from tilemap.errors import DiskFullError, UnavailableError
from tilemap.files import system_error

IN_FLIGHT_PER_SLOT = 2
"""One that runs, and one that is with the worker already when it ends."""
LOOK_EVERY_S = 1.0
"""How often the driver asks who is there: the window follows workers that join and leave."""
SETTLE_S = 0.01
"""How long the driver lets tasks gather that end together: one message for all costs the scheduler
little more than one for one. Each worker has its next task by then."""

Item = TypeVar("Item", bound=Hashable)


@dataclass(frozen=True)
class Landed(Generic[Item]):
    """A task that is over.

    Args:
        item: what it was for.
        value: what it returned; None unless it ended well.
        error: what it raised.
        lost: its worker went away with what it returned; once more.
    """

    item: Item
    value: Any = None
    error: BaseException | None = None
    lost: bool = False


@dataclass(frozen=True)
class Task(Generic[Item]):
    """What is to be run.

    Args:
        item: what it is for; told again when it lands.
        call: function and arguments; small, for they travel.
        key: its name with Dask, never used before.
        segments: whether it runs the model.
    """

    item: Item
    call: tuple[Any, ...]
    key: str
    segments: bool = False


class Flight(Generic[Item]):
    """The driver's window of tasks with Dask; one for the GPUs, where there are some.

    Tasks that ask for resources are never held back by Dask's own queue, so that the window alone
    keeps the scheduler small. Two windows, so that GPUs never wait while the other's is full.

    Args:
        route: where tasks go.
        wait_s: how long a lane may be without any worker.
        census: asks who is there.
        at_least: slots a lane is counted for though fewer are there; a cluster that grows with
            its work must see that there is some.
    """

    def __init__(
        self,
        client: Client,
        route: Route,
        wait_s: float,
        census: Callable[[Client], Census] = take_census,
        at_least: int = 1,
    ) -> None:
        self.route = route
        self._client, self._wait_s, self._census = client, wait_s, census
        self._at_least = at_least
        self._flying: dict[Future[Any], tuple[Lane, Item]] = {}
        self._waiting: list[tuple[Lane, Task[Item]]] = []
        self._count: Counter[Lane] = Counter()
        self._over: SimpleQueue[Future[Any]] = SimpleQueue()
        self._slots: dict[Lane, dict[str, int]] = {"cpu": {}, "gpu": {}}
        self._seen: dict[Lane, float] = {}
        self._looked = 0.0
        self.look()

    def __len__(self) -> int:
        return len(self._flying) + len(self._waiting)

    def room(self, segments: bool) -> int:
        """How many more tasks of a kind may go."""
        lane = self.route.lane(segments)
        slots = max(self._at_least, sum(self._slots[lane].values()))
        return IN_FLIGHT_PER_SLOT * slots - self._count[lane]

    def slots(self, segments: bool) -> int:
        """Tasks of a kind that the workers run at a time."""
        return sum(self._slots[self.route.lane(segments)].values())

    def submit(self, task: Task[Item]) -> None:
        """Add one task; it goes to Dask with the others, when the driver waits."""
        lane = self.route.lane(task.segments)
        self._waiting.append((lane, task))
        self._count[lane] += 1

    def _depart(self) -> None:
        """Give the tasks that were added to Dask, all of a kind in one message."""
        kinds: dict[tuple[Any, ...], list[Task[Item]]] = {}
        for lane, task in self._waiting:
            kind = (lane, task.call[0], len(task.call))
            kinds.setdefault(kind, []).append(task)
        self._waiting = []
        for (lane, function, _), tasks in kinds.items():
            futures = self._client.map(
                function,
                *map(list, zip(*(task.call[1:] for task in tasks), strict=True)),
                key=[task.key for task in tasks],
                resources=self.route.resources(lane) or None,
                pure=False,
            )
            for future, task in zip(futures, tasks, strict=True):
                self._flying[future] = (lane, task.item)
                future.add_done_callback(self._over.put)

    def landed(self) -> list[Landed[Item]]:
        """Wait until tasks are over, and take them.

        Raises:
            UnavailableError: if the connection to the scheduler is lost, or there is nobody any
                more who can do what is left.
        """
        self._depart()
        found: list[Landed[Item]] = []
        while not found and self._flying:
            futures = self._next()
            values = self._gather([f for f in futures if f.status == "finished"])
            found += [self._land(f, values.get(f)) for f in futures if f in self._flying]
            if time.monotonic() - self._looked > LOOK_EVERY_S:
                self.look()
        return found

    def _next(self) -> list[Future[Any]]:
        """What is over by now; waits a little for the first, and for what comes with it."""
        futures: list[Future[Any]] = []
        try:
            futures.append(self._over.get(timeout=LOOK_EVERY_S))
            time.sleep(SETTLE_S)
            while True:
                futures.append(self._over.get_nowait())
        except Empty:
            return [future for future in futures if future in self._flying]

    def _gather(self, done: list[Future[Any]]) -> dict[Future[Any], Any]:
        """What they returned, all in one message; without those that are not there any more.

        A worker may die with it: then Dask does the task again, if there is a worker to do it.
        """
        if not done:
            return {}
        assert self._client.loop is not None
        loop = self._client.loop.asyncio_loop  # type: ignore[attr-defined]
        asked = asyncio.run_coroutine_threadsafe(self._asked(done), loop)
        while True:
            try:
                values = asked.result(timeout=LOOK_EVERY_S)
            except TimeoutError:
                self.look()
                continue
            except OSError as error:
                raise UnavailableError(LOST) from error
            return {future: values[future.key] for future in done if future.key in values}

    async def _asked(self, done: list[Future[Any]]) -> dict[str, Any]:
        values: dict[str, Any] = await self._client.gather(
            {future.key: future for future in done}, errors="skip", asynchronous=True
        )
        return {key: value for key, value in values.items() if value is not None}

    def _land(self, future: Future[Any], value: Any) -> Landed[Item]:
        lane, item = self._flying.pop(future)
        self._count[lane] -= 1
        if value is not None:
            return Landed(item, value)
        if future.status == "error":
            error = future.exception()
            if isinstance(error, OSError) and error.errno is not None:  # else of Dask's connections
                error = system_error("a worker cannot go on", error)
            return Landed(item, error=error)
        if future.status in ("finished", "lost", "pending"):
            return Landed(item, lost=True)
        raise UnavailableError(LOST)

    def look(self) -> None:
        """Ask who is there.

        Raises:
            UnavailableError: if a lane with work has had no worker for too long.
        """
        try:
            census = self._census(self._client)
        except OSError as error:
            raise UnavailableError(LOST) from error
        self._looked = now = time.monotonic()
        for lane in self._slots:
            there = self.route.slots(lane, census)
            if there or not self._count[lane]:
                self._seen[lane] = now
            elif now - self._seen.setdefault(lane, now) > self._wait_s:
                raise UnavailableError(_nobody(lane, self.route, self._wait_s))
            self._slots[lane] = there

    def all_of(self, tasks: Iterable[Task[Item]], retries: int) -> dict[Item, Any]:
        """Run a few tasks, all at once, and wait for all.

        Args:
            retries: how often each may fail before.

        Returns:
            What each returned, by item.

        Raises:
            UnavailableError: see ``landed``.
            Exception: of the task that failed too often.
        """
        waiting = {task.item: task for task in tasks}
        failures: Counter[Item] = Counter()
        values: dict[Item, Any] = {}
        for task in waiting.values():
            self.submit(task)
        try:
            while len(self):
                for landed in self.landed():
                    if landed.error is None and not landed.lost:
                        values[landed.item] = landed.value
                        continue
                    failures[landed.item] += not landed.lost
                    full = isinstance(landed.error, DiskFullError)
                    if landed.error is not None and (full or failures[landed.item] > retries):
                        raise landed.error
                    again = waiting[landed.item]
                    again = waiting[landed.item] = replace(again, key=f"{again.key}-again")
                    self.submit(again)
        finally:
            self.cancel()
        return values

    def cancel(self) -> None:
        """Forget what is in flight."""
        if self._flying:
            self._client.cancel(list(self._flying))
        self._flying.clear()
        self._waiting.clear()
        self._count.clear()


def _nobody(lane: Lane, route: Route, wait_s: float) -> str:
    who = "a worker"
    if lane == "gpu":
        who = "a worker that declares a GPU"
    elif route.tile:
        who = "a worker without a GPU"
    return (
        f"{who} must be there until the run ends, for {wait_s:g} s there was none; "
        "the same command continues"
    )
