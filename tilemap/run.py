"""One run of the whole pipeline: check, tile, segment, stitch, export, report."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distributed import Client

from tilemap.cluster import connect, make_flight, opened, pins, reaching, route_of, thread_count
from tilemap.cluster.shipping import seed
from tilemap.directory import RunDirectory, store_digest
from tilemap.errors import EXIT_OK, EXIT_PARTIAL, OutputError, StoreError
from tilemap.files import read_sealed, storing, write_sealed
from tilemap.geometry import Tile, TileGrid
from tilemap.models import registry
from tilemap.prepare import Prepared
from tilemap.products import make_profiles, write_products
from tilemap.progress import Progress, Silent
from tilemap.record import make_record, optional
from tilemap.report.run_report import recorded_rows, report_run, write_quicklook
from tilemap.stages.stitch import nothing_observed
from tilemap.stores.chunks import DamagedStoreError, ask_each, remove_group, snapshot
from tilemap.stores.maps import MapStore, Seam
from tilemap.stores.marks import Mark
from tilemap.stores.predictions import PredictionStore
from tilemap.stores.probabilities import FILE as PROBABILITIES
from tilemap.stores.probabilities import ProbabilityStore, StoredClass
from tilemap.stores.remote.claim import check_claim, claim, claimed, is_damaged
from tilemap.stores.remote.fetch import fetch_folder
from tilemap.stores.remote.place import Place, told
from tilemap.stores.remote.publish import put_folder
from tilemap.stores.sidecars import write_sidecars
from tilemap.stores.tiles import TileStore
from tilemap.tasks import Outcome, TaskWindow, Work
from tilemap.worker import Receipt, RunPlugin, RunSpec, peak_memory

SHOWN = ("quicklook.png", "report.html")
"""What only shows a run."""


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
    def uncertainty(self) -> dict[str, Path]:
        """The rasters of uncertainty that were asked for, by measure."""
        names = self.record["identity"].get("uncertainty", [])
        return {name: self.directory / f"{name}.tif" for name in names}

    @property
    def exit_code(self) -> int:
        """0 ok, 3 partial."""
        return EXIT_OK if self.status == "ok" else EXIT_PARTIAL


def execute(
    prepared: Prepared,
    out: Path,
    fresh: bool = False,
    progress: Progress | None = None,
    order: Iterable[Tile] | None = None,
    client: Client | None = None,
    allow_other_versions: bool = False,
) -> RunResult:
    """Run what was prepared; the same call on the same directory continues an earlier one.

    Args:
        fresh: forget an earlier run in this directory, whosever it was.
        order: in which order tiles are segmented; the result does not depend on it.
        client: of a cluster that is there already, which stays; by default one is started or
            joined for this run alone.
        allow_other_versions: continue a run that other versions of what computes have begun.

    Raises:
        InputChangedError: if a file of the scene does not stay what it was; nothing is published.
        OutputError: if the directory belongs to another run or to other versions, the disk has
            too little room, or products cannot be sent where they were to go.
        BusyError: if another process works on it.
        UnavailableError: if no cluster can be had.
        TilemapError: if no tile at all could be mapped.
    """
    progress = progress or Silent()
    settings = prepared.settings
    directory = RunDirectory(out, settings.allow)
    directory.check(prepared.identity, fresh)
    finished = None if fresh else _finished(directory, prepared)
    if finished is not None:
        if not settings.keep_stores:
            directory.remove_stores()  # what a kill in the middle of removing left
        _mend(directory, prepared, finished.record)
        progress.note(f"{out} holds this run already, whole; nothing to do")
        _deliver(prepared, directory, progress)
        return finished
    _check_space(prepared, out)
    with directory.hold():
        directory.check(prepared.identity, fresh)  # again: another run may have come in between
        others = [] if fresh else directory.check_versions(prepared.versions, allow_other_versions)
        existed = directory.identity_file.exists()
        if existed and not fresh and is_damaged(directory.stores):
            progress.note("what says where the stores lie is damaged; they are made again")
            directory.remove_stores()
            existed = False
        if existed and not fresh:
            check_claim(directory.stores, settings.stores, settings.allow)
        done = Outcome()
        try:
            with reaching(client) if client else connect(settings.cluster) as joined:
                if fresh:
                    directory.clear()
                    existed = False
                _create_stores(directory, prepared)
                result = _execute(prepared, directory, joined, progress, order, done, others)
            _deliver(prepared, directory, progress)
            return result
        except BaseException:
            if not existed and done.receipts == 0:
                directory.remove_probabilities()
                with suppress(OutputError):  # what cannot be removed now is by the next command
                    directory.remove_stores()
            raise
        finally:
            progress.end()


def _finished(directory: RunDirectory, prepared: Prepared) -> RunResult | None:
    record = read_sealed(directory.run_file)
    if not record or record.get("digest") != prepared.digest or record.get("status") != "ok":
        return None
    for name, product in record["products"].items():
        if not _is_same(directory.path / name, product["sha256"]):
            return None
    if prepared.settings.probabilities:
        kept = directory.path / PROBABILITIES
        try:
            if not ProbabilityStore(kept).verify():
                return None
        except DamagedStoreError:
            return None
    return _result(directory, record, resumed=record["tasks"]["total"])


def _deliver(prepared: Prepared, directory: RunDirectory, progress: Progress) -> None:
    """Send the products where they are to go too; what is there already stays."""
    target = prepared.settings.publish
    if target is None:
        return
    files = [p.name for p in directory.path.iterdir() if p.is_file() and p.suffix != ".partial"]
    sent = put_folder(directory.path, str(target), files, target.allow.entries)
    many = sum(receipt.sent for receipt in sent)
    progress.note(f"{len(sent)} files lie in {target}, {many} of them sent now")


def _check_space(prepared: Prepared, out: Path) -> None:
    plan, elsewhere = prepared.plan, prepared.settings.stores is not None
    needed = plan.disk_bytes
    if elsewhere and not prepared.settings.probabilities:  # which come here in the end
        needed = plan.product_bytes
    place = next(p for p in (out, *out.absolute().parents) if p.exists())
    lying = sum(
        f.stat().st_size
        for name in ("stores", PROBABILITIES)
        for f in (out / name).rglob("*")
        if f.is_file()
    )
    free = shutil.disk_usage(place).free + lying
    if needed > free:
        raise OutputError(
            f"the run may need up to {needed / 1e9:.2f} GB in {place}, which has "
            f"{free / 1e9:.2f} GB free; less if the stores are not kept"
        )


def _places(directory: RunDirectory) -> tuple[Place, Place]:
    """Where the stores of a run lie, and where that of its probabilities does."""
    found = claimed(directory.stores, directory.allow)
    if found is None:
        return directory.stores.absolute(), (directory.path / PROBABILITIES).absolute()
    return found[0], found[0] / PROBABILITIES


def _create_stores(directory: RunDirectory, prepared: Prepared) -> None:
    stores, digest, grid = directory.stores, prepared.digest, prepared.plan.grid
    scene, card = prepared.source.scene, prepared.model.card
    wanted = prepared.settings.probabilities
    with storing(f"cannot create the stores in {stores}"):
        begun = directory.identity_file.exists()
        if not begun:
            directory.remove_probabilities()
            directory.remove_stores()
            stores.mkdir()
            if prepared.settings.stores is not None:
                claim(stores, prepared.settings.stores, digest)
        place, kept_in = _places(directory)
        kept = prepared.settings.uncertainty
        made: list[tuple[Place, Callable[[Place], object]]] = [
            (
                place / "predictions.zarr",
                lambda path: PredictionStore.create(
                    path, grid, len(card.classes), digest, kept, wanted
                ),
            ),
            (
                place / "map.zarr",
                lambda path: MapStore.create(path, grid, scene.geobox, digest, kept),
            ),
        ]
        tiles = place / "tiles.zarr"
        if tiles.exists() if begun else prepared.settings.keep_stores:
            made.insert(0, (tiles, lambda path: TileStore.create(path, scene, grid, digest)))
        if wanted:
            made.append((kept_in, lambda path: _create_probabilities(path, prepared)))
        local = isinstance(place, Path)
        with nullcontext() if local else told(place, "make the stores in", StoreError):
            for path, create in made:
                # One that is damaged or that somebody took away: its tiles are done again.
                if store_digest(path) != digest:
                    remove_group(path)
                    create(path)
        if read_sealed(directory.identity_file) is None:
            directory.begin(prepared.identity, prepared.versions)


def _create_probabilities(place: Place, prepared: Prepared) -> None:
    scene, card = prepared.source.scene, prepared.model.card
    about = {
        "digest": prepared.digest,
        "model": card.name,
        "model_sha256": prepared.model.digest,
        "scene": scene.name,
        "date": None if scene.date is None else scene.date.isoformat(),
    }
    kinds = tuple(StoredClass(c.value, c.name, c.color) for c in card.classes)
    ProbabilityStore.make(place, prepared.plan.grid, scene.geobox, kinds, about)


def _resume(stores: Place, grid: TileGrid, kept_in: Place | None) -> tuple[set[Tile], set[Tile]]:
    """Tiles that need no segmenting, and tiles that need no stitching any more."""
    predictions, maps = (
        PredictionStore(snapshot(stores / "predictions.zarr"), grid),
        MapStore(snapshot(stores / "map.zarr"), grid),
    )
    kept = None if kept_in is None else ProbabilityStore(snapshot(kept_in))
    tiles = list(grid.tiles())
    done = zip(tiles, ask_each(stores, predictions.has, tiles), strict=True)
    segmented = {tile for tile, is_done in done if is_done}

    def stitched(tile: Tile) -> bool:
        # What is taken over goes into the products unseen, so all of it is read.
        return maps.verify(tile) and (kept is None or kept.verify_core(tile))

    whole = [tile for tile in tiles if segmented.issuperset((tile, *grid.neighbours(tile)))]
    done = zip(whole, ask_each(stores, stitched, whole), strict=True)
    return segmented, {tile for tile, is_done in done if is_done}


def _execute(
    prepared: Prepared,
    directory: RunDirectory,
    client: Client,
    progress: Progress,
    order: Iterable[Tile] | None,
    done: Outcome,
    others: list[str],
) -> RunResult:
    settings, grid = prepared.settings, prepared.plan.grid
    progress.note(f"dashboard {client.dashboard_link}, {thread_count(client)} worker threads")
    place, kept_in = _places(directory)
    keep_tiles = (place / "tiles.zarr").exists()
    backend = dataclasses.replace(settings.backend, device=prepared.plan.device)
    route = route_of(client)
    spec = RunSpec(
        prepared.digest, place, prepared.source, prepared.inputs, grid, prepared.model, backend,
        keep_tiles, pins(settings.cluster), prepared.plan.worker_bytes,
        kept_in if settings.probabilities else None, route.gpu,
        ship=not settings.cluster.embedded,
    )  # fmt: skip
    table = settings.cluster.table
    said = settings.backend.device != "auto" or (table is not None and table.device != "auto")
    if route.gpu and backend.device == "cpu" and not said:
        progress.note(
            "some workers declare a GPU and the run goes on the CPU of this plan; for the GPUs say "
            '`device` cuda, or device = "cuda" in [cluster]'
        )
    if spec.ship:
        seed(client, spec.files)
    with opened(client, RunPlugin(spec)):
        kept = None if spec.probabilities is None else ProbabilityStore(spec.probabilities)
        segmented, stitched = _resume(place, grid, spec.probabilities)
        resumed = len(segmented) + len(stitched)
        started = time.perf_counter()
        pixels = sum(grid.core_window(tile).size for tile in segmented)
        ahead = keep_tiles and route.tile
        total = 2 * grid.size + ahead * (grid.size - len(segmented))
        progress.begin(total, resumed, grid.scene[0] * grid.scene[1])

        def advance(receipt: Receipt) -> None:
            done.receipts += 1
            mapped = grid.core_window(receipt.tile).size if receipt.stage == "segment" else 0
            progress.advance(receipt, mapped)

        before = client.run(time.process_time, on_error="ignore")
        flight = make_flight(client, settings.cluster, route)
        work = Work(
            spec.name, grid, frozenset(segmented), frozenset(stitched),
            None if order is None else tuple(order), ahead,
        )  # fmt: skip
        outcome = TaskWindow(flight, work, advance).run()
        mapped = time.perf_counter() - started
        progress.end()
        prepared.inputs.confirm()
        progress.note("writing and verifying the products")
        seam = _complete(place, grid, outcome, kept)
        geobox, card = prepared.source.scene.geobox, prepared.model.card
        profiles = make_profiles(geobox, card, seam, grid.halo, settings.uncertainty)
        here = None if isinstance(place, Path) else MapStore(place / "map.zarr", grid)
        products = write_products(flight, spec.name, directory.path, profiles, here)
        if kept is not None and not isinstance(kept_in, Path):
            fetch_folder(kept_in, directory.path / PROBABILITIES)
        spent = time.perf_counter() - started
        after = client.run(time.process_time, on_error="ignore")
        # A worker that died takes its figure along; one that joined began at 0.
        processor = sum(seconds - before.get(name, 0.0) for name, seconds in after.items())
        peak = _peak(client, outcome)
    record = make_record(prepared, outcome, products, seam)
    record["warnings"] += [f"begun by other versions: {line}" for line in others]
    record["memory"] = {"planned_bytes": prepared.plan.worker_bytes, "peak_bytes": peak}
    record["tasks"] = {
        "total": total,
        "done": outcome.receipts,
        "resumed": resumed,
        "retried": outcome.retried,
    }
    record["by_worker"] = {name: dict(did) for name, did in sorted(outcome.by_worker.items())}
    fresh_pixels = grid.scene[0] * grid.scene[1] - pixels
    seconds = {"map": mapped, "export": spent - mapped, "total": spent, "processor": processor}
    record["seconds"] = {**seconds, "by_step": outcome.seconds}
    record["pixels"] = fresh_pixels
    record["mpx_per_s"] = fresh_pixels / spent / 1e6
    _show(directory.path, prepared, record)
    for text in record["warnings"][len(prepared.warnings) :]:
        progress.note(f"warning: {text}")
    write_sealed(directory.run_file, record)
    if not settings.keep_stores and not outcome.quarantined:
        directory.remove_stores()
    return _result(directory, record, resumed)


def _show(out: Path, prepared: Prepared, record: dict[str, Any]) -> None:
    """Write preview and report; what cannot be made is a warning, as the products are there."""
    card, image = prepared.model.card, b""
    with optional("the preview", record["warnings"]):
        image = write_quicklook(out, prepared.source, card)
    with optional("the report", record["warnings"]):
        report_run(out, prepared.source, card, record, image)
    record["shown"] = {
        name: registry.file_sha256(out / name) for name in SHOWN if (out / name).is_file()
    }


def _mend(directory: RunDirectory, prepared: Prepared, record: dict[str, Any]) -> None:
    """Make again what lies beside the products of a finished run, where it is not what it was."""
    out = directory.path
    rows = recorded_rows(prepared.model.card, record)
    write_sidecars(out / "landcover.tif", rows)
    shown = record.get("shown", {})  # not in a record of an earlier version
    if any(not _is_same(out / name, sha256) for name, sha256 in shown.items()):
        _show(out, prepared, record)
        write_sealed(directory.run_file, record)


def _is_same(path: Path, sha256: str) -> bool:
    return path.is_file() and registry.file_sha256(path) == sha256


def _peak(client: Client, outcome: Outcome) -> int:
    """Largest resident memory of any worker, in bytes; one that was lost has left receipts."""
    now = client.run(peak_memory, on_error="ignore")
    return max([*outcome.peak_bytes.values(), *now.values()], default=0)


def _complete(
    stores: Place, grid: TileGrid, outcome: Outcome, kept: ProbabilityStore | None
) -> Seam:
    """Leave no core unwritten, and add up the seams of all."""
    maps = MapStore(stores / "map.zarr", grid)
    for lost in outcome.quarantined:
        if lost.stage == "stitch":
            blank = nothing_observed(grid, lost.tile, maps.uncertainty)
            maps.write(lost.tile, blank.layers, blank.stats, Mark.PROVISIONAL)
            if kept is not None:
                kept.write_blank(lost.tile)
    figures = ask_each(stores, maps.read_stats, grid.tiles())
    return sum((stats.seam for stats in figures), Seam())


def _result(directory: RunDirectory, record: dict[str, Any], resumed: int) -> RunResult:
    path = directory.path
    return RunResult(
        record["status"], path, path / "landcover.tif", path / "confidence.tif", record, resumed
    )
