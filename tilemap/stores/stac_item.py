"""A STAC item beside the products: what they are, where, of when, made of what.

STAC 1.1 with the extensions projection, raster, classification, processing and file; addresses are
relative to the item, so the folder can be moved.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

from odc.geo.geobox import GeoBox
from pyproj import CRS

from tilemap.area import CellArea
from tilemap.errors import StoreError
from tilemap.files import open_file
from tilemap.geometry import Window
from tilemap.stores.footprint import footprint
from tilemap.stores.grids import apply
from tilemap.stores.raster_profile import RasterProfile
from tilemap.stores.sidecars import write_text
from tilemap.stores.stac_links import address, source_links

VERSION = "1.1.0"
_BASE = "https://stac-extensions.github.io"
EXTENSIONS = {
    "proj": f"{_BASE}/projection/v2.0.0/schema.json",
    "raster": f"{_BASE}/raster/v2.0.0/schema.json",
    "classification": f"{_BASE}/classification/v2.0.0/schema.json",
    "processing": f"{_BASE}/processing/v1.2.0/schema.json",
    "file": f"{_BASE}/file/v2.1.0/schema.json",
}
"""By the prefix of their fields."""
COG = "image/tiff; application=geotiff; profile=cloud-optimized"
MEDIA_TYPES = {
    ".tif": "image/tiff; application=geotiff",
    ".gpkg": "application/geopackage+sqlite3",
    ".csv": "text/csv",
    ".html": "text/html",
    ".json": "application/json",
    ".png": "image/png",
    ".xml": "application/xml",
    ".qml": "application/xml",
    ".sld": "application/xml",
    ".dbf": "application/x-dbf",
    ".cpg": "text/plain",
    ".zarr": "application/vnd+zarr",
}
UNITS = {"percent": "%", "days": "d"}
"""UDUNITS names of what stands in a product's tag UNITS."""
Moment = date | datetime


@dataclass(frozen=True)
class Asset:
    """One file of an item.

    Args:
        path: where it lies, beside the item or below it.
        title: for people.
        profile: of a raster; None for any other file.
        roles: what it is for: "data", "metadata", "overview".
        sha256: of the file; None has it computed. A folder (Zarr) has none.
        bytes: size likewise.
    """

    path: Path
    title: str
    profile: RasterProfile | None = None
    roles: tuple[str, ...] = ("data",)
    sha256: str | None = None
    bytes: int | None = None


@dataclass(frozen=True)
class ItemFacts:
    """What an item says of all its files.

    Args:
        id: of the item.
        title: for people.
        geobox: of the rasters.
        start: first moment seen; a day begins at 00:00 UTC.
        end: last moment; a day ends at 23:59:59 UTC. None where there is one moment only.
        description: for people; empty leaves it out.
        sources: address of each thing it was made of, by title; a path, or a URL.
        lineage: how it was made, one paragraph.
        software: version by name.
        properties: more fields of the item.

    Raises:
        StoreError: if the end lies before the start.
    """

    id: str
    title: str
    geobox: GeoBox
    start: Moment
    end: Moment | None = None
    description: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)
    lineage: str = ""
    software: Mapping[str, str] = field(default_factory=dict)
    properties: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.end is not None and _moment(self.end, last=True) < _moment(self.start):
            raise StoreError(f"an item must not end before it starts: {self.start}, {self.end}")


def build_item(facts: ItemFacts, assets: Mapping[str, Asset], folder: Path) -> dict[str, Any]:
    """The item as plain JSON; the same facts and files give the same item.

    Args:
        facts: of the whole.
        assets: by key.
        folder: where the item will lie.

    Raises:
        StoreError: if a file is missing or cannot be read.
    """
    where = footprint(facts.geobox)
    properties = _properties(facts)
    described = {key: _asset(asset, folder) for key, asset in assets.items()}
    used = {key.split(":")[0] for fields in (properties, *described.values()) for key in fields}
    item: dict[str, Any] = {
        "type": "Feature",
        "stac_version": VERSION,
        "stac_extensions": [url for prefix, url in EXTENSIONS.items() if prefix in used],
        "id": facts.id,
        "geometry": where.geometry,
        "properties": properties,
        "links": source_links(facts.sources, folder),
        "assets": described,
    }
    if where.bbox is not None:
        item["bbox"] = list(where.bbox)
    return item


def write_item(path: Path, item: Mapping[str, Any]) -> None:
    """Write an item whole or not at all.

    Raises:
        StoreError: if it cannot be written.
    """
    write_text(path, json_text(item))


def json_text(value: Mapping[str, Any]) -> str:
    """A file of the catalog as text; equal values give equal text."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def stamp(moment: Moment, last: bool = False) -> str:
    """A moment as STAC writes it, in UTC; of a day its begin, or its last second."""
    return _stamp(_moment(moment, last))


def multihash(sha256: str) -> str:
    """A digest as the file extension writes it: function 0x12 (sha2-256), 0x20 bytes, digest."""
    return f"1220{sha256}"


def measure_file(path: Path) -> tuple[str, int]:
    """SHA-256 and size in bytes of a file.

    Raises:
        StoreError: if it cannot be read.
    """
    try:
        with open_file(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}") from error


def _properties(facts: ItemFacts) -> dict[str, Any]:
    properties: dict[str, Any] = {"title": facts.title}
    if facts.description:
        properties["description"] = facts.description
    if facts.end is None:
        properties["datetime"] = _stamp(_moment(facts.start))
    else:
        properties["datetime"] = None
        properties["start_datetime"] = _stamp(_moment(facts.start))
        properties["end_datetime"] = _stamp(_moment(facts.end, last=True))
    metres = _metres(facts.geobox)
    if metres is not None:
        properties["gsd"] = metres
    properties.update(_projection(facts.geobox))
    if facts.lineage:
        properties["processing:lineage"] = facts.lineage
    if facts.software:
        properties["processing:software"] = dict(facts.software)
    return {**properties, **facts.properties}


def _moment(moment: Moment, last: bool = False) -> datetime:
    if isinstance(moment, datetime):
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return datetime.combine(moment, time(23, 59, 59) if last else time(), UTC)


def _stamp(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def _metres(geobox: GeoBox) -> float | None:
    """Side of a square as large as the mean pixel; None where it is not known."""
    area = CellArea(geobox)
    rows, cols = (int(n) for n in geobox.shape)
    km2 = area.mean_km2(Window(0, 0, rows, cols)) if area.known else math.nan
    return float(f"{1000 * math.sqrt(km2):.6g}") if math.isfinite(km2) and km2 > 0 else None


def _projection(geobox: GeoBox) -> dict[str, Any]:
    rows, cols = (int(n) for n in geobox.shape)
    affine = geobox.affine
    fields: dict[str, Any] = {"proj:code": None}
    if geobox.crs is not None:
        crs = CRS(geobox.crs.to_wkt())
        known = crs.to_authority(min_confidence=100)
        if known is not None:
            fields["proj:code"] = ":".join(known)
        else:
            fields["proj:wkt2"] = crs.to_wkt()
    corners = [apply(affine, col, row) for row in (0, rows) for col in (0, cols)]
    xs, ys = zip(*corners, strict=True)
    return {
        **fields,
        "proj:shape": [rows, cols],
        "proj:transform": [float(v) for v in tuple(affine)[:6]],
        "proj:bbox": [float(v) for v in (min(xs), min(ys), max(xs), max(ys))],
    }


def _asset(asset: Asset, folder: Path) -> dict[str, Any]:
    cog = asset.profile is not None
    fields: dict[str, Any] = {
        "href": address(str(asset.path), folder),
        "title": asset.title,
        "roles": list(asset.roles),
    }
    kind = COG if cog else MEDIA_TYPES.get(asset.path.suffix.lower())
    if kind is not None:
        fields["type"] = kind
    if asset.profile is not None:
        fields.update(_raster(asset.profile))
    digest, size = asset.sha256, asset.bytes
    if (digest is None or size is None) and not asset.path.is_dir():
        digest, size = measure_file(asset.path)
    if digest is not None:
        fields["file:checksum"] = multihash(digest)
    if size is not None:
        fields["file:size"] = size
    return fields


def _raster(profile: RasterProfile) -> dict[str, Any]:
    common: dict[str, Any] = {"data_type": profile.dtype, "nodata": _plain(profile.nodata)}
    unit = profile.tags.get("UNITS")
    if unit is not None:
        common["unit"] = UNITS.get(unit, unit)
    common["raster:sampling"] = "area"
    metres = _metres(profile.geobox)
    if metres is not None:
        common["raster:spatial_resolution"] = metres
    if profile.names:
        common["classification:classes"] = _classes(profile.names, profile.palette or {})
    if profile.bits:
        common["classification:bitfields"] = _bitfields(profile.bits)
    bands = [
        {"name": f"band{number}", **({"description": text} if text else {})}
        for number, text in enumerate(profile.descriptions, start=1)
    ]
    return {**common, "bands": bands}


def _plain(nodata: float) -> float | int | str:
    """As STAC writes it: NaN and infinities are words."""
    if not math.isfinite(nodata):
        return str(float(nodata))
    return int(nodata) if float(nodata).is_integer() else float(nodata)


def _classes(
    names: Mapping[int, str], palette: Mapping[int, tuple[int, int, int]]
) -> list[dict[str, Any]]:
    classes = []
    for (value, title), name in zip(sorted(names.items()), _words(names), strict=True):
        entry: dict[str, Any] = {"value": value, "name": name, "title": title}
        if value in palette:
            entry["color_hint"] = "{:02x}{:02x}{:02x}".format(*palette[value])
        classes.append(entry)
    return classes


def _bitfields(bits: Mapping[int, str]) -> list[dict[str, Any]]:
    return [
        {
            "offset": bit,
            "length": 1,
            "name": name,
            "description": text,
            "classes": [{"value": 0, "name": "no"}, {"value": 1, "name": "yes"}],
        }
        for (bit, text), name in zip(sorted(bits.items()), _words(bits), strict=True)
    ]


def _words(names: Mapping[int, str]) -> Sequence[str]:
    """One word for each name, by value: letters, digits, hyphens, no two alike."""
    words: list[str] = []
    for value, name in sorted(names.items()):
        word = re.sub(r"[^0-9A-Za-z_]+", "-", name).strip("-").lower() or f"class-{value}"
        words.append(word if word not in words else f"{word}-{value}")
    return words
