"""Where a raster lies on Earth, as GeoJSON wants it: degrees of WGS 84, cut at the antimeridian."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from odc.geo.geobox import GeoBox
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError
from shapely.geometry import MultiPolygon, Polygon, box, mapping
from shapely.geometry.polygon import orient

from tilemap.area import outline
from tilemap.geometry import Window

FloatArray = npt.NDArray[np.float64]
EDGE_POINTS = 8
DIGITS = 7
"""Of degrees: about a centimetre."""


@dataclass(frozen=True)
class Footprint:
    """Outline of a raster.

    Args:
        geometry: GeoJSON, counterclockwise; None where it cannot be told.
        bbox: west, south, east, north; west is larger than east across the antimeridian.
    """

    geometry: dict[str, Any] | None = None
    bbox: tuple[float, float, float, float] | None = None


def footprint(geobox: GeoBox) -> Footprint:
    """The outline of a raster, each edge followed by eight straight pieces.

    Without a CRS, with one that is not of the Earth (of a building site, of the Moon), or where a
    corner lies nowhere on Earth, it has neither geometry nor box. A pole inside
    gives everything from the outline to the pole (RFC 7946, 3.1.9 and 5.3).
    """
    if geobox.crs is None:
        return Footprint()
    rows, cols = (int(n) for n in geobox.shape)
    y, x = outline(Window(0, 0, rows, cols), EDGE_POINTS)
    a, b, c, d, e, f = tuple(geobox.affine)[:6]
    to_degrees = _to_degrees(geobox.crs.to_wkt())
    if to_degrees is None:
        return Footprint()
    lon, lat = to_degrees.transform(a * x + b * y + c, d * x + e * y + f)
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        return Footprint()
    lon, turns = _unwrap(np.asarray(lon, dtype=np.float64))
    if turns:
        edge = 90.0 if lat.mean() > 0 else -90.0
        whole = box(-180.0, min(lat.min(), edge), 180.0, max(lat.max(), edge))
        return Footprint(_geojson(whole), _rounded(whole.bounds))
    ring = Polygon(zip(lon, lat, strict=True))
    west, south, east, north = ring.bounds
    if east - west >= 360:
        whole = box(-180.0, south, 180.0, north)
        return Footprint(_geojson(whole), _rounded(whole.bounds))
    pieces = _cut(ring)
    return Footprint(_geojson(pieces), _rounded((_turned(west), south, _turned(east, 1), north)))


def _to_degrees(wkt: str) -> Transformer | None:
    """The way to degrees of WGS 84; None if there is none."""
    try:
        return Transformer.from_crs(CRS(wkt), CRS.from_epsg(4326), always_xy=True)
    except ProjError:
        return None


def _unwrap(lon: FloatArray) -> tuple[FloatArray, bool]:
    """Longitudes without jumps, and whether the ring goes once around a pole."""
    steps = (np.diff(lon, append=lon[:1]) + 180) % 360 - 180
    # A raster of the whole globe has edges of exactly half a turn or less, never a jump.
    plain = np.diff(lon, append=lon[:1])
    steps = np.where(np.abs(plain) <= 180, plain, steps)
    path = lon[0] + np.concatenate([[0.0], np.cumsum(steps[:-1])])
    return path, bool(abs(steps.sum()) > 180)


def _cut(ring: Polygon) -> Polygon | MultiPolygon:
    """The parts between -180 and 180, each moved there."""
    west, south, east, north = ring.bounds
    parts: list[Polygon] = []
    for turn in range(int((west + 180) // 360), int(-((180 - east) // 360)) + 1):
        strip = box(360 * turn - 180, south - 1, 360 * turn + 180, north + 1)
        found = shapely.intersection(ring, strip)
        moved = shapely.transform(found, lambda xy, by=turn: xy - [360 * by, 0])
        parts += [p for p in getattr(moved, "geoms", [moved]) if p.geom_type == "Polygon"]
    parts = [part for part in parts if part.area > 0]
    return parts[0] if len(parts) == 1 else MultiPolygon(parts)


def _turned(lon: float, upper: int = 0) -> float:
    """A longitude between -180 and 180; as an eastern edge 180 stays 180."""
    if -180 <= lon <= 180:
        return lon
    turned = (lon + 180) % 360 - 180
    return 180.0 if upper and turned == -180 else turned


def _geojson(shape: Polygon | MultiPolygon) -> dict[str, Any]:
    parts = [orient(part) for part in getattr(shape, "geoms", [shape])]
    whole = parts[0] if len(parts) == 1 else MultiPolygon(parts)
    found = mapping(whole)
    return {"type": found["type"], "coordinates": _lists(found["coordinates"])}


def _lists(values: Any) -> Any:
    if isinstance(values, float):
        return round(values, DIGITS) + 0.0  # -0.0 is 0.0
    return [_lists(value) for value in values]


def _rounded(bounds: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    west, south, east, north = (round(float(value), DIGITS) + 0.0 for value in bounds)
    return west, south, east, north
