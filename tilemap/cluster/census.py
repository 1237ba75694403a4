"""Who is there and can do what: workers with a GPU segment, the others do everything else.

A worker says with Dask's resources what it is for. ``GPU`` it declares itself, as many as tasks it
takes at a time. ``TILE`` it need not: whoever joins without a GPU is given as many as it has
threads. Resources hold for workers that join later, as a list of addresses would not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from distributed import Client, Scheduler, SchedulerPlugin, Worker, WorkerPlugin

from tilemap.cluster.driver import put

GPU = "GPU"
TILE = "TILE"

Lane = Literal["cpu", "gpu"]
"""Which workers a task goes to; they have a window of tasks in flight each."""


@dataclass(frozen=True, slots=True)
class Member:
    """One worker as the scheduler knows it.

    Args:
        threads: tasks it runs at a time.
        gpu: tasks that segment it takes at a time; 0 if it has no GPU.
        tile: other tasks it takes at a time, where GPU workers are among the workers.
    """

    threads: int
    gpu: int = 0
    tile: int = 0


Census = Mapping[str, Member]
"""Workers that take tasks now, by address."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where the tasks of a run go.

    Args:
        gpu: segmenting asks for a GPU, of which there was one when the run began.
        tile: all other tasks ask for workers that have none, of which there was one too.
    """

    gpu: bool = False
    tile: bool = False

    @staticmethod
    def among(census: Census) -> Route:
        """What suits the workers that are there."""
        gpu = any(member.gpu for member in census.values())
        return Route(gpu, gpu and any(member.tile for member in census.values()))

    def lane(self, segments: bool) -> Lane:
        """The lane of a task."""
        return "gpu" if segments and self.gpu else "cpu"

    def resources(self, lane: Lane) -> dict[str, int]:
        """What tasks of a lane ask Dask for; nothing where any worker will do."""
        if lane == "gpu":
            return {GPU: 1}
        return {TILE: 1} if self.tile else {}

    def slots(self, lane: Lane, census: Census) -> dict[str, int]:
        """Tasks of a lane that each worker takes at a time; those that take none are left out."""
        if lane == "gpu":
            found = {address: member.gpu for address, member in census.items()}
        elif self.tile:
            found = {address: member.tile for address, member in census.items()}
        else:
            found = {address: member.threads for address, member in census.items()}
        return {address: count for address, count in found.items() if count > 0}


def _count(dask_scheduler: Any) -> dict[str, tuple[int, float, float]]:
    """In the scheduler's process; short, for it is asked every second."""
    return {
        ws.address: (ws.nthreads, ws.resources.get("GPU", 0), ws.resources.get("TILE", 0))
        for ws in dask_scheduler.running
    }


def take_census(client: Client) -> Census:
    """The workers that take tasks now.

    Raises:
        OSError: if the connection to the scheduler is lost.
    """
    found = client.run_on_scheduler(_count)
    return {
        address: Member(threads, int(gpu), int(tile))
        for address, (threads, gpu, tile) in found.items()
    }


def route_of(client: Client) -> Route:
    """Where the tasks of a run go that begins now."""
    return Route.among(take_census(client))


def thread_count(client: Client) -> int:
    """Threads of all workers now."""
    threads: dict[str, int] = client.nthreads()
    return max(1, sum(threads.values()))


def has_gpu(worker: Worker) -> bool:
    """Whether a worker declared a GPU."""
    return worker.state.total_resources.get(GPU, 0) > 0


class RolePlugin(WorkerPlugin):
    """Gives every worker without a GPU its ``TILE``s, those that join later included."""

    name = "tilemap-role"

    def setup(self, worker: Worker) -> None:
        """Called by Dask in each worker, before the first task comes."""
        state = worker.state
        if not state.total_resources.keys() & {GPU, TILE}:
            state.total_resources[TILE] = state.available_resources[TILE] = state.nthreads


class RolesPlugin(SchedulerPlugin):
    """The same in the scheduler's books.

    A worker could tell it itself, but only after Dask has looked for tasks that wait for one.
    """

    name = "tilemap-roles"

    async def start(self, scheduler: Scheduler) -> None:
        """Called by Dask once."""
        for address in [*scheduler.workers]:
            self.add_worker(scheduler, address)

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        """Called by Dask for each that joins, before it looks for tasks that wait."""
        state = scheduler.workers[worker]
        if not state.resources.keys() & {GPU, TILE}:
            scheduler.add_resources(worker=worker, resources={TILE: state.nthreads})


def tell_roles(client: Client) -> None:
    """Every worker is for something from now on."""
    put(client, RolePlugin())
    put(client, RolesPlugin())
