"""One run of the whole pipeline: check, tile, segment, stitch, export, report."""

from __future__ import annotations

import contextlib
import dataclasses
import platform
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

from distributed import Client

from tilemap.cluster import (
    ClusterSettings,
    connect,
    memory_per_worker,
    pins,
    thread_count,
    worker_count,
)
from tilemap.directory import Identity, RunDirectory, digest_of, read_json, write_json
from tilemap.errors import EXIT_OK, EXIT_PARTIAL, OutputError, StoreError
from tilemap.geometry import Tile, TileGrid
from tilemap.measure import Cost, Trial, measure
from tilemap.models import registry
from tilemap.models.card import ModelCard
from tilemap.models.registry import ModelRef
from tilemap.plan import (
    GridSettings,
    Plan,
    check_memory,
    check_units,
    choose_grid,
    make_plan,
    quicker_grid,
)
from tilemap.products import Products, class_profile, confidence_profile, write_products
from tilemap.report.run_report import report_run
from tilemap.stages.stitch import nothing_observed
from tilemap.stores.geotiff import SceneRequest, SceneSource, open_scene
from tilemap.stores.maps import MapStore, Seam
from tilemap.stores.marks import Mark
from tilemap.stores.predictions import PredictionStore
from tilemap.stores.tiles import TileStore
from tilemap.tasks import Outcome, TaskWindow
from tilemap.worker import Backend, Receipt, RunPlugin, RunSpec

FORMAT = 1
"""Of the stores; another one is another run."""


@dataclass(frozen=True, slots=True)
class SegmentSettings:
    """How a scene is mapped.

    Args:
        grid: the cut; None in it lets model and scene decide.
        backend: device and precision.
        cluster: where the tasks run.
        keep_stores: keep the stores, patches included, after a run that ended well.
    """

    grid: GridSettings = field(default_factory=GridSettings)
    backend: Backend = field(default_factory=Backend)
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    keep_stores: bool = True


class Progress(Protocol):
    """Told what happens; see ``tilemap.cli.progress`` for one that prints."""

    def note(self, text: str) -> None:
        """A line for the person who waits."""

    def begin(self, total: int, done: int, pixels: int) -> None:
        """``total`` tasks stand, ``done`` of them from before; ``pixels`` of the scene."""

    def advance(self, receipt: Receipt, pixels: int) -> None:
        """A task ended; ``pixels`` of the scene are newly mapped."""

    def end(self) -> None:
        """All tasks ended."""


class Silent:
    """Progress that nobody sees."""

    def note(self, text: str) -> None:
        """Nothing."""

    def begin(self, total: int, done: int, pixels: int) -> None:
        """Nothing."""

    def advance(self, receipt: Receipt, pixels: int) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that has passed every check and has touched nothing."""

    source: SceneSource
    model: ModelRef
    settings: SegmentSettings
    plan: Plan
    cost: Cost
    identity: Identity

    @property
    def digest(self) -> str:
        """Name of the run."""
        return digest_of(self.identity)


@dataclass(frozen=True, slots=True)
class RunResult:
    """What became of a run.

    Args:
        status: "ok", or "partial" if tiles were quarantined.
        landcover: class map.
        confidence: percent of the chosen class.
        record: contents of ``run.json``.
        resumed: tasks that an earlier run of the same command had done already.
    """

    status: str
    directory: Path
    landcover: Path
    confidence: Path
    record: dict[str, Any] = field(repr=False)
    resumed: int = 0

    @property
    def exit_code(self) -> int:
        """0 ok, 3 partial."""
        return EXIT_OK if self.status == "ok" else EXIT_PARTIAL


def prepare(
    request: SceneRequest, model: str | Path, settings: SegmentSettings, out: Path | None = None
) -> Prepared:
    """Check everything that can be known before the run, and plan it.

    Args:
        out: where the run will go. A run of this model that lies there already has chosen a core,
            which is kept: what was measured to choose it may come out otherwise today.

    Raises:
        TilemapError: of the kind that fits; nothing has been touched.
    """
    ref = registry.resolve(model)
    request = dataclasses.replace(request, bands=ref.card.bands)
    source = open_scene(request)
    check_units(source.scene, ref.card)
    shape = source.scene.shape
    chosen = _settled_grid(settings.grid, ref, shape, out)
    grid = choose_grid(shape, ref.card, chosen)
    backend = settings.backend
    side = max(grid.patch_window(next(grid.tiles())).shape)
    cost = measure(
        Trial(ref, source.scene, side, backend.device, backend.precision, backend.threads)
    )
    grid = quicker_grid(grid, ref.card, chosen, cost)
    if settings.cluster.scheduler is None or settings.cluster.memory_limit is not None:
        limit = memory_per_worker(settings.cluster)
        grid = check_memory(grid, ref.card, cost, limit, chosen)
    workers = worker_count(settings.cluster)
    plan = make_plan(grid, source.scene, ref.card, cost, workers, settings.keep_stores)
    identity = _identity(source, ref, grid, dataclasses.replace(backend, device=cost.device))
    return Prepared(source, ref, settings, plan, cost, identity)


def _settled_grid(
    wanted: GridSettings, ref: ModelRef, shape: tuple[int, int], out: Path | None
) -> GridSettings:
    before = None if out is None else RunDirectory(out).previous()
    if before is None or wanted.core is not None or before["model"]["sha256"] != ref.digest:
        return wanted
    if list(shape) != before["grid"]["scene"]:
        return wanted
    return dataclasses.replace(wanted, core=before["grid"]["core"])


def _identity(source: SceneSource, ref: ModelRef, grid: TileGrid, backend: Backend) -> Identity:
    scene, card = source.scene, ref.card
    return {
        "format": FORMAT,
        "inputs": source.fingerprint(),
        "scene": {
            "shape": list(scene.shape),
            "geotransform": [float(v) for v in tuple(scene.geobox.affine)[:6]],
            "crs": None if scene.geobox.crs is None else scene.geobox.crs.to_wkt(),
            "bands": [dataclasses.asdict(band) for band in scene.bands],
        },
        "grid": {**dataclasses.asdict(grid), "scene": list(grid.scene)},
        "model": {
            "name": card.name,
            "sha256": ref.digest,
            "temperature": card.temperature,
            "classes": [c.model_dump() for c in card.classes],
        },
        "backend": {"device": backend.device, "precision": backend.precision},
    }


def execute(
    prepared: Prepared,
    out: Path,
    fresh: bool = False,
    progress: Progress | None = None,
    order: Iterable[Tile] | None = None,
) -> RunResult:
    """Run what was prepared; the same call on the same directory continues an earlier one.

    Args:
        fresh: forget an earlier run in this directory, whosever it was.
        order: in which order tiles are segmented; the result does not depend on it.

    Raises:
        OutputError: if the directory belongs to another run, or the disk has too little room.
        BusyError: if another process works on it.
        UnavailableError: if no cluster can be had.
        TilemapError: if no tile at all could be mapped.
    """
    progress = progress or Silent()
    directory = RunDirectory(out)
    directory.check(prepared.identity, fresh)
    finished = None if fresh else _finished(directory, prepared)
    if finished is not None:
        progress.note(f"{out} holds this run already, whole; nothing to do")
        return finished
    _check_space(prepared.plan, out)
    with directory.hold():
        if fresh:
            directory.clear()
        existed = directory.identity_file.exists()
        done = Outcome()
        try:
            _create_stores(directory, prepared)
            with connect(prepared.settings.cluster) as client:
                return _execute(prepared, directory, client, progress, order, done)
        except BaseException:
            if not existed and done.receipts == 0:
                directory.remove_stores()
            raise
        finally:
            progress.end()


def _finished(directory: RunDirectory, prepared: Prepared) -> RunResult | None:
    record = read_json(directory.run_file)
    if not record or record.get("digest") != prepared.digest or record.get("status") != "ok":
        return None
    for name, product in record["products"].items():
        path = directory.path / name
        if not path.exists() or registry.file_sha256(path) != product["sha256"]:
            return None
    return _result(directory, record, resumed=record["tasks"]["total"])


def _check_space(plan: Plan, out: Path) -> None:
    place = next(p for p in (out, *out.absolute().parents) if p.exists())
    lying = sum(f.stat().st_size for f in (out / "stores").rglob("*") if f.is_file())
    free = shutil.disk_usage(place).free + lying
    if plan.disk_bytes > free:
        raise OutputError(
            f"the run may need up to {plan.disk_bytes / 1e9:.2f} GB in {place}, which has "
            f"{free / 1e9:.2f} GB free; --discard-stores needs less"
        )


def _create_stores(directory: RunDirectory, prepared: Prepared) -> None:
    if directory.identity_file.exists():
        return
    directory.remove_stores()
    directory.stores.mkdir()
    stores, digest, grid = directory.stores, prepared.digest, prepared.plan.grid
    scene, card = prepared.source.scene, prepared.model.card
    try:
        if prepared.settings.keep_stores:
            TileStore.create(stores / "tiles.zarr", scene, grid, digest)
        PredictionStore.create(stores / "predictions.zarr", grid, len(card.classes), digest)
        MapStore.create(stores / "map.zarr", grid, scene.geobox, digest)
        write_json(directory.identity_file, prepared.identity)
    except OSError as error:
        raise StoreError(f"cannot create the stores in {stores}: {error.strerror}") from error


def _resume(stores: Path, grid: TileGrid) -> tuple[set[Tile], set[Tile]]:
    """Tiles that need no segmenting, and tiles that need no stitching any more."""
    predictions, maps = (
        PredictionStore(stores / "predictions.zarr", grid),
        MapStore(stores / "map.zarr", grid),
    )
    segmented = {tile for tile in grid.tiles() if predictions.has(tile)}
    stitched = {
        tile
        for tile in segmented
        if maps.state(tile) is Mark.DONE and segmented.issuperset(grid.neighbours(tile))
    }
    return segmented, stitched


def _execute(
    prepared: Prepared,
    directory: RunDirectory,
    client: Client,
    progress: Progress,
    order: Iterable[Tile] | None,
    done: Outcome,
) -> RunResult:
    settings, grid = prepared.settings, prepared.plan.grid
    progress.note(f"dashboard {client.dashboard_link}, {thread_count(client)} worker threads")
    keep_tiles = (directory.stores / "tiles.zarr").exists()
    backend = dataclasses.replace(settings.backend, device=prepared.plan.device)
    spec = RunSpec(
        prepared.digest, directory.stores.absolute(), prepared.source, grid, prepared.model,
        backend, keep_tiles, pins(settings.cluster),
    )  # fmt: skip
    plugin = RunPlugin(spec)
    client.register_plugin(plugin)
    segmented, stitched = _resume(directory.stores, grid)
    resumed = len(segmented) + len(stitched)
    started = time.perf_counter()
    pixels = sum(grid.core_window(tile).size for tile in segmented)
    progress.begin(2 * grid.size, resumed, grid.scene[0] * grid.scene[1])

    def advance(receipt: Receipt) -> None:
        done.receipts += 1
        mapped = grid.core_window(receipt.tile).size if receipt.stage == "segment" else 0
        progress.advance(receipt, mapped)

    window = TaskWindow(client, prepared.digest, grid, segmented, stitched, advance, order)
    outcome = window.run()
    mapped = time.perf_counter() - started
    progress.end()
    progress.note("writing and verifying the products")
    seam = _complete(directory.stores, grid, outcome)
    geobox, card = prepared.source.scene.geobox, prepared.model.card
    profiles = (class_profile(geobox, card, seam, grid.halo), confidence_profile(geobox, card))
    products = write_products(client, prepared.digest, directory.path, profiles)
    total = time.perf_counter() - started
    client.unregister_worker_plugin(plugin.name)
    record = _record(prepared, outcome, products, seam)
    record["tasks"] = {
        "total": 2 * grid.size,
        "done": outcome.receipts,
        "resumed": resumed,
        "retried": outcome.retried,
    }
    fresh_pixels = grid.scene[0] * grid.scene[1] - pixels
    seconds = {"map": mapped, "export": total - mapped, "total": total}
    record["seconds"] = {**seconds, "by_step": outcome.seconds}
    record["pixels"] = fresh_pixels
    record["mpx_per_s"] = fresh_pixels / total / 1e6
    counts = products.confidence.counts
    report_run(directory.path, prepared.source, card, record, products.classes, counts)
    write_json(directory.run_file, record)
    if not settings.keep_stores and not outcome.quarantined:
        directory.remove_stores()
    return _result(directory, record, resumed)


def _complete(stores: Path, grid: TileGrid, outcome: Outcome) -> Seam:
    """Leave no core unwritten, and add up the seams of all."""
    maps = MapStore(stores / "map.zarr", grid)
    for lost in outcome.quarantined:
        if lost.stage == "stitch":
            blank = nothing_observed(grid, lost.tile)
            maps.write(lost.tile, blank.landcover, blank.confidence, blank.stats, Mark.PROVISIONAL)
    return sum((maps.read_stats(tile).seam for tile in grid.tiles()), Seam())


def _record(prepared: Prepared, outcome: Outcome, products: Products, seam: Seam) -> dict[str, Any]:
    grid, scene = prepared.plan.grid, prepared.source.scene
    return {
        "status": "partial" if outcome.quarantined else "ok",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "digest": prepared.digest,
        "identity": prepared.identity,
        "scene": {"name": scene.name, "date": scene.date.isoformat() if scene.date else None},
        "warnings": list(prepared.source.warnings),
        "tiles": {"count": grid.size, "shape": list(grid.shape), "overhead": grid.overhead},
        "workers": prepared.plan.workers,
        "quarantined": [
            {"tile": list(q.tile), "stage": q.stage, "error": q.error} for q in outcome.quarantined
        ],
        "seam": {**dataclasses.asdict(seam), "share": seam.share},
        "memory": {
            "planned_bytes": prepared.plan.worker_bytes,
            "peak_bytes": max(outcome.peak_bytes.values(), default=0),
        },
        **products.record(),
    }


def versions() -> dict[str, str]:
    """Versions of what made the products."""
    names = ("tilemap", "numpy", "zarr", "dask", "rasterio", "torch", "onnxruntime")
    found = {}
    for name in names:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return {"python": platform.python_version(), **found}


def _result(directory: RunDirectory, record: dict[str, Any], resumed: int) -> RunResult:
    path = directory.path
    return RunResult(
        record["status"], path, path / "landcover.tif", path / "confidence.tif", record, resumed
    )


def model_card(spec: str | Path) -> ModelCard:
    """Card of a model by name, folder or file."""
    return registry.resolve(spec).card
