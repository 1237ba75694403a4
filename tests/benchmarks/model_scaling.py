"""A night of 10^12 pixels on 1,000 workers: what would stall first, and why it does not.

    python tests/benchmarks/model_scaling.py               the tables of docs/scaling.md
    python tests/benchmarks/model_scaling.py --measure     the constants, on this machine

The window of tasks is the real one, tile by tile; what lies around it is simulated: the time of the
driver and of the scheduler for each task (one server each), the slots of the workers, and a store
that all of them share, of so many bytes and so many small operations a second.
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from tilemap.cluster.flight import IN_FLIGHT_PER_SLOT, SETTLE_S, Landed, Task
from tilemap.geometry import Tile, TileGrid
from tilemap.tasks import TaskWindow, Work
from tilemap.worker import Receipt, Stage

NIGHT_PX = 1e12
CORE, HALO = 1024, 64
BANDS, BYTES_PER_VALUE = 4, 2


@dataclass(frozen=True)
class Costs:
    """Measured; see ``--measure``, ``bench_scheduler.py`` and docs/scaling.md for where.

    Args:
        scheduler_s: of the scheduler's processor, for each task.
        driver_s: of the driver's processor, for each task.
        read_s: reading and warping, seconds per million pixels.
        stitch_s: likewise.
        export_s: writing and verifying one product, likewise; one task for each product.
        serial_s: of a scene, whatever its size: checks, stores, plugins, sidecars, report;
            assumed, for it depends on how soon the workers have loaded the model.
        input_bytes: read per pixel of the scene.
        tile_bytes: of a patch in the tile store, per pixel of the scene.
        store_bytes: of predictions and map, per pixel.
        tile_files: written for a tile that goes through the tile store.
        store_files: written for predictions and map of a tile.
    """

    scheduler_s: float = 0.00075
    driver_s: float = 0.00045
    read_s: float = 0.25
    stitch_s: float = 0.083
    export_s: float = 0.033
    serial_s: float = 12.0
    input_bytes: float = 8.0
    tile_bytes: float = 10.0
    store_bytes: float = 2.0
    tile_files: int = 3
    store_files: int = 11


@dataclass(frozen=True)
class Site:
    """Machines.

    Args:
        cpus: worker processes without a GPU, one core each.
        gpus: worker processes with one.
        forward_s: of the model, seconds per million pixels that it computes, where it runs.
        store_bytes_s: what the shared store moves in a second.
        store_ops_s: small files it makes or opens in a second.
        keep_tiles: patches go through the tile store.
    """

    cpus: int = 1000
    gpus: int = 0
    forward_s: float = 0.5
    store_bytes_s: float = 20e9
    store_ops_s: float = 20_000.0
    keep_tiles: bool = False


class Simulated:
    """Stands in for ``Flight``: tasks take their time by a clock that costs none."""

    def __init__(self, site: Site, costs: Costs, grid: TileGrid) -> None:
        self._site, self._costs = site, costs
        overhead = grid.overhead
        mpx = CORE * CORE / 1e6
        self._free: dict[bool, list[float]] = {False: [0.0] * site.cpus}
        if site.gpus:
            self._free[True] = [0.0] * site.gpus
        forward, reading = site.forward_s * mpx * overhead, costs.read_s * mpx * overhead
        ahead = bool(site.gpus) and site.keep_tiles
        self._seconds: dict[Stage, float] = {
            "tile": reading,
            # The next patch is read while the model runs on this one.
            "segment": forward if ahead else max(forward, reading),
            "stitch": costs.stitch_s * mpx,
        }
        pixels = CORE * CORE
        twice = 2 * costs.tile_bytes * site.keep_tiles  # written and read again
        self._bytes: dict[Stage, float] = {
            "tile": pixels * (costs.input_bytes + costs.tile_bytes),
            "segment": pixels * (
                costs.tile_bytes if ahead else costs.input_bytes + twice / 2
            ) + pixels * costs.store_bytes / 2,
            "stitch": pixels * costs.store_bytes,
        }  # fmt: skip
        stored = costs.tile_files * site.keep_tiles
        self._files: dict[Stage, float] = {
            "tile": costs.tile_files,
            "segment": (stored if not ahead else costs.tile_files) + costs.store_files / 2,
            "stitch": 9 * costs.store_files / 4 + costs.store_files / 2,  # reads its neighbours'
        }
        self._random = random.Random(0)
        self._ends: list[tuple[float, int, Any]] = []
        self._count = {False: 0, True: 0}
        self._number = 0
        self.now = 0.0
        self.busy = dict.fromkeys(("scheduler", "driver", "workers", "bytes", "files"), 0.0)
        self._scheduler = self._store_bytes = self._store_files = 0.0

    def __len__(self) -> int:
        return len(self._ends)

    def _pool(self, segments: bool) -> bool:
        return segments and bool(self._site.gpus)

    def slots(self, segments: bool) -> int:
        """Tasks of a kind at a time."""
        return len(self._free[self._pool(segments)])

    def room(self, segments: bool) -> int:
        """How many more may go. Two threads a worker; a worker's model runs for one at a time."""
        pool = self._pool(segments)
        return 2 * IN_FLIGHT_PER_SLOT * len(self._free[pool]) - self._count[pool]

    def submit(self, task: Task[tuple[Stage, Tile]]) -> None:
        """Through the scheduler, onto the worker that is free first, to the store and back."""
        stage = task.item[0]
        costs, pool = self._costs, self._pool(task.segments)
        self._scheduler = max(self._scheduler, self.now) + costs.scheduler_s
        seconds = self._seconds[stage] * self._random.uniform(0.8, 1.2)
        began = max(heapq.heappop(self._free[pool]), self._scheduler)
        moved = self._bytes[stage] / self._site.store_bytes_s
        opened = self._files[stage] / self._site.store_ops_s
        self._store_bytes = max(self._store_bytes, began) + moved
        self._store_files = max(self._store_files, began) + opened
        ended = max(began + seconds, self._store_bytes, self._store_files)
        heapq.heappush(self._free[pool], ended)
        self._number += 1
        heapq.heappush(self._ends, (ended, self._number, task))
        self._count[pool] += 1
        spent = (costs.scheduler_s, 0.0, seconds, moved, opened)
        for name, value in zip(self.busy, spent, strict=True):
            self.busy[name] += value

    def landed(self) -> list[Landed[tuple[Stage, Tile]]]:
        """What is over when the driver looks; a moment later it has taken all of it."""
        self.now = max(self.now, self._ends[0][0]) + SETTLE_S
        found = []
        while self._ends and self._ends[0][0] <= self.now:
            _, _, task = heapq.heappop(self._ends)
            self._count[self._pool(task.segments)] -= 1
            stage, tile = task.item
            found.append(Landed(task.item, Receipt(stage, tile, 1, 1, {})))
        spent = self._costs.driver_s * len(found)
        self.now += spent
        self.busy["driver"] += spent
        return found

    def cancel(self) -> None:
        """Nothing flies."""


@dataclass(frozen=True)
class Scene:
    """What came of one scene.

    Args:
        pixels: of it.
        map_s: until the last core was stitched.
        export_s: after that.
        serial_s: before and after.
        busy: share of the map's time that each part worked.
    """

    pixels: float
    map_s: float
    export_s: float
    serial_s: float
    busy: dict[str, float]

    @property
    def seconds(self) -> float:
        """From the start to the report."""
        return self.map_s + self.export_s + self.serial_s

    @property
    def tightest(self) -> str:
        """What was busiest while it was mapped."""
        return max(self.busy, key=lambda name: self.busy[name])


def map_scene(pixels: float, site: Site, costs: Costs) -> Scene:
    """One scene on all workers of a site, through the real window."""
    side = max(1, round(math.sqrt(pixels) / CORE)) * CORE
    grid = TileGrid((side, side), CORE, HALO, 8)
    flight: Any = Simulated(site, costs, grid)
    ahead = bool(site.gpus) and site.keep_tiles
    TaskWindow(flight, Work("night", grid, ahead=ahead), lambda _: None).run()
    seconds = flight.now
    busy = {name: value / seconds for name, value in flight.busy.items()}
    busy["workers"] /= site.cpus + site.gpus
    export = costs.export_s * side * side / 1e6
    return Scene(side * side, seconds, export, costs.serial_s, busy)


@dataclass(frozen=True)
class Night:
    """A night's scenes, several at a time.

    Args:
        at_once: drivers, each with a scheduler and an equal share of the workers.
        hours: until the last is published.
        scene: one of them.
    """

    at_once: int
    hours: float
    scene: Scene


def night(pixels: float, at_once: int, site: Site, costs: Costs) -> Night:
    """Scenes of a size until there are 10^12 pixels; the store is shared by all of them."""
    share = replace(
        site,
        cpus=max(1, site.cpus // at_once),
        gpus=site.gpus and max(1, site.gpus // at_once),
        store_bytes_s=site.store_bytes_s / at_once,
        store_ops_s=site.store_ops_s / at_once,
    )
    scene = map_scene(pixels, share, costs)
    rounds = math.ceil(NIGHT_PX / scene.pixels / at_once)
    return Night(at_once, rounds * scene.seconds / 3600, scene)


def table(site: Site, costs: Costs) -> list[str]:
    """A table of docs/scaling.md."""
    lines = [
        "| pixels of a scene | scenes | at once | a scene, s: map, export, rest | hours "
        "| busiest while mapping |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for pixels in (1.2e8, 1e9, 1e10):
        for at_once in (1, 10, 100):
            found = night(pixels, at_once, site, costs)
            scene = found.scene
            lines.append(
                f"| {pixels:.1e} | {math.ceil(NIGHT_PX / scene.pixels):,} | {at_once} "
                f"| {scene.map_s:.0f}, {scene.export_s:.0f}, {scene.serial_s:.0f} "
                f"| {found.hours:.1f} | {scene.tightest} {scene.busy[scene.tightest]:.0%} |"
            )
    return lines


def measure(side: int) -> Costs:
    """Constants of this machine from a real run; the model's own time left out."""
    from bench_pipeline import make_scene

    from tilemap import api

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scene = [
            make_scene(folder / "fine.tif", side), make_scene(folder / "coarse.tif", side // 2, 1)
        ]  # fmt: skip
        options: dict[str, Any] = {"core": CORE, "halo": HALO, "precision": "bfloat16"}
        result = api.segment(scene, model=api.DEMO_MODEL, out=folder / "run", **options)
        record, mpx = result.record, side * side / 1e6
        steps, tiles = record["seconds"]["by_step"], record["tiles"]["count"]
        sizes = {
            path.name: [f.stat().st_size for f in path.rglob("*") if f.is_file()]
            for path in (folder / "run" / "stores").iterdir()
            if path.is_dir()
        }
        print(f"{side}^2, {tiles} tiles: seconds per Mpx by step of a worker:")
        print({step: round(value / mpx, 4) for step, value in steps.items()})
        print(f"export {record['seconds']['export'] / mpx:.4f} s per Mpx, whole")
        for store, files in sorted(sizes.items()):
            print(
                f"{store}: {sum(files) / side / side:.2f} bytes per pixel, "
                f"{len(files) / tiles:.1f} files a tile"
            )
        stores = [sum(sizes[name]) for name in ("predictions.zarr", "map.zarr")]
        files = [len(sizes[name]) for name in ("predictions.zarr", "map.zarr")]
        return replace(
            Costs(),
            read_s=steps["tile"] / mpx,
            stitch_s=steps["stitch"] / mpx,
            export_s=record["seconds"]["export"] / mpx,
            tile_bytes=sum(sizes["tiles.zarr"]) / side / side,
            store_bytes=sum(stores) / side / side,
            tile_files=round(len(sizes["tiles.zarr"]) / tiles),
            store_files=round(sum(files) / tiles),
        )


def main() -> None:
    """Print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--side", type=int, default=6144)
    given = parser.parse_args()
    if given.measure:
        print(measure(given.side))
        return
    costs = Costs()
    for title, site in (
        ("1,000 CPU workers, patches read direct", Site()),
        ("1,000 CPU workers, patches through the tile store", Site(keep_tiles=True)),
        ("950 CPU workers and 50 GPUs, tile store", Site(950, 50, 0.01, keep_tiles=True)),
        ("1,000 CPU workers, a store of 1 GB/s and 2,000 files/s", Site(1000, 0, 0.5, 1e9, 2e3)),
    ):
        print(f"\n{title}\n")
        print("\n".join(table(site, costs)))


if __name__ == "__main__":
    main()
