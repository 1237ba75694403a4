"""The STAC item of a finished run of ``tilemap segment``: its ``run.json`` and files, retold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from tilemap.errors import StoreError
from tilemap.files import read_json
from tilemap.stores.profile_reading import read_profile
from tilemap.stores.sidecars import sidecar_names
from tilemap.stores.stac_item import Asset, ItemFacts, Moment, build_item, stamp
from tilemap.stores.stac_links import with_sources

RUN, CLASS_MAP = "run.json", "landcover.tif"


class _File(NamedTuple):
    key: str
    title: str
    roles: tuple[str, ...]


_DATA, _METADATA = ("data",), ("metadata",)
RASTERS = {
    CLASS_MAP: _File("landcover", "Land cover", _DATA),
    "confidence.tif": _File("confidence", "Probability of the class, percent", _DATA),
    "entropy.tif": _File("entropy", "Entropy of the classes, percent of the largest", _DATA),
    "margin.tif": _File("margin", "Probability of the class less that of the next, percent", _DATA),
}
"""What a run may leave, the class map always."""
OTHERS = {
    **dict(
        zip(
            sidecar_names(CLASS_MAP),
            (
                _File("aux_xml", "Names and areas of the classes, for GDAL and QGIS", _METADATA),
                _File("qml", "Style for QGIS", _METADATA),
                _File("sld", "Style for map servers (SLD)", _METADATA),
                _File("vat", "Attribute table for ArcGIS", _METADATA),
                _File("vat_cpg", "Encoding of the attribute table", _METADATA),
            ),
            strict=True,
        )
    ),
    "report.html": _File("report", "Report of the run", _METADATA),
    "quicklook.png": _File("thumbnail", "The scene beside its class map", ("thumbnail",)),
    RUN: _File("run", "What was run", _METADATA),
    "probabilities.zarr": _File("probabilities", "Probability of every class (Zarr)", _DATA),
}
"""Listed where they are there."""


def landcover_item(
    run_dir: Path,
    folder: Path | None = None,
    *,
    item_id: str = "",
    title: str = "",
    day: Moment | None = None,
    sources: Mapping[str, str] | None = None,
    properties: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The item of a finished run; the same run and arguments give the same item.

    ``datetime`` is when the scene was seen. A scene whose date nobody knows gets the moment its
    run ended, and ``tilemap:dated_by`` says so: "scene", "given" or "run".

    Args:
        run_dir: where the run lies now.
        folder: where its files and the item will lie; None for ``run_dir``.
        item_id: empty for ``landcover-<scene>-<run>``.
        title: for people; empty for one made of scene and day.
        day: when the scene was seen; None for the date that the run found.
        sources: address of what was mapped, by title: a path, a URL, a STAC item. ``run.json``
            knows the names of its inputs only, not where they lie.
        properties: more fields of the item.

    Raises:
        StoreError: if there is no finished run, or a product is not what ``run.json`` says.
    """
    record = _read_record(run_dir)
    rasters = {
        RASTERS[name].key: _raster(run_dir, name, record)
        for name in RASTERS
        if name in record["products"]
    }
    others = {
        file.key: _other(run_dir, name)
        for name, file in OTHERS.items()
        if (run_dir / name).exists()
    }
    looks = rasters["landcover"].profile
    assert looks is not None
    scene, model = record["scene"]["name"], record["identity"]["model"]["name"]
    start, dated_by = _date(record, day)
    when = "" if dated_by == "run" else f", {stamp(start)[:10]}"
    facts = ItemFacts(
        id=item_id or f"landcover-{scene}-{record['digest'][:8]}",
        title=title or f"Land cover, {scene}{when}",
        geobox=looks.geobox,
        start=start,
        description=f"Classes of {scene} by the model {model}.",
        lineage=_lineage(record),
        software={name: str(version) for name, version in record["versions"].items()},
        properties={
            **_properties(record),
            "tilemap:dated_by": dated_by,
            **(properties or {}),
        },
    )
    item = build_item(facts, {**rasters, **others}, run_dir)
    return with_sources(item, sources or {}, folder or run_dir)


def _read_record(run_dir: Path) -> dict[str, Any]:
    path = run_dir / RUN
    if not path.exists():
        raise StoreError(f"{run_dir} must hold a finished run: it has no {RUN}")
    record = read_json(path)
    if not isinstance(record, dict) or CLASS_MAP not in record.get("products", {}):
        raise StoreError(f"{path} must be of tilemap segment: it names no {CLASS_MAP}")
    return record


def _raster(run_dir: Path, name: str, record: Mapping[str, Any]) -> Asset:
    said, path = record["products"][name], run_dir / name
    try:
        size = path.stat().st_size
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}") from error
    if size != said["bytes"]:
        raise StoreError(
            f"{path} must have {said['bytes']} bytes by its {RUN}, got {size}; run it again"
        )
    file = RASTERS[name]
    return Asset(path, file.title, read_profile(path), file.roles, said["sha256"], size)


def _other(run_dir: Path, name: str) -> Asset:
    return Asset(run_dir / name, OTHERS[name].title, roles=OTHERS[name].roles)


def _date(record: Mapping[str, Any], day: Moment | None) -> tuple[Moment, str]:
    if day is not None:
        return day, "given"
    if record["scene"]["date"] is not None:
        return datetime.fromisoformat(record["scene"]["date"]), "scene"
    return datetime.fromisoformat(record["finished"]), "run"


def _lineage(record: Mapping[str, Any]) -> str:
    identity = record["identity"]
    model, grid, engine = identity["model"], identity["grid"], identity["backend"]
    inputs = ", ".join(item["name"] for item in record["inputs"])
    several = f" and {len(model['members']) - 1} more" if model["members"] else ""
    return (
        f"{inputs} segmented by {model['name']}{several} ({engine['engine']}, "
        f"{engine['precision']}) in tiles of {grid['core']} pixels with a halo of {grid['halo']}, "
        f"blended over {2 * grid['blend']}"
    )


def _properties(record: Mapping[str, Any]) -> dict[str, Any]:
    """When it was made, and what a search may ask for."""
    model, finished = record["identity"]["model"], stamp(datetime.fromisoformat(record["finished"]))
    members = [{"name": m["name"], "sha256": m["sha256"]} for m in model["members"]]
    return {
        "created": finished,
        "updated": finished,
        "tilemap:status": record["status"],
        "tilemap:run": record["digest"],
        "tilemap:model": {
            "name": model["name"],
            "sha256": model["sha256"],
            "tta": model["tta"],
            **({"members": members} if members else {}),
        },
        "tilemap:classes": [
            {key: row[key] for key in ("value", "name", "pixels", "share", "area_km2")}
            for row in record["classes"]
        ],
        "tilemap:not_observed_pixels": record["not_observed_pixels"],
        "tilemap:seam_share": _finite(record["seam"]["share"]),
    }


def _finite(share: float | None) -> float | None:
    return share if share is not None and math.isfinite(share) else None
