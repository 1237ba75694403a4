"""One run over a series: segment what is not, gather, register, compare, sieve, export, report."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from distributed import Client

from tilemap.changing.batch import Batch, Failed, Key, Receipt
from tilemap.changing.dates import DateInput, gather_reader, open_date
from tilemap.changing.directory import DATES, ChangeDirectory
from tilemap.changing.methods import method_of
from tilemap.changing.prepare import PreparedSeries
from tilemap.changing.products import Files, publish_all
from tilemap.changing.regions import FOLDER, join_borders, read_polygons
from tilemap.changing.registering import block_keys, block_side, register
from tilemap.changing.working import ChangePlugin, ChangeSpec, DateWork, Task
from tilemap.cluster import connect, make_flight, opened, pins, reaching, thread_count
from tilemap.comparison.qa import Qa
from tilemap.directory import digest_of, store_digest
from tilemap.errors import (
    EXIT_OK,
    EXIT_PARTIAL,
    InputChangedError,
    OutputError,
    SceneError,
    StoreError,
)
from tilemap.files import read_sealed, write_sealed
from tilemap.geometry import Tile
from tilemap.models.registry import file_sha256
from tilemap.probability import ENCODING
from tilemap.progress import Progress, Silent
from tilemap.record import versions
from tilemap.run import execute as execute_run
from tilemap.stages.change import layer_specs, nothing_known
from tilemap.stages.figures import ChangeFigures
from tilemap.stores.chunks import remove_group
from tilemap.stores.core_store import CoreStore, LayerSpec
from tilemap.stores.fingerprint import Inputs
from tilemap.stores.marks import Mark
from tilemap.stores.masks import Rule
from tilemap.stores.series import DateStore


@dataclass(frozen=True)
class ChangeResult:
    """What became of a series.

    Args:
        status: "ok", or "partial" if tiles were left out, here or at one of the dates.
        record: contents of ``run.json``.
        resumed: tasks that an earlier run of the same command had done already.
    """

    status: str
    directory: Path
    record: dict[str, Any] = field(repr=False)
    resumed: int = 0

    @property
    def change(self) -> Path:
        """The change map."""
        return self.directory / "change.tif"

    @property
    def exit_code(self) -> int:
        """0 ok, 3 partial."""
        return EXIT_OK if self.status == "ok" else EXIT_PARTIAL


def execute_series(
    prepared: PreparedSeries,
    out: Path,
    fresh: bool = False,
    progress: Progress | None = None,
    client: Client | None = None,
    allow_other_versions: bool = False,
) -> ChangeResult:
    """Run what was prepared; the same call on the same directory continues an earlier one.

    A series that lies in the directory with fewer dates is extended: what was gathered of its
    dates is kept.

    Args:
        fresh: forget an earlier series in this directory.
        client: of a cluster that is there already, which stays; by default one is started or
            joined for the scenes that are to be mapped and the series together.
        allow_other_versions: continue a run that other versions of what computes have begun.

    Raises:
        InputChangedError: if a date, a mask or a scene does not stay what it was.
        OutputError: if the directory belongs to another run or to other versions, or the disk has
            too little room.
        BusyError: if another process works on it.
        SceneMismatchError: if a date lies too far off; see ``accept_misregistration``.
        TilemapError: if nothing at all could be mapped.
    """
    told = progress or Silent()
    directory = ChangeDirectory(out, prepared.identity)
    directory.check(prepared.identity, fresh)
    finished = None if fresh else _finished(directory, prepared)
    if finished is not None:
        told.note(f"{out} holds this series already, whole; nothing to do")
        return finished
    _check_space(prepared, out)
    with directory.hold():
        directory.check(prepared.identity, fresh)
        existed, others = directory.identity_file.exists(), list[str]()
        if not fresh:
            others = directory.check_versions(prepared.versions, allow_other_versions)
        versions = prepared.versions if not others else directory.versions()
        if fresh:
            directory.clear()
            existed = False
        try:
            directory.stores.mkdir(exist_ok=True)
            directory.begin(prepared.identity, versions)
            with reaching(client) if client else connect(prepared.settings.cluster) as joined:
                inputs = _segment(prepared, out, told, joined, allow_other_versions)
                prepared = prepared.segmented(_dates(prepared, inputs))
                directory.begin(prepared.identity, versions)
                return _Run(prepared, directory, joined, told, inputs, others).run()
        except BaseException as error:
            refused = isinstance(error, SceneError)  # the command that follows is another one
            if not existed and (refused or not _anything_done(directory)):
                directory.remove_stores()
            raise
        finally:
            told.end()


def _finished(directory: ChangeDirectory, prepared: PreparedSeries) -> ChangeResult | None:
    record = read_sealed(directory.run_file)
    digest = digest_of(prepared.identity)
    if not record or record.get("digest") != digest or record.get("status") != "ok":
        return None
    digests = {name: product["sha256"] for name, product in record["products"].items()}
    digests |= record.get("shown", {})  # not in a record of an earlier version
    for name, sha256 in digests.items():
        path = directory.path / name
        if not path.is_file() or file_sha256(path) != sha256:
            return None
    return ChangeResult("ok", directory.path, record, record["tasks"]["total"])


def _anything_done(directory: ChangeDirectory) -> bool:
    """Return True if there is work that the same command can continue."""
    return (directory.path / DATES).is_dir() or any(
        path.is_file() for path in directory.stores.glob("dates/*/done/c/*/*")
    )


def _check_space(prepared: PreparedSeries, out: Path) -> None:
    place = next(p for p in (out, *out.absolute().parents) if p.exists())
    stores = out / "stores"
    lying = sum(f.stat().st_size for f in stores.rglob("*") if f.is_file())
    free = shutil.disk_usage(place).free + lying
    if prepared.disk_bytes > free:
        raise OutputError(
            f"the series may need up to {prepared.disk_bytes / 1e9:.2f} GB in {place}, which has "
            f"{free / 1e9:.2f} GB free"
        )


def _segment(
    prepared: PreparedSeries, out: Path, told: Progress, client: Client, allow_other_versions: bool
) -> list[str]:
    """Map the scenes among the inputs; the directory of each date."""
    places = []
    for fact in prepared.facts:
        if fact.scene is None:
            places.append(fact.input)
            continue
        place = out / DATES / fact.iso
        told.note(f"{fact.iso}: {fact.input}")
        place.parent.mkdir(exist_ok=True)
        result = execute_run(
            fact.scene, place, progress=told, client=client,
            allow_other_versions=allow_other_versions,
        )  # fmt: skip
        if result.status != "ok":
            told.note(f"{fact.iso}: some tiles could not be mapped; they count as not observed")
        places.append(str(place))
    return places


def _dates(prepared: PreparedSeries, inputs: Sequence[str]) -> list[DateInput]:
    """The dates as they are now.

    Raises:
        InputChangedError: if one is not what it was when the series was planned.
    """
    found = [open_date(place, fact.iso) for place, fact in zip(inputs, prepared.facts, strict=True)]
    for date, fact in zip(found, prepared.facts, strict=True):
        begun = fact.scene is not None and not fact.lacks
        if date.digest != fact.digest or (date.lacks != fact.lacks and not begun):
            raise InputChangedError(
                f"{date.path} must stay as it is during the run, it has changed; nothing was "
                "published.\nThe same command works on it as it is now"
            )
    return found


class _Run:
    """The stages of one run, one after another."""

    def __init__(
        self,
        prepared: PreparedSeries,
        directory: ChangeDirectory,
        client: Client,
        told: Progress,
        inputs: list[str],
        others: list[str],
    ) -> None:
        self.prepared, self.directory, self.client, self.told = prepared, directory, client, told
        self.inputs, self.others = inputs, others
        self.flight = make_flight(client, prepared.settings.cluster)
        self.digest = digest_of(prepared.identity)
        self.batch = Batch()
        self.resumed = 0
        dates = _dates(prepared, inputs)
        self.works = tuple(self._work(number, date) for number, date in enumerate(dates))

    def _work(self, number: int, found: DateInput) -> DateWork:
        """Open the store of a date; make it if it is not there."""
        prepared, settings = self.prepared, self.prepared.settings
        fact = prepared.facts[number]
        mask: str | None = None
        files = fact.inputs.files
        if prepared.masks:
            mask = settings.masks[number]
            files += prepared.masks[number].inputs.files
        rule = Rule.parse(settings.mask_rule) if settings.mask_rule is not None else None
        reader = gather_reader(found, prepared.geobox, mask, rule, Inputs(files))
        identity = prepared.identity
        key = digest_of({"date": identity["dates"][number], "grid": identity["geobox"],
                         "rule": settings.mask_rule, "core": settings.core,
                         "bytes": ENCODING})  # fmt: skip
        path = self.directory.stores / "dates" / f"{fact.iso}-{key[:8]}.zarr"
        if store_digest(path) != key:
            path.parent.mkdir(exist_ok=True)
            for stale in path.parent.glob(f"{fact.iso}-*.zarr"):
                remove_group(stale)
            DateStore.create(path, prepared.grid, prepared.geobox, len(prepared.classes), key)
        return DateWork(fact.iso, reader, path.absolute())

    def _confirm(self) -> None:
        """Check that dates, masks and labels are still what they were."""
        _dates(self.prepared, self.inputs)
        for work in self.works:
            work.reader.inputs.confirm()

    def run(self) -> ChangeResult:
        """All stages."""
        prepared, grid = self.prepared, self.prepared.grid
        started = time.perf_counter()
        dates = len(self.works)
        stores = [DateStore(work.store, grid) for work in self.works]
        tiles = list(grid.tiles())
        missing: list[Key] = [
            (number, *tile)
            for number, store in enumerate(stores)
            for tile in tiles
            if not store.has(tile)
        ]
        side = block_side(grid.scene)
        blocks = block_keys(grid.scene, side, dates)
        total = dates * grid.size + len(blocks) + 3 * grid.size
        self.resumed = dates * grid.size - len(missing)
        host = f"dashboard {self.client.dashboard_link}, {thread_count(self.client)} worker threads"
        self.told.note(host)
        self.told.begin(total, self.resumed, dates * grid.scene[0] * grid.scene[1])
        spec = ChangeSpec(
            f"change-{self.digest[:16]}-{uuid4().hex[:8]}-a",
            self.directory.stores.absolute(), grid, self.works,
            side, pins(prepared.settings.cluster), prepared.worker_bytes,
        )  # fmt: skip
        with opened(self.client, ChangePlugin(spec)):
            self._do(spec, "gather", missing)
            self._blank_dates(stores)
            registered = register(
                self._do(spec, "register", blocks),
                [work.iso for work in self.works],
                prepared.settings.accept_misregistration,
            )
        method = method_of(prepared, stores)
        spec = dataclasses.replace(
            spec, name=f"{spec.name[:-1]}b", method=method, moves=registered.moves,
            always=registered.always | self._hard(), mmu_px=prepared.mmu_px,
            values=tuple(c.value for c in prepared.classes),
        )  # fmt: skip
        self._change_store(registered.record())
        with opened(self.client, ChangePlugin(spec)):
            return self._compare(spec, registered.record(), started, total)

    def _compare(
        self, spec: ChangeSpec, registration: list[dict[str, Any]], started: float, total: int
    ) -> ChangeResult:
        prepared, grid = self.prepared, self.prepared.grid
        store = CoreStore(spec.stores / "change.zarr", grid)
        done = {tile for tile in grid.tiles() if store.state(tile) is Mark.DONE}
        self.resumed += len(done)
        self._do(spec, "change", [tuple(t) for t in grid.tiles() if t not in done])
        for failed in self._failed("change"):
            tile = Tile(*failed.key)
            blank = nothing_known(grid.core_window(tile).shape, len(self.works))
            store.write(tile, blank.layers, np.zeros(1), Mark.PROVISIONAL)
        (spec.stores / FOLDER).mkdir(exist_ok=True)
        self._do(spec, "survey", [tuple(t) for t in grid.tiles()])
        self._all_or_none()
        join_borders(spec.stores, grid)
        self._do(spec, "finish", [tuple(t) for t in grid.tiles()])
        self._all_or_none()
        self.told.end()
        self.told.note("writing and verifying the products")
        self._confirm()
        rows = read_polygons(spec.stores, grid)
        files: Files = publish_all(self.flight, spec, prepared, self.directory, rows)
        seconds = time.perf_counter() - started
        record = self._record(spec, files, registration, seconds, total)
        shown = len(record["warnings"])
        files.report(record)
        out = self.directory.path
        record["shown"] = {
            name: file_sha256(out / name) for name in record["files"] if (out / name).is_file()
        }
        for text in record["warnings"][shown:]:
            self.told.note(text)
        write_sealed(self.directory.run_file, record)
        return ChangeResult(record["status"], self.directory.path, record, self.resumed)

    def _record(
        self,
        spec: ChangeSpec,
        files: Files,
        registration: list[dict[str, Any]],
        seconds: float,
        total: int,
    ) -> dict[str, Any]:
        prepared, grid = self.prepared, self.prepared.grid
        pixels = grid.scene[0] * grid.scene[1]
        return {
            "status": "partial" if self.batch.failed or prepared.partial_dates else "ok",
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": versions(),
            "digest": self.digest,
            "identity": prepared.identity,
            "inputs": [
                {"day": fact.iso, "input": fact.input, "labels_only": fact.hard}
                for fact in prepared.facts
            ],
            "partial_dates": prepared.partial_dates,
            "warnings": [
                *prepared.notes, *files.notes, *_unmeasured(registration), *_uncompared(files),
                *(f"begun by other versions: {line}" for line in self.others),
            ],
            "registration": registration,
            "mmu_px": prepared.mmu_px,
            "method": {} if spec.method is None else spec.method.record(),
            "tiles": {"count": grid.size, "shape": list(grid.shape)},
            "quarantined": [
                {"stage": f.stage, "key": list(f.key), "error": f.error} for f in self.batch.failed
            ],
            "tasks": {
                "total": total,
                "done": self.batch.receipts,
                "resumed": self.resumed,
                "retried": self.batch.retried,
            },
            "memory": {
                "planned_bytes": prepared.worker_bytes, "peak_bytes": self.batch.peak_bytes,
            },
            "seconds": {"total": seconds, "by_step": self.batch.seconds},
            "pixels": pixels,
            "mpx_per_s": pixels * len(self.works) / seconds / 1e6,
            **files.record(),
        }  # fmt: skip

    def _do(self, spec: ChangeSpec, stage: str, keys: list[Key]) -> list[Receipt]:
        """One stage of all tiles; what is done moves the bar."""

        def advance(receipt: Receipt) -> None:
            size = 0
            if receipt.stage == "gather":
                size = self.prepared.grid.core_window(Tile(*receipt.key[1:])).size
            self.told.advance(receipt, size)

        return self.batch.run(self.flight, Task(spec.name), stage, keys, advance)

    def _all_or_none(self) -> None:
        """Regions cannot be joined around a core that is missing."""
        for lost in self.batch.failed:
            if lost.stage in ("survey", "finish"):
                raise StoreError(f"{lost.stage} of tile {lost.key} failed: {lost.error}")

    def _failed(self, stage: str) -> list[Failed]:
        return [failed for failed in self.batch.failed if failed.stage == stage]

    def _blank_dates(self, stores: list[DateStore]) -> None:
        """A date that could not be read somewhere was not observed there."""
        for failed in self._failed("gather"):
            tile = Tile(failed.key[1], failed.key[2])
            stores[failed.key[0]].write_blank(tile)

    def _hard(self) -> int:
        return int(Qa.HARD) if any(fact.hard for fact in self.prepared.facts) else 0

    def _change_store(self, registration: list[dict[str, Any]]) -> None:
        """The stores of the changed cores, of this series and this registration."""
        lacks = sorted(failed.key for failed in self._failed("gather"))
        digest = digest_of({"run": self.digest, "registration": registration, "lacks": lacks})
        prepared, dates = self.prepared, len(self.works)
        wanted = {
            "change.zarr": (layer_specs(dates), 1),
            "final.zarr": (
                {"code": LayerSpec("uint8"), "qa": LayerSpec("uint8")}, ChangeFigures.size(dates),
            ),
        }  # fmt: skip
        for name, (layers, figures) in wanted.items():
            path = self.directory.stores / name
            if store_digest(path) != digest:
                remove_group(path)
                CoreStore.create(path, prepared.grid, prepared.geobox, digest, layers, figures)


def _uncompared(files: Files) -> list[str]:
    if files.found.observed:
        return []
    return ["no pixel was observed at two dates, so there is nothing that could be compared"]


def _unmeasured(registration: list[dict[str, Any]]) -> list[str]:
    days = [row["date"] for row in registration if row["verdict"] == "unknown"]
    if not days:
        return []
    return [
        f"how {', '.join(days)} lie on the first date could not be measured: too little that both "
        "show; compare some edges by eye"
    ]
