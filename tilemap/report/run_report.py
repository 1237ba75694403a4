"""``quicklook.png`` and ``report.html`` of one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tilemap.models.card import ModelCard
from tilemap.report.html import ReportData, Throughput, write_report
from tilemap.report.quicklook import draw, png_bytes
from tilemap.stores.geotiff import SceneSource
from tilemap.stores.maps import Seam
from tilemap.stores.sidecars import ClassRow, write_bytes


def picture(source: SceneSource, landcover: Path, card: ModelCard) -> bytes:
    """The scene beside its class map, PNG."""
    palette = {c.value: c.rgb for c in card.classes}
    with source.open() as reader:
        return png_bytes(draw(reader.read, source.scene.band_names, landcover, palette))


def report_run(
    out: Path,
    source: SceneSource,
    card: ModelCard,
    record: dict[str, Any],
    classes: Sequence[ClassRow],
    percents: Mapping[str, Sequence[int]],
) -> None:
    """Write both files into the run directory.

    Args:
        record: contents of ``run.json``.
        percents: pixels per percent, 101 of them, of every raster but the class map.

    Raises:
        StoreError: if one cannot be written.
    """
    image = picture(source, out / "landcover.tif", card)
    write_bytes(out / "quicklook.png", image)
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
    data = ReportData(
        title=scene.name,
        subtitle=f"land cover by {card.name}, {record['finished']}",
        quicklook=image,
        scene=facts,
        classes=classes,
        area_note="True areas: each core's pixels at the areal scale of its centre.",
        not_observed=record["not_observed_pixels"] / (rows * cols),
        confidence_histogram=percents["confidence"],
        uncertainty={name: counts for name, counts in percents.items() if name != "confidence"},
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
