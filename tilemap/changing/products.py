"""The products of a series: rasters, tables, polygons, the report and the STAC item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from tilemap.changing.directory import ChangeDirectory
from tilemap.changing.palette import pair_of
from tilemap.changing.prepare import PreparedSeries
from tilemap.changing.profiles import change_profiles
from tilemap.changing.reporting import write_item, write_page
from tilemap.changing.tables import Transitions, transitions, write_tables
from tilemap.changing.working import ChangeSpec, run_export
from tilemap.cluster.flight import Flight, Task
from tilemap.comparison.qa import Qa
from tilemap.models.registry import file_sha256
from tilemap.products import export_all
from tilemap.record import optional
from tilemap.stages.export import ExportReceipt
from tilemap.stages.figures import ChangeFigures
from tilemap.stages.sieve import KM2, P_SUM, PIXELS, PROVISIONAL, SLIVER, SUMS, ChangePolygon
from tilemap.stores.cog import RasterProfile, partial_path, publish
from tilemap.stores.core_store import CoreStore
from tilemap.stores.polygons import write_polygons
from tilemap.stores.sidecars import class_rows, write_sidecars

POLYGONS = "changes.gpkg"
COLUMNS = (
    "id", "from", "to", "code", "date", "earliest", "latest", "area_ha", "pixels", "p_change",
    "provisional", "sliver",
)  # fmt: skip
"""Of a polygon: the place of its first pixel; the day of most of its pixels, and the first and last
of any; mean percent of change; shares of provisional pixels and of slivers."""


@dataclass(frozen=True)
class Files:
    """What a series left.

    Args:
        folder: where.
        rasters: by name without ``.tif``, the change map first.
        profiles: likewise.
        found: from which class to which.
        figures: of all cores together.
        polygons: how many.
        others: further files.
        notes: for people.
    """

    folder: Path
    prepared: PreparedSeries
    rasters: dict[str, ExportReceipt]
    profiles: dict[str, RasterProfile]
    found: Transitions
    figures: ChangeFigures
    polygons: int
    others: tuple[Path, ...]
    notes: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """For ``run.json``."""
        products = {
            receipt.path.name: {"bytes": receipt.bytes, "sha256": receipt.sha256}
            for receipt in self.rasters.values()
        }
        for path in self.others:
            products[path.name] = {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        return {
            "products": products,
            "transitions": self._transitions(),
            "found": self.shares(),
            "polygons": self.polygons,
            "files": self._sidecars(),
        }

    def _transitions(self) -> list[dict[str, Any]]:
        found, area = self.found, self.found.area_ha
        return [
            {
                "from": before,
                "to": after,
                "pixels": int(found.pixels[i, j]),
                "area_ha": None if area is None else float(area[i, j]),
                "share": float(found.shares[i, j]),
            }
            for i, before in enumerate(found.names)
            for j, after in enumerate(found.names)
        ]

    def _sidecars(self) -> list[str]:
        """Further files of ours, for ``--fresh``."""
        ours = {"report.html", "item.json"}
        for path in self.folder.iterdir():
            if any(path.name.startswith(name + ".") for name in self.rasters):
                ours.add(path.name)
        return sorted(ours)

    def shares(self) -> dict[str, float]:
        """Shares of pixels, 0..1: of all, of the observed, and of those that changed."""
        figures, found = self.figures, self.found
        every = float(figures.pixels.sum()) or 1.0
        observed = found.observed or 1.0
        changed = float(found.pixels.sum() - np.trace(found.pixels))
        bits = dict(zip([bit.name.lower() for bit in Qa if bit.name], figures.qa, strict=True))
        return {
            "not_observed": float(figures.pixels[0]) / every,
            "changed": changed / observed,
            "changed_more_than_once": float(figures.times[2:].sum()) / observed,
            "provisional": float(bits["provisional"]) / observed,
            **{f"qa_{name}": float(count) / every for name, count in bits.items()},
        }

    def report(self, record: dict[str, Any]) -> None:
        """Write ``report.html`` and ``item.json`` from the finished record.

        What cannot be made is a warning of the record, as the products are there.
        """
        with optional("the report", record["warnings"]):
            write_page(self.folder, self.prepared, self, record)
        with optional("the STAC item", record["warnings"]):
            write_item(self.folder, self.prepared, self, record)


def publish_all(
    flight: Flight[Any],
    spec: ChangeSpec,
    prepared: PreparedSeries,
    directory: ChangeDirectory,
    rows: Sequence[ChangePolygon],
) -> Files:
    """Export the rasters on the workers, then publish everything together, sidecars first.

    Args:
        flight: the window; empty.
        rows: the polygons.

    Raises:
        StoreError: if one cannot be written or does not read back as it should.
        UnavailableError: if the connection to the scheduler is lost, or nobody is left.
    """
    out, names = directory.path, [c.name for c in prepared.classes]
    isos = [fact.iso for fact in prepared.facts]
    figures = _figures(spec, prepared)
    tags = {"TILEMAP_DATES": ",".join(isos), "TILEMAP_METHOD": prepared.settings.method}
    profiles = change_profiles(
        prepared.geobox, prepared.classes, isos, tags, prepared.settings.method
    )
    rasters = _export(flight, spec, out, profiles)
    found = transitions(names, figures.pixels.tolist(), figures.km2.tolist())
    others = list(write_tables(out, found, isos, figures.classes_km2))
    polygons = out / POLYGONS
    shapes = [row.shape for row in rows]
    write_polygons(polygons, shapes, _columns(rows, prepared), prepared.geobox)
    others.append(polygons)
    for name, receipt in rasters.items():
        profile = profiles[name]
        if profile.palette is not None:
            write_sidecars(receipt.path, class_rows(profile, receipt.counts, receipt.areas_km2))
        publish(partial_path(receipt.path), receipt.path)
    return Files(out, prepared, rasters, profiles, found, figures, len(rows), tuple(others))


def _columns(rows: Sequence[ChangePolygon], prepared: PreparedSeries) -> dict[str, list[Any]]:
    """Attributes of the polygons by name."""
    names, isos = [c.name for c in prepared.classes], [fact.iso for fact in prepared.facts]
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for row in rows:
        before, after = pair_of(row.code, len(names))
        by_date = row.sums[SUMS:]
        seen = np.flatnonzero(by_date)
        pixels = row.sums[PIXELS]
        values = (
            row.key, names[before], names[after], row.code, isos[int(by_date.argmax())],
            isos[int(seen[0])], isos[int(seen[-1])], round(float(row.sums[KM2]) * 100, 4),
            int(pixels), round(float(row.sums[P_SUM] / pixels), 2),
            round(float(row.sums[PROVISIONAL] / pixels), 4),
            round(float(row.sums[SLIVER] / pixels), 4),
        )  # fmt: skip
        for name, value in zip(COLUMNS, values, strict=True):
            columns[name].append(value)
    return columns


def _figures(spec: ChangeSpec, prepared: PreparedSeries) -> ChangeFigures:
    store = CoreStore(spec.stores / "final.zarr", prepared.grid)
    dates = len(prepared.facts)
    total = sum(
        (store.read_figures(tile) for tile in prepared.grid.tiles()),
        np.zeros(ChangeFigures.size(dates)),
    )
    return ChangeFigures.unpack(total, dates)


def _export(
    flight: Flight[Any], spec: ChangeSpec, out: Path, profiles: dict[str, RasterProfile]
) -> dict[str, ExportReceipt]:
    tasks = [
        Task(
            name, (run_export, spec.name, name, profile, (out / f"{name}.tif").absolute()),
            key=f"export-{name}-{spec.name}-{uuid4().hex[:8]}",
        )
        for name, profile in profiles.items()
    ]  # fmt: skip
    return export_all(flight, tasks)
