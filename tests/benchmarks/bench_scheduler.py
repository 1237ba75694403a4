"""What scheduler and driver cost for each tile, with tiles that take no time.

    python tests/benchmarks/bench_scheduler.py --tiles 10000 --workers 4

A scheduler and workers as processes of their own run the window of tasks of a real run, each task a
receipt and nothing else. Processor time is what counts: on a machine with few cores the processes
wait for each other.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from distributed import Client

sys.path.insert(0, str(Path(__file__).parents[1]))

from cluster.machines import Machines

from tilemap import tasks
from tilemap.cluster.census import route_of, tell_roles
from tilemap.cluster.flight import Flight
from tilemap.geometry import Tile, TileGrid
from tilemap.tasks import TaskWindow, Work
from tilemap.worker import Receipt, Stage

CORE = 16
STEPS = ("tile", "wait", "segment", "store")


def nothing(
    run: str, stage: Stage, tile: tuple[int, int], missing: tuple[tuple[int, int], ...] = ()
) -> Receipt:
    """As large a receipt as a real task's."""
    seconds = dict.fromkeys(STEPS, 0.001)
    return Receipt(stage, Tile(*tile), os.getpid(), 1 << 30, seconds, "tls://10.0.0.1:40000")


@dataclass
class Costs:
    """What was measured.

    Args:
        memory: resident bytes of the driver by tiles that were done.
    """

    tiles: int
    scheduler_s: float = 0.0
    driver_s: float = 0.0
    wall_s: float = 0.0
    memory: dict[int, int] = field(default_factory=dict)
    scheduler_bytes: int = 0


def measure(tiles: int, workers: int, gpus: int, folder: Path) -> Costs:
    """Run the window over a grid of at least so many tiles."""
    rows = max(1, round(tiles**0.5))
    grid = TileGrid((rows * CORE, -(-tiles // rows) * CORE), CORE, 4, 2)
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    machines = Machines(folder, environment={"PYTHONPATH": path})
    try:
        machines.scheduler()
        for number in range(workers):
            machines.worker(f"cpu-{number}")
        for number in range(gpus):
            machines.worker(f"gpu-{number}", "GPU=2")
        with Client(machines.address) as client:
            client.wait_for_workers(workers + gpus)
            tell_roles(client)
            return _measured(client, grid, psutil.Process(machines.process("scheduler")))
    finally:
        machines.end()


def _measured(client: Client, grid: TileGrid, scheduler: psutil.Process) -> Costs:
    costs, own, done = Costs(grid.size), psutil.Process(), 0
    marks = {round(grid.size * share) for share in (0.1, 0.25, 0.5, 0.75, 1.0)}

    def advance(receipt: Receipt) -> None:
        nonlocal done
        done += receipt.stage == "stitch"
        if receipt.stage == "stitch" and done in marks:
            costs.memory[done] = own.memory_info().rss

    tasks.run_task = nothing  # type: ignore[assignment]
    route = route_of(client)
    work = Work("bench", grid, ahead=route.tile)
    before = (_spent(scheduler), _spent(own), time.perf_counter())
    TaskWindow(Flight(client, route, 60), work, advance).run()
    costs.scheduler_s = _spent(scheduler) - before[0]
    costs.driver_s = _spent(own) - before[1]
    costs.wall_s = time.perf_counter() - before[2]
    costs.scheduler_bytes = scheduler.memory_info().rss
    return costs


def _spent(process: psutil.Process) -> float:
    times: Any = process.cpu_times()
    return float(times.user + times.system)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--gpus", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        costs = measure(given.tiles, given.workers, given.gpus, Path(name))
    each = 1000 / costs.tiles
    print(
        f"{costs.tiles} tiles, {given.workers} workers, {given.gpus} more with a GPU: a tile costs "
        f"the scheduler {costs.scheduler_s * each:.2f} ms and the driver "
        f"{costs.driver_s * each:.2f} ms of processor time; {costs.wall_s * each:.2f} ms of wall"
    )
    print(f"scheduler {costs.scheduler_bytes / 2**20:.0f} MiB; driver, after so many tiles:")
    for tiles, size in sorted(costs.memory.items()):
        print(f"  {tiles:6d}  {size / 2**20:.1f} MiB")


if __name__ == "__main__":
    # Workers import what they run by name, not from __main__.
    from bench_scheduler import main as run_main

    run_main()
