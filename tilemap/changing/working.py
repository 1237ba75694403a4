"""What runs inside a worker process: one task is one stage on one tile, or on one date's tile.

A task reads stores and writes stores; what it returns is a receipt. A chunk that turns out to be
damaged is made again where it is missed: it depends on its inputs alone, so that two workers that
mend it at once write the same bytes.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from distributed import Worker, WorkerPlugin

from tilemap.area import CellArea
from tilemap.changing.batch import Key, Receipt
from tilemap.changing.regions import read_joined, record_path, write_border, write_parts
from tilemap.comparison.outcome import NO_DATE
from tilemap.comparison.qa import Qa
from tilemap.comparison.registration import block_shift
from tilemap.errors import DamagedError, StoreError
from tilemap.geometry import Tile, TileGrid, Window
from tilemap.models.allocator import give_back_freed_memory
from tilemap.probability import NODATA, shares
from tilemap.stages.change import Method, Move, change_core, grown
from tilemap.stages.export import ExportReceipt, export_raster
from tilemap.stages.gather import GatherReader
from tilemap.stages.sieve import SieveRule, finish_core, survey_core
from tilemap.stores.cog import RasterProfile
from tilemap.stores.core_store import CoreStore
from tilemap.stores.series import DateStore
from tilemap.worker import NEAR, peak_memory, resident_memory, settle

ByteArray = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class DateWork:
    """One date: where its probabilities come from and where they go.

    Args:
        iso: its day.
        reader: of its probabilities on the grid of the series.
        store: its ``DateStore``.
    """

    iso: str
    reader: GatherReader
    store: Path


@dataclass(frozen=True)
class ChangeSpec:
    """All that a worker must know of a run.

    Args:
        name: of the run in the worker processes.
        stores: directory of the stores.
        grid: the cut of the series.
        works: the dates, in order.
        block: side of the blocks that are registered, pixels.
        pin: give each worker process a core of its own.
        memory_bytes: what was planned for a worker; near it, freed memory is given back.
        method: how dates are compared; None until registration has been done.
        moves: how far each date is moved.
        always: bits of every pixel's ``qa``.
        mmu_px: minimum mapping unit, pixels.
        values: map value of each class.
    """

    name: str
    stores: Path
    grid: TileGrid
    works: tuple[DateWork, ...]
    block: int
    pin: bool
    memory_bytes: int
    method: Method | None = None
    moves: tuple[Move | None, ...] = ()
    always: int = 0
    mmu_px: int = 1
    values: tuple[int, ...] = ()


class ChangeContext:
    """A run as one worker process holds it."""

    def __init__(self, spec: ChangeSpec) -> None:
        self.spec = spec
        self._dates = [DateStore(work.store, spec.grid) for work in spec.works]
        self._change: CoreStore | None = None
        self._final: CoreStore | None = None
        self._area = CellArea(spec.works[0].reader.geobox)
        self._lock = threading.Lock()

    def change_store(self) -> CoreStore:
        """Store of the changed cores, made when the dates are registered."""
        with self._lock:
            if self._change is None:
                self._change = CoreStore(self.spec.stores / "change.zarr", self.spec.grid)
            return self._change

    def date(self, number: int, window: Window) -> ByteArray:
        """Quantised probability of one date, uint8 (class, y, x); damaged cores are mended."""
        for _ in range(self.spec.grid.size + 1):
            try:
                return self._dates[number].read_window(window)
            except DamagedError as error:
                self._gather(number, Tile(*error.tile))
        raise StoreError(f"{self.spec.works[number].store} must stay readable, it does not")

    def gather(self, key: Key) -> tuple[float, ...]:
        """Bring one date's tile onto the grid of the series."""
        self._gather(key[0], Tile(key[1], key[2]))
        return ()

    def _gather(self, number: int, tile: Tile) -> None:
        core = self.spec.grid.core_window(tile)
        self._dates[number].write(tile, self.spec.works[number].reader.read(core))

    def register(self, key: Key) -> tuple[float, ...]:
        """Shift of one block of a date against the first date: rows, columns, quality."""
        number, row, col = key
        side = self.spec.block
        window = Window(row * side, col * side, (row + 1) * side, (col + 1) * side)
        window = window.intersect(self.spec.grid.scene_window)
        first, moving = self.date(0, window), self.date(number, window)
        valid = (first[0] != NODATA) & (moving[0] != NODATA)
        planes = [np.where(valid, shares(q), 0) for q in (first, moving)]
        found = block_shift(planes[0], planes[1], valid)
        return () if found is None else (found.row, found.col, found.quality)

    def change(self, key: Key) -> tuple[float, ...]:
        """Compare the dates in one core."""
        self._compare(Tile(*key))
        return ()

    def _compare(self, tile: Tile) -> None:
        spec = self.spec
        window = grown(spec.grid.core_window(tile))
        dates = [self.date(number, window) for number in range(len(spec.works))]
        core = change_core(dates, spec.moves, self._method, Qa(spec.always))
        self.change_store().write(tile, core.layers, np.zeros(1))

    def survey(self, key: Key) -> tuple[float, ...]:
        """Tell of the regions of one core that reach its border."""
        tile, spec = Tile(*key), self.spec
        window = spec.grid.core_window(tile)
        border = survey_core(
            self.layer("code", window), window, spec.grid.scene[1], self._method.classes
        )
        write_border(spec.stores, tile, border)
        return ()

    def finish(self, key: Key) -> tuple[float, ...]:
        """Sieve and count one core, outline its regions."""
        tile, spec = Tile(*key), self.spec
        window, method = spec.grid.core_window(tile), self._method
        around = window.grow(1)
        inside = around.intersect(spec.grid.scene_window)
        codes = np.zeros(around.shape, dtype=np.uint8)
        codes[inside.within(around)] = self.layer("code", inside)
        names = ("qa", "p_change", "n_changes", "date", "labels")
        layers = {name: self.layer(name, window) for name in names}
        rule = SieveRule(
            spec.mmu_px, spec.grid.scene[1], method.classes, method.days,
            self._area.cell_km2(window),
        )  # fmt: skip
        done = finish_core(codes, layers, window, read_joined(spec.stores, tile), rule)
        write_parts(record_path(spec.stores, tile, "parts"), done.regions.pack())
        final = {"code": done.code, "qa": done.qa}
        self.final_store().write(tile, final, done.figures.pack())
        return ()

    def product(self, name: str, window: Window) -> npt.NDArray[Any]:
        """What one raster of the series holds in a window."""
        if name in ("change", "qa"):
            return self.final_store().read_window("code" if name == "change" else "qa", window)
        if name == "date":
            sieved = (self.final_store().read_window("qa", window) & np.uint8(Qa.SIEVED)) > 0
            both = np.stack([self.layer("date", window), self.layer("gap", window)])
            both[:, sieved] = NO_DATE
            return both
        if name.startswith("labels_"):
            number = [work.iso for work in self.spec.works].index(name.removeprefix("labels_"))
            values = np.full(256, NODATA, dtype=np.uint8)
            values[: len(self.spec.values)] = self.spec.values
            labels: npt.NDArray[Any] = values[self.layer("labels", window)[number]]
            return labels
        return self.layer(name, window)

    @property
    def _method(self) -> Method:
        assert self.spec.method is not None
        return self.spec.method

    def final_store(self) -> CoreStore:
        """Store of the finished cores."""
        with self._lock:
            if self._final is None:
                self._final = CoreStore(self.spec.stores / "final.zarr", self.spec.grid)
            return self._final

    def layer(self, name: str, window: Window) -> npt.NDArray[Any]:
        """One layer of the changed cores; damaged ones are made again."""
        for _ in range(self.spec.grid.size + 1):
            try:
                return self.change_store().read_window(name, window)
            except DamagedError as error:
                self._compare(Tile(*error.tile))
        raise StoreError(f"{self.spec.stores} must stay readable, it does not")


class _Contexts:
    """The runs that this process holds."""

    def __init__(self) -> None:
        self.known: dict[str, ChangeContext] = {}


_contexts = _Contexts()


class ChangePlugin(WorkerPlugin):
    """Opens a run in every worker process, those that join later included."""

    def __init__(self, spec: ChangeSpec) -> None:
        self.spec = spec
        self.name = f"tilemap-{spec.name}"

    def setup(self, worker: Worker) -> None:
        """Called by Dask in each worker."""
        settle(worker, self.spec.pin, not _contexts.known)
        _contexts.known[self.spec.name] = ChangeContext(self.spec)

    def teardown(self, worker: Worker) -> None:
        """Called by Dask when the run is over."""
        _contexts.known.pop(self.spec.name, None)


@dataclass(frozen=True)
class Task:
    """``run_task`` of one run; small, goes with every task."""

    run: str

    def __call__(self, stage: str, key: Key) -> Receipt:
        """One stage on one tile; may be run twice, in any order, anywhere."""
        if self.run not in _contexts.known:
            raise StoreError(f"run {self.run} must be set up in this worker process first")
        context = _contexts.known[self.run]
        started = time.perf_counter()
        value = getattr(context, stage)(key)
        if resident_memory() > NEAR * context.spec.memory_bytes:
            give_back_freed_memory()
        seconds = time.perf_counter() - started
        return Receipt(stage, key, os.getpid(), peak_memory(), seconds, value)


def run_export(run: str, name: str, profile: RasterProfile, path: Path) -> ExportReceipt:
    """Stream one product of the series into its file, verified, not yet published."""
    if run not in _contexts.known:
        raise StoreError(f"run {run} must be set up in this worker process first")
    context = _contexts.known[run]
    grid, stores = context.spec.grid, context.spec.stores
    return export_raster(lambda window: context.product(name, window), grid, profile, path, stores)
