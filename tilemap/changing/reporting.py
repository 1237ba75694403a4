"""``report.html`` and ``item.json`` of a series, from its finished record."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tilemap.area import AREA_NOTE
from tilemap.comparison.qa import Qa
from tilemap.comparison.smoothed import P_CHANGE
from tilemap.report.change_pictures import change_picture, multiples
from tilemap.report.change_report import ChangeReport, write_change_report
from tilemap.stores.stac_item import Asset, ItemFacts, build_item, stamp
from tilemap.stores.stac_item import write_item as write_stac

if TYPE_CHECKING:
    from tilemap.changing.prepare import PreparedSeries
    from tilemap.changing.products import Files

TITLES = {
    "change": "Change map",
    "date": "Day of the last change, and the gap before it",
    "n_valid": "Dates observed",
    "n_changes": "Number of changes",
    "qa": "Notes on each pixel",
}
HECTARES = 100.0
MAGNITUDE = (
    "Length of the longest change vector of a pixel, percent of the longest there can be. It is no "
    "probability."
)


def write_page(
    folder: Path, prepared: PreparedSeries, files: Files, record: dict[str, Any]
) -> None:
    """Write ``report.html``."""
    rasters = files.rasters
    isos = [fact.iso for fact in prepared.facts]
    labels = [rasters[f"labels_{iso}"].path for iso in isos]
    classes = {c.value: c.rgb for c in prepared.classes}
    figures, found = files.figures, files.found
    count = len(prepared.classes)
    known = found.area_ha is not None
    matrix = found.area_ha if found.area_ha is not None else found.pixels
    pictures = {
        "change": change_picture(
            labels[0], labels[-1], rasters["change"].path, classes,
            files.profiles["change"].palette or {},
        ),
        "multiples": multiples(labels, isos, classes),
    }  # fmt: skip
    shares = record["found"]
    settings = record["identity"]["settings"]
    data = ChangeReport(
        title=f"Change {isos[0][:4]} to {isos[-1][:4]}",
        subtitle=f"{len(isos)} dates by {settings['method']}, {record['finished']}",
        facts=_facts(prepared, known),
        dates=isos,
        class_names=[c.name for c in prepared.classes],
        class_colors=[c.color for c in prepared.classes],
        matrix_ha=matrix.tolist(),
        areas_ha=(HECTARES * np.nan_to_num(figures.classes_km2[:, :count])).tolist(),
        changed_ha=(HECTARES * np.nan_to_num(figures.interval_km2[1:])).tolist(),
        p_change=[int(n) for n in figures.p_change],
        registration=record["registration"],
        qa={bit.name.lower(): shares[f"qa_{bit.name.lower()}"] for bit in Qa if bit.name},
        unit="ha" if known else "pixels",
        provisional_ha=HECTARES * float(figures.provisional_km2[0]) if known else None,
        area_note=AREA_NOTE if known else "",
        p_change_title=_p_change_title(prepared),
        p_change_note=MAGNITUDE if settings["method"] == "cvaps" else "",
        pictures=pictures,
        polygons=record["polygons"],
        warnings=record["warnings"],
        quarantined=[f"{q['stage']} {q['key']}: {q['error']}" for q in record["quarantined"]],
        settings={**settings, "run": record["digest"][:16]},
        model={"sha256": prepared.facts[0].model_sha256[:16]},
        versions=record["versions"],
        inputs=[f"{item['day']}: {item['input']}" for item in record["inputs"]],
        products=[(name, p["bytes"], p["sha256"]) for name, p in record["products"].items()],
    )
    write_change_report(folder / "report.html", data)


def _p_change_title(prepared: PreparedSeries) -> str:
    return P_CHANGE[prepared.settings.method].capitalize()


def _facts(prepared: PreparedSeries, known: bool) -> dict[str, object]:
    rows, cols = prepared.grid.scene
    affine, crs = prepared.geobox.affine, prepared.geobox.crs
    facts: dict[str, object] = {
        "size": f"{rows} x {cols} pixels ({rows * cols / 1e6:.1f} Mpx)",
        "pixel": f"{abs(affine.a):g} x {abs(affine.e):g} in units of the CRS",
        "minimum mapping unit": f"{prepared.settings.mmu_ha:g} ha, {prepared.mmu_px} pixels",
    }
    if crs is not None:
        facts["CRS"] = f"EPSG:{crs.epsg}" if crs.epsg else str(crs.to_wkt()).split('"')[1]
    if not known:
        facts["areas"] = "not known without a CRS; all figures are pixels"
    return facts


def write_item(
    folder: Path, prepared: PreparedSeries, files: Files, record: dict[str, Any]
) -> None:
    """Write ``item.json``: STAC, from the first date to the last."""
    isos = [fact.iso for fact in prepared.facts]
    titles = {**TITLES, "p_change": _p_change_title(prepared)}
    assets = {
        name: Asset(
            receipt.path,
            titles.get(name, f"Land cover, {name.removeprefix('labels_')}"),
            files.profiles[name],
            sha256=receipt.sha256,
            bytes=receipt.bytes,
        )
        for name, receipt in files.rasters.items()
    }
    for path in files.others:
        assets[path.stem] = Asset(path, path.name, None)
    page = folder / "report.html"
    if page.is_file():
        assets["report"] = Asset(page, "Report of the series", None, roles=("metadata",))
    finished = stamp(datetime.fromisoformat(record["finished"]))
    facts = ItemFacts(
        id=f"change-{isos[0]}-{isos[-1]}-{record['digest'][:8]}",
        title=f"Land-cover change {isos[0]} to {isos[-1]}",
        geobox=prepared.geobox,
        start=prepared.facts[0].day,
        end=prepared.facts[-1].day,
        sources={
            fact.iso: str(Path(fact.input.split(",")[0]).absolute()) for fact in prepared.facts
        },
        lineage=f"{len(isos)} dates compared by {prepared.settings.method}",
        software={name: str(version) for name, version in record["versions"].items()},
        properties={
            "created": finished,
            "updated": finished,
            "tilemap:status": record["status"],
            "tilemap:run": record["digest"],
        },
    )
    write_stac(folder / "item.json", build_item(facts, assets, folder))
