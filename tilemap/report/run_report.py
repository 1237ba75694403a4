"""``quicklook.png`` and ``report.html`` of one run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilemap.area import AREA_NOTE
from tilemap.errors import TilemapError
from tilemap.geometry import Window
from tilemap.models.card import ModelCard
from tilemap.report.html import ReportData, Throughput, write_report
from tilemap.report.quicklook import draw, png_bytes
from tilemap.stores.geotiff import SceneSource
from tilemap.stores.maps import Seam
from tilemap.stores.sidecars import ClassRow, write_bytes


def write_quicklook(out: Path, source: SceneSource, card: ModelCard) -> bytes:
    """Draw the scene beside its class map, and write the PNG into the run directory.

    Raises:
        TilemapError: if the scene cannot be opened, or the picture cannot be written.
    """
    palette = {c.value: c.rgb for c in card.classes}
    with source.open() as reader:

        def read(window: Window) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
            try:
                return reader.read(window)
            except TilemapError:  # a damaged block; its tiles are named in the report
                count = len(source.scene.bands)
                return np.zeros((count, *window.shape)), np.zeros(window.shape, np.bool_)

        names = source.scene.band_names
        image = png_bytes(draw(read, names, out / "landcover.tif", palette))
    write_bytes(out / "quicklook.png", image)
    return image


def recorded_rows(card: ModelCard, record: Mapping[str, Any]) -> tuple[ClassRow, ...]:
    """Rebuild the table of classes of a run from its record."""
    colors = {c.value: c.rgb for c in card.classes}
    return tuple(ClassRow(color=colors[row["value"]], **row) for row in record["classes"])


def report_run(
    out: Path,
    source: SceneSource,
    card: ModelCard,
    record: dict[str, Any],
    image: bytes,
) -> None:
    """Write ``report.html`` into the run directory.

    Args:
        record: contents of ``run.json``.
        image: of ``write_quicklook``; empty if there is none.

    Raises:
        StoreError: if it cannot be written.
    """
    scene, identity = source.scene, record["identity"]
    rows, cols = scene.shape
    affine = scene.geobox.affine
    facts: dict[str, object] = {
        "size": f"{rows} x {cols} pixels ({rows * cols / 1e6:.1f} Mpx)",
        "bands": ", ".join(scene.band_names),
        "CRS": "none" if scene.geobox.crs is None else _crs_name(scene.geobox.crs),
        "pixel": f"{abs(affine.a):g} x {abs(affine.e):g} in units of the CRS",
    }
    if scene.date is not None:
        facts["date"] = scene.date.isoformat()
    grid, seconds, tasks = identity["grid"], record["seconds"], record["tasks"]
    seam, memory = record["seam"], record["memory"]
    percents, rows_of_classes = dict(record["percents"]), recorded_rows(card, record)
    data = ReportData(
        title=scene.name,
        subtitle=f"land cover by {card.name}, {record['finished']}",
        quicklook=image,
        scene=facts,
        classes=rows_of_classes,
        area_note=AREA_NOTE if any(row.area_km2 is not None for row in rows_of_classes) else "",
        not_observed=record["not_observed_pixels"] / (rows * cols),
        confidence_histogram=percents.pop("confidence"),
        uncertainty=percents,
        seam=Seam(seam["pixels"], seam["differ"], seam["largest"]),
        throughput=Throughput(
            pixels=record["pixels"],
            seconds=seconds["total"],
            tiles=tasks["done"] // 2,
            workers=record["workers"],
            resumed=tasks["resumed"] // 2,
        ),
        stages={**seconds["by_step"], "export": seconds["export"]},
        settings={
            "core, halo, blend": f"{grid['core']}, {grid['halo']}, {grid['blend']} pixels",
            "patch pixels per scene pixel": f"{record['tiles']['overhead']:.2f}",
            **identity["backend"],
            **_several(record),
            "memory of a worker": f"{memory['peak_bytes'] / 2**20:.0f} MiB at most, "
            f"{memory['planned_bytes'] / 2**20:.0f} planned",
            "run": record["digest"][:16],
        },
        model={
            "name": card.name,
            "about": card.description,
            "licence": card.license,
            "weights sha256": card.sha256[:16],
        },
        domain=record["domain"],
        versions=record["versions"],
        inputs=[f"{item['name']}" for item in record["inputs"]],
        products=[(name, p["bytes"], p["sha256"]) for name, p in record["products"].items()],
        warnings=record["warnings"],
        quarantined=[
            f"tile ({q['tile'][0]}, {q['tile'][1]}), {q['stage']}: {q['error']}"
            for q in record["quarantined"]
        ],
    )
    write_report(out / "report.html", data)


def _several(record: dict[str, Any]) -> dict[str, object]:
    """How often a patch is looked at, where it is more than once."""
    if record["forwards"] == 1:
        return {}
    model = record["identity"]["model"]
    facts: dict[str, object] = {"augmentation": model["tta"], "forwards": record["forwards"]}
    if model["members"]:
        facts["models"] = [f"{m['name']} {m['sha256'][:16]}" for m in model["members"]]
    return facts


def _crs_name(crs: Any) -> str:
    epsg = crs.epsg
    return f"EPSG:{epsg}" if epsg else str(crs.to_wkt()).split('"')[1]
