"""How two grids lie on each other, in pixels: rows, columns and CRS, no rasters."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio.crs
import rasterio.warp
from affine import Affine
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox

from tilemap.errors import SceneError
from tilemap.geometry import Window

MOST_SIDE = 2**31 - 1  # as GDAL counts them
ALIGNED = 1e-3  # pixels by which two grids may differ anywhere and still be one
_PIXELS_ONLY = 'LOCAL_CS["pixels",UNIT["metre",1]]'
_SAMPLES = 9  # points per axis that bound a window in another grid
_Floats = npt.NDArray[np.float64]


def compose(outer: Affine, inner: Affine) -> Affine:
    """The affine that applies ``inner``, then ``outer``.

    Spelt out since the operator for it has changed between releases of affine.
    """
    a, b, c, d, e, f = tuple(outer)[:6]
    p, q, r, s, t, u = tuple(inner)[:6]
    return Affine(
        a * p + b * s, a * q + b * t, a * r + b * u + c,
        d * p + e * s, d * q + e * t, d * r + e * u + f,
    )  # fmt: skip


def apply(affine: Affine, x: Any, y: Any) -> tuple[Any, Any]:
    """Points through an affine; numbers or arrays."""
    return affine.a * x + affine.b * y + affine.c, affine.d * x + affine.e * y + affine.f


def moved(affine: Affine, top: int, left: int) -> Affine:
    """The geotransform of a window that begins at a row and a column."""
    return compose(affine, Affine.translation(left, top))


def whole(geobox: GeoBox) -> Window:
    """The window of all its pixels."""
    rows, cols = geobox.shape
    return Window(0, 0, int(rows), int(cols))


def same_crs(one: CRS | None, two: CRS | None) -> bool:
    """Whether both are the same system, or both none."""
    if one is None or two is None:
        return one is two
    return bool(one == two or one.proj.equals(two.proj, ignore_axis_order=True))


@lru_cache(maxsize=64)
def crs_of(wkt: str) -> CRS:
    """The CRS of the ground, by its EPSG code where the definition is exactly that.

    Heights of a compound or three-dimensional CRS are left out: a map has none, and files give
    them back in other words.
    """
    crs = CRS(wkt)
    if crs.proj.is_compound or len(crs.proj.axis_info) > 2:
        crs = CRS(crs.proj.to_2d().to_wkt())
    code = crs.epsg
    if code is not None:
        named = CRS(f"EPSG:{code}")
        if named == crs:
            return named
    return crs


@lru_cache(maxsize=64)
def gdal_crs(crs: CRS | None) -> Any:
    """The same for GDAL; a plain plane for None."""
    return rasterio.crs.CRS.from_wkt(_PIXELS_ONLY if crs is None else crs.to_wkt())


def pixel_size(geobox: GeoBox) -> float:
    """Side of a square as large as a pixel, in metres where the CRS tells, else in its units."""
    side = math.sqrt(abs(geobox.affine.determinant))
    crs = geobox.crs
    if crs is None:
        return side
    if not crs.geographic:
        axes = crs.proj.axis_info
        return side * float(axes[0].unit_conversion_factor if axes else 1.0)
    rows, cols = geobox.shape
    _, latitude = apply(geobox.affine, cols / 2, rows / 2)
    return side * 111_320 * math.sqrt(max(math.cos(math.radians(latitude)), 1e-6))


def at_resolution(geobox: GeoBox, resolution: float) -> GeoBox:
    """The same CRS, directions and first corner, other pixels, enough to cover the extent.

    Args:
        geobox: the grid as it is.
        resolution: side of the new pixels in units of the CRS.

    Raises:
        SceneError: if it is no size, or so small that no raster could hold the pixels.
    """
    if not 0 < resolution < math.inf:
        raise SceneError(f"resolution must be above 0 units of the CRS, got {resolution}")
    affine: Affine = geobox.affine
    across, down = math.hypot(affine.a, affine.d), math.hypot(affine.b, affine.e)
    sides = geobox.shape[0] * down / resolution, geobox.shape[1] * across / resolution
    if max(sides) > MOST_SIDE:
        raise SceneError(
            f"a raster has at most {MOST_SIDE:,} pixels a side, a resolution of {resolution} makes "
            f"{max(sides):.3g}"
        )
    rows, cols = (math.ceil(side - 1e-6) for side in sides)
    scaled = compose(affine, Affine.scale(resolution / across, resolution / down))
    return GeoBox((max(rows, 1), max(cols, 1)), scaled, geobox.crs)


def pixel_affine(here: GeoBox, there: GeoBox) -> Affine | None:
    """Pixel coordinates (x, y) of one grid in those of another, None if the CRS differ.

    Longitudes are taken around the earth to where the other grid has them.
    """
    if not same_crs(here.crs, there.crs):
        return None
    centre = np.array([_centre_longitude(here)])
    turned = float((_near(there, centre) - centre)[0])
    return compose(~there.affine, compose(Affine.translation(turned, 0), here.affine))


def pixel_offset(one: GeoBox, two: GeoBox) -> tuple[int, int] | None:
    """Where the first pixel of one grid lies in another, (rows, columns).

    None unless both have the same CRS and every pixel of ``one`` lies on a pixel of ``two``
    (or of its continuation) to within ``ALIGNED`` pixels.
    """
    affine = pixel_affine(one, two)
    if affine is None:
        return None
    rows, cols = one.shape
    left, top = round(affine.c), round(affine.f)
    for x, y in ((0, 0), (cols, 0), (0, rows), (cols, rows)):
        col, row = apply(affine, x, y)
        if abs(col - x - left) > ALIGNED or abs(row - y - top) > ALIGNED:
            return None
    return top, left


def pixel_map(here: GeoBox, there: GeoBox, x: _Floats, y: _Floats) -> tuple[_Floats, _Floats]:
    """Pixel coordinates of one grid as (columns, rows) of another; infinite where there is none.

    Args:
        here: the grid of ``x`` and ``y``.
        there: the other grid.
        x: columns, float64 (n,), 0 at the left edge of the first pixel.
        y: rows, float64 (n,).
    """
    affine = pixel_affine(here, there)
    if affine is not None:
        return apply(affine, x, y)
    east, north = _transform(here.crs, there.crs, *apply(here.affine, x, y))
    with np.errstate(invalid="ignore"):
        return apply(~there.affine, _near(there, east), north)


@lru_cache(maxsize=64)
def _turn(crs: CRS | None) -> float:
    """Once around the earth in units of the longitude; 0 where there is none."""
    if crs is None or not crs.geographic:
        return 0.0
    axis = crs.proj.axis_info[0]
    return 360.0 if axis.unit_name == "degree" else 2 * math.pi / axis.unit_conversion_factor


def _centre_longitude(geobox: GeoBox) -> float:
    rows, cols = geobox.shape
    return float(apply(geobox.affine, cols / 2, rows / 2)[0])


def _near(geobox: GeoBox, longitude: _Floats) -> _Floats:
    """Bring longitudes within half a turn of the middle of a grid; other coordinates stay.

    Files have the ground beyond 180 degrees at 181 or at -179; transformations give -179 alone.
    """
    turn = _turn(geobox.crs)
    if not turn:
        return longitude
    with np.errstate(invalid="ignore"):
        turns = np.rint((_centre_longitude(geobox) - longitude) / turn)
    return longitude + turn * np.where(np.isfinite(turns), turns, 0.0)


def _transform(here: CRS | None, there: CRS | None, x: _Floats, y: _Floats) -> tuple[Any, Any]:
    """World coordinates from one CRS to another, by GDAL as its warper does it."""
    try:
        moved_x, moved_y = rasterio.warp.transform(
            gdal_crs(here), gdal_crs(there), x.tolist(), y.tolist()
        )[:2]
    except Exception:  # GDAL raises its own kinds where some point has no place
        if x.size == 1:
            return np.array([np.inf]), np.array([np.inf])
        half = x.size // 2
        parts = (_transform(here, there, x[s], y[s]) for s in (slice(half), slice(half, None)))
        columns = tuple(zip(*parts, strict=True))
        return np.concatenate(columns[0]), np.concatenate(columns[1])
    return np.asarray(moved_x), np.asarray(moved_y)


def lattice(window: Window) -> tuple[_Floats, _Floats]:
    """Points spread over a window, its corners and edges included: columns and rows, (n,)."""
    x, y = np.meshgrid(
        np.linspace(window.left, window.right, _SAMPLES),
        np.linspace(window.top, window.bottom, _SAMPLES),
    )
    return x.ravel(), y.ravel()


def common_points(here: GeoBox, there: GeoBox) -> tuple[_Floats, _Floats]:
    """Points of ``there`` that lie on ``here``, as far as some can be found: columns, rows (n,).

    Looked for from both sides, since either grid may be a speck in the other one, and far
    outside of a CRS's own area coordinates are often nonsense.
    """
    x, y = lattice(whole(there))
    col, row = pixel_map(there, here, x, y)
    rows, cols = here.shape
    with np.errstate(invalid="ignore"):
        inside = (col >= 0) & (col <= cols) & (row >= 0) & (row <= rows)
    back_x, back_y = pixel_map(here, there, *lattice(whole(here)))
    finite = np.isfinite(back_x) & np.isfinite(back_y)
    return (
        np.concatenate([x[inside], back_x[finite]]),
        np.concatenate([y[inside], back_y[finite]]),
    )


def footprint(here: GeoBox, there: GeoBox) -> Window:
    """The rectangle of one grid that another one may touch, clipped; may be empty.

    Between two CRS an estimate: it may be too large, but is empty only if they do not meet.
    """
    col, row = common_points(here, there)
    return bounded(whole(there), col, row) if col.size else Window(0, 0, 0, 0)


def bounded(limits: Window, col: _Floats, row: _Floats) -> Window:
    """The smallest window around points, clipped."""
    return Window(
        int(np.clip(np.floor(row.min()), limits.top, limits.bottom)),
        int(np.clip(np.floor(col.min()), limits.left, limits.right)),
        int(np.clip(np.ceil(row.max()), limits.top, limits.bottom)),
        int(np.clip(np.ceil(col.max()), limits.left, limits.right)),
    )
