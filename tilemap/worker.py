"""What runs inside a worker process: one task is one stage on one tile.

A task is named by its run, its stage and its tile, and returns a receipt. Everything else
(the scene, the model, the stores) the process opens once for each run, through ``RunPlugin``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import resource
import socket
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

import numpy as np
import numpy.typing as npt
from distributed import Worker, WorkerPlugin

from tilemap.cluster.census import has_gpu
from tilemap.cluster.shipping import Shipped, provide, serve
from tilemap.cluster.versions import leave
from tilemap.errors import DamagedError, StoreError
from tilemap.geometry import Tile, TileGrid, Window
from tilemap.models.allocator import give_back_freed_memory
from tilemap.models.keeping import HeldModel, ModelShelf
from tilemap.scene import Scene
from tilemap.stages.segment import segment_patch, standardise
from tilemap.stages.stitch import stitch_tile
from tilemap.stages.tile import read_patch
from tilemap.stores.maps import Layer, MapStore
from tilemap.stores.marks import Mark
from tilemap.stores.predictions import PredictionStore
from tilemap.stores.probabilities import ProbabilityStore
from tilemap.stores.tiles import TileStore

if TYPE_CHECKING:
    from tilemap.models.recipe import Recipe
    from tilemap.stages.export import ExportReceipt
    from tilemap.stores.cog import RasterProfile
    from tilemap.stores.fingerprint import Inputs
    from tilemap.stores.geotiff import SceneReader, SceneSource
    from tilemap.stores.remote.place import Place

Stage = Literal["tile", "segment", "stitch"]
GDAL_CACHE_MB = 64
NEAR = 0.9
"""Of the planned memory: the heap of two threads fills with holes, slowly and without end."""


@dataclass(frozen=True, slots=True)
class Backend:
    """How a model is run.

    Args:
        device: "cpu", "cuda" or "auto" (CUDA where there is one).
        precision: "float32" or "bfloat16".
        threads: of one model call.
        engine: one of ``models.engines.ENGINES``; "auto" is what the file is for.
    """

    device: str = "auto"
    precision: str = "float32"
    threads: int = 1
    engine: str = "auto"


@dataclass(frozen=True, slots=True)
class RunSpec:
    """All that a worker must know of a run; small, and the same for every task.

    Args:
        digest: of inputs, settings, model and grid.
        stores: directory of the stores, or folder of a bucket.
        inputs: files of the scene; a worker that sees other ones does not open the run.
        keep_tiles: whether patches go through the tile store.
        pin: give each worker process a core of its own, if one is free.
        memory_bytes: what was planned for a worker; near it, freed memory is given back.
        probabilities: store of every class's probability; None if they are not kept.
        gpu: only workers that declare a GPU run the model, so only they load it.
        ship: workers may not see the model's file where it lies, and fetch it from each other.
        opening: tells it apart from the same run, opened by another driver or earlier.
    """

    digest: str
    stores: Place
    source: SceneSource
    inputs: Inputs
    grid: TileGrid
    model: Recipe
    backend: Backend
    keep_tiles: bool
    pin: bool
    memory_bytes: int
    probabilities: Place | None = None
    gpu: bool = False
    ship: bool = False
    opening: str = field(default_factory=lambda: uuid4().hex[:8])

    @property
    def name(self) -> str:
        """Of the run in the worker processes, whatever other drivers have open there."""
        return f"{self.digest[:16]}-{self.opening}"

    @property
    def files(self) -> tuple[Shipped, ...]:
        """What a worker that segments must have."""
        return tuple(Shipped(m.path, m.digest) for m in self.model.members)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a task leaves with the scheduler: less than 1 kB.

    Args:
        seconds: by step of the task.
        peak_bytes: largest resident memory of the process so far.
        worker: address of the worker.
    """

    stage: Stage
    tile: Tile
    process: int
    peak_bytes: int
    seconds: dict[str, float] = field(default_factory=dict)
    worker: str = ""


def resident_memory() -> int:
    """Resident memory of this process now, in bytes; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak_memory() -> int:
    """Largest resident memory of this process so far, in bytes."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    # Without /proc; of a spawned process this is at least what its parent had.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class RunContext:
    """A run as one worker process holds it.

    Args:
        worker: address of the worker.
    """

    def __init__(self, spec: RunSpec, worker: str = "") -> None:
        self.spec, self.worker = spec, worker
        self.values = tuple(c.value for c in spec.model.card.classes)
        self._local = threading.local()
        self._held: HeldModel | None = None
        self._lock = threading.Lock()
        self.predictions = PredictionStore(spec.stores / "predictions.zarr", spec.grid)
        self.maps = MapStore(spec.stores / "map.zarr", spec.grid)
        self.probabilities = None
        if spec.probabilities is not None:
            self.probabilities = ProbabilityStore(spec.probabilities)
        self.tiles = TileStore(spec.stores / "tiles.zarr") if spec.keep_tiles else None
        self._inputs = spec.inputs.confirm(spec.inputs.local)

    @property
    def scene(self) -> Scene:
        """The scene."""
        return self.spec.source.scene

    def reader(self) -> SceneReader:
        """The scene's reader of this thread: GDAL handles must not be shared."""
        reader: SceneReader | None = getattr(self._local, "reader", None)
        if reader is None:
            reader = self._local.reader = self.spec.source.open()
        return reader

    def model(self) -> HeldModel:
        """The model, or the models as one, taken from the shelf at the first call."""
        with self._lock:
            if self._held is None:
                backend = self.spec.backend
                self._held = _shelf.take(
                    self.spec.model, backend.device, backend.precision, backend.threads,
                    backend.engine,
                )  # fmt: skip
            return self._held

    def close(self) -> None:
        """Give the model back."""
        with self._lock:
            if self._held is not None:
                _shelf.give_back(self._held)
                self._held = None

    def patch(self, tile: Tile) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Patch of a tile: from the tile store, or read from the scene and stored."""
        window = self.spec.grid.patch_window(tile)
        if self.tiles is not None and self.tiles.has(tile):
            try:
                return self.tiles.read(tile, window.shape)
            except StoreError:
                self.tiles.marks.set(tile, Mark.MISSING)  # damaged: read the scene again
        image, valid = self.read(window)
        if self.tiles is not None:
            self.tiles.write(tile, image, valid)
        return image, valid

    def read(self, window: Window) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Read a patch from the scene, whose files must still be what they were planned to be.

        Raises:
            InputChangedError: if one is not.
            StoreError: if one cannot be read.
        """
        reader = self.reader()
        found = read_patch(reader, window)
        self._inputs = self._inputs.confirm(reader.open_files)
        return found

    def tile(self, tile: Tile) -> dict[str, float]:
        """Read the patch of one tile into the tile store; a finished one is left alone.

        Raises:
            StoreError: if it cannot be read or written.
        """
        assert self.tiles is not None
        if self.predictions.has(tile) or self.tiles.has(tile):
            return {}
        clock = _Clock()
        self.tiles.write(tile, *self.read(self.spec.grid.patch_window(tile)))
        clock.lap("tile")
        return clock.laps

    def segment(self, tile: Tile) -> dict[str, float]:
        """Tile and segment one tile; a finished one is left alone."""
        if self.predictions.has(tile):
            return {}
        clock = _Clock()
        image, valid = self.patch(tile)
        clock.lap("tile")
        card = self.spec.model.card
        standard = standardise(image, valid, self.scene, card)
        del image
        held = self.model()
        with held.lock:
            clock.lap("wait")
            prediction = segment_patch(
                self.spec.grid, tile, standard, valid, held.model, self.predictions.uncertainty,
                self.probabilities is not None,
            )  # fmt: skip
        clock.lap("segment")
        self.predictions.write(tile, prediction)
        clock.lap("store")
        return clock.laps

    def stitch(self, tile: Tile, missing: frozenset[Tile]) -> dict[str, float]:
        """Stitch one core; a finished one is left alone, a provisional one is made anew."""
        kept = self.probabilities
        if not missing and self.maps.state(tile) is Mark.DONE and (kept is None or kept.has(tile)):
            return {}
        wanted = Mark.PROVISIONAL if missing else Mark.DONE
        clock = _Clock()
        try:
            core = stitch_tile(self.spec.grid, tile, self.predictions, self.values, missing)
        except DamagedError as error:
            self.predictions.marks.set(Tile(*error.tile), Mark.MISSING)
            raise
        if kept is not None:
            assert core.quantised is not None
            kept.write(tile, core.quantised, wanted)
        self.maps.write(tile, core.layers, core.stats, wanted)
        clock.lap("stitch")
        return clock.laps


class _Clock:
    """Seconds between laps."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = self.laps.get(name, 0.0) + now - self._last
        self._last = now


_contexts: dict[str, RunContext] = {}
_shelf = ModelShelf()


def settle(worker: Worker, pin: bool, alone: bool) -> None:
    """Bound GDAL's cache in a worker process; give it a free core where it is to be pinned.

    Args:
        worker: of the process.
        pin: see ``RunSpec``.
        alone: no other run is open in it, whose peak of memory would be lost.
    """
    if alone:
        with contextlib.suppress(OSError):  # what an earlier run has needed is not this one's
            Path("/proc/self/clear_refs").write_text("5")
    os.environ.setdefault("GDAL_CACHEMAX", str(GDAL_CACHE_MB))
    # Without a nanny the worker is a part of a process that has other work, on all of its cores.
    apart = worker.nanny is not None and isinstance(worker.name, int)
    if pin and apart and hasattr(os, "sched_setaffinity"):
        _own_core(worker.name)


_core: list[socket.socket] = []
"""What keeps others off the core that this process has; empty if it has none of its own."""


def _own_core(first: int) -> None:
    """Take a core that no other worker on this machine has; do without where all are taken.

    A name in Linux' abstract namespace belongs to one process, and is free when that ends.

    Args:
        first: number of the core that is tried first.
    """
    if _core:
        return
    cores = sorted(os.sched_getaffinity(0))
    for number in range(len(cores)):
        core = cores[(first + number) % len(cores)]
        taken = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            taken.bind(f"\0tilemap-core-{core}")
            os.sched_setaffinity(0, {core})
        except OSError:
            taken.close()
            continue
        _core.append(taken)
        return


class RunPlugin(WorkerPlugin):
    """Opens a run in every worker process, those that join later included.

    Those that segment load the model.
    """

    def __init__(self, spec: RunSpec) -> None:
        self.spec = spec
        self.name = f"tilemap-{spec.name}"
        self._over = False

    async def setup(self, worker: Worker) -> None:
        """Called by Dask in each worker."""
        try:
            await self._open(worker)
        except Exception as error:
            if not worker.periodic_callbacks["heartbeat"].is_running():  # it has only just come
                leave(worker, str(error))
            raise

    async def _open(self, worker: Worker) -> None:
        settle(worker, self.spec.pin, not _contexts)
        spec, files = self.spec, self.spec.files
        segments = not spec.gpu or has_gpu(worker)
        if spec.ship:
            serve(worker, files)
        if spec.ship and segments:
            places = {file.digest: await provide(worker, file) for file in files}
            spec = dataclasses.replace(spec, model=spec.model.at(places))
        context = RunContext(spec, worker.address)
        if segments:
            context.model()
        if self._over:  # the driver went while the model came
            context.close()
        else:
            _contexts[self.spec.name] = context

    def teardown(self, worker: Worker) -> None:
        """Called by Dask when the run is over."""
        self._over = True
        context = _contexts.pop(self.spec.name, None)
        if context is not None:
            context.close()


def context_of(run: str) -> RunContext:
    """The run as this process holds it.

    Raises:
        StoreError: if its plugin was never set up here.
    """
    if run not in _contexts:
        raise StoreError(f"run {run} must be set up in this worker process before its tasks")
    return _contexts[run]


def run_task(
    run: str, stage: Stage, tile: tuple[int, int], missing: tuple[tuple[int, int], ...] = ()
) -> Receipt:
    """One stage on one tile; may be run twice, in any order, anywhere."""
    context = context_of(run)
    where = Tile(*tile)
    if stage == "tile":
        seconds = context.tile(where)
    elif stage == "segment":
        seconds = context.segment(where)
    else:
        seconds = context.stitch(where, frozenset(Tile(*t) for t in missing))
    if resident_memory() > NEAR * context.spec.memory_bytes:
        give_back_freed_memory()
    return Receipt(stage, where, os.getpid(), peak_memory(), seconds, context.worker)


def run_export(run: str, layer: Layer, profile: RasterProfile, path: Path) -> ExportReceipt:
    """Stream one layer of the map store into its product, verified, not yet published."""
    context = context_of(run)
    assert isinstance(context.spec.stores, Path)  # else the driver exports
    return export_layer(context.maps, layer, profile, path, context.spec.stores)


def export_layer(
    maps: MapStore, layer: Layer, profile: RasterProfile, path: Path, scratch: Path
) -> ExportReceipt:
    """The same of any store; see ``export_raster``."""
    from tilemap.stages.export import export_raster

    return export_raster(
        lambda window: maps.read_window(layer, window), maps.grid, profile, path, scratch
    )
