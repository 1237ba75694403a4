"""True areas on the ellipsoid: what a map covers, whatever its projection makes of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox
from pyproj import CRS, Geod, Transformer

from tilemap.geometry import Window

EDGE_POINTS = 16
LATTICE = 64
"""Pixels between the points at which areas are computed, at most; between them is a straight line.
"""
LATTICE_M = 10_000.0
"""The same in metres: so far the areal scale bends by about one in a million."""

AREA_NOTE = "Sums of true pixel areas on the ellipsoid."
"""How areas in reports are counted."""

FloatArray = npt.NDArray[np.float64]


class CellArea:
    """True area of the cells of a raster, in km2.

    Degrees: the exact area of a cell between two parallels and two meridians of the ellipsoid.
    Any other CRS: the area of the window's outline on the ellipsoid, whose edges are followed by
    16 geodesics each; so a projection that stretches areas (EPSG:3857 four times at 60 degrees)
    does not stretch these.

    ``mean_km2`` is one number for a window; ``cell_km2`` has one for each pixel, the same however
    the raster is cut.

    Args:
        geobox: shape, geotransform and CRS of the raster.
    """

    def __init__(self, geobox: GeoBox) -> None:
        self._affine = geobox.affine
        self._shape = (int(geobox.shape[0]), int(geobox.shape[1]))
        self._step = LATTICE
        self._geod: Geod | None = None
        self._radians = 0.0
        self._to_degrees: Any = None
        crs = None if geobox.crs is None else CRS(geobox.crs.to_wkt())
        if crs is None or crs.geodetic_crs is None:
            return
        geod = self._geod = crs.get_geod()
        if geod is None:
            return
        straight = self._affine.b == 0 and self._affine.d == 0
        if crs.is_geographic and not crs.is_derived and straight:
            self._radians = crs.axis_info[0].unit_conversion_factor
        else:
            self._to_degrees = Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
            self._step = _step(crs, geod, abs(self._affine.determinant))

    @property
    def known(self) -> bool:
        """Whether there is a CRS that ties pixels to the Earth."""
        return self._geod is not None

    def mean_km2(self, window: Window) -> float:
        """Mean area of one cell of a window, km2; NaN where it is not known."""
        if self._geod is None or window.size == 0:
            return math.nan
        if self._radians:
            return self._geographic_m2(self._geod, window) / window.size / 1e6
        return self._outline_m2(self._geod, window) / window.size / 1e6

    def cell_km2(self, window: Window) -> FloatArray:
        """True area of each pixel of a window, km2; NaN where it is not known.

        Degrees: exact, row by row. Any other CRS: computed on a lattice that lies still on the
        raster, 64 pixels or 10 km wide, whichever is less, and interpolated; pixel by pixel where
        a point of the lattice is nowhere on Earth. So a pixel has the same area in every window.

        Args:
            window: inside the raster.

        Returns:
            float64, (y, 1) in degrees and where nothing is known, else (y, x).
        """
        if self._geod is None:
            return np.full((window.height, 1), math.nan)
        if self._radians:
            rows = np.arange(window.top, window.bottom + 1, dtype=np.float64)
            edges: FloatArray = (self._affine.f + self._affine.e * rows) * self._radians
            zones = zone_m2(edges, self._geod.a, self._geod.es)
            width = abs(self._affine.a) * self._radians
            return np.abs(np.diff(zones))[:, None] * width / 1e6
        if window.size == 0:
            return np.zeros(window.shape)
        rows = _points(window.top, window.bottom, self._step, self._shape[0])
        cols = _points(window.left, window.right, self._step, self._shape[1])
        lattice = self._pixel_km2(self._geod, rows, cols)
        area = _between(rows, cols, lattice, window)
        if not np.isfinite(lattice).all():
            row, col = np.nonzero(~np.isfinite(area))
            down, right = (axis.astype(np.float64) + 0.5 for axis in (row, col))
            area[row, col] = self._pixels_km2(self._geod, window.top + down, window.left + right)
        return area

    def _pixel_km2(self, geod: Geod, rows: FloatArray, cols: FloatArray) -> FloatArray:
        """Area of the pixels around the points of a lattice, (row, col)."""
        row, col = np.meshgrid(rows, cols, indexing="ij")
        return self._pixels_km2(geod, row.ravel(), col.ravel()).reshape(row.shape)

    def _pixels_km2(self, geod: Geod, row: FloatArray, col: FloatArray) -> FloatArray:
        """Area of the pixels around points: of the parallelogram its middle lines span in space.

        In space, since there neither the poles nor the antimeridian are anything special.
        """
        down = self._in_space(geod, row + 0.5, col) - self._in_space(geod, row - 0.5, col)
        across = self._in_space(geod, row, col + 0.5) - self._in_space(geod, row, col - 0.5)
        normal = np.cross(down, across, axis=0)
        return np.asarray(np.sqrt((normal**2).sum(axis=0)) / 1e6, dtype=np.float64)

    def _in_space(self, geod: Geod, row: FloatArray, col: FloatArray) -> FloatArray:
        """Points of the raster on the ellipsoid: geocentric metres (3, n); NaN off the Earth."""
        lon, lat = self._to_degrees.transform(*self._world(row, col), radians=False)
        lost = ~(np.isfinite(lon) & np.isfinite(lat))
        lon, lat = (np.radians(np.where(lost, math.nan, angle)) for angle in (lon, lat))
        curve = geod.a / np.sqrt(1 - geod.es * np.sin(lat) ** 2)
        return np.stack(
            [
                curve * np.cos(lat) * np.cos(lon),
                curve * np.cos(lat) * np.sin(lon),
                curve * (1 - geod.es) * np.sin(lat),
            ]
        )

    def _world(self, row: FloatArray, col: FloatArray) -> tuple[FloatArray, FloatArray]:
        a, b, c, d, e, f = tuple(self._affine)[:6]
        return a * col + b * row + c, d * col + e * row + f

    def _geographic_m2(self, geod: Geod, window: Window) -> float:
        north = self._affine.f + self._affine.e * window.top
        south = self._affine.f + self._affine.e * window.bottom
        width = abs(self._affine.a) * window.width * self._radians
        zones = zone_m2(np.array([north, south]) * self._radians, geod.a, geod.es)
        return float(abs(zones[0] - zones[1]) * width)

    def _outline_m2(self, geod: Geod, window: Window) -> float:
        rows, cols = outline(window, EDGE_POINTS)
        lon, lat = self._to_degrees.transform(*self._world(rows, cols))
        if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
            return math.nan
        area, _ = geod.polygon_area_perimeter(lon, lat)
        return abs(float(area))


def _step(crs: CRS, geod: Geod, pixel: float) -> int:
    """Pixels between the points of the lattice: a power of two, at most ``LATTICE``.

    Args:
        crs: of the raster.
        geod: its ellipsoid.
        pixel: area of a pixel in squared units of the CRS.
    """
    unit = crs.axis_info[0].unit_conversion_factor if crs.axis_info else 1.0
    metres = math.sqrt(pixel) * unit * (geod.a if crs.is_geographic else 1.0)
    return int(min(max(2.0 ** math.floor(math.log2(LATTICE_M / metres)), 1), LATTICE))


def _points(start: int, stop: int, step: int, size: int) -> FloatArray:
    """Points of the lattice around a stretch of one axis; the last one of all at its end."""
    numbers = np.arange(start // step, -(-stop // step) + 1)
    return np.minimum(numbers * step, size).astype(np.float64)


def _between(rows: FloatArray, cols: FloatArray, values: FloatArray, window: Window) -> FloatArray:
    """Values of a lattice at the centres of a window's pixels, bilinearly."""
    centre = np.arange(window.left, window.right) + 0.5
    at = np.searchsorted(cols, centre, side="right") - 1
    share = (centre - cols[at]) / (cols[at + 1] - cols[at])
    across = values[:, at] * (1 - share) + values[:, at + 1] * share
    centre = np.arange(window.top, window.bottom) + 0.5
    at = np.searchsorted(rows, centre, side="right") - 1
    share = ((centre - rows[at]) / (rows[at + 1] - rows[at]))[:, None]
    return across[at] * (1 - share) + across[at + 1] * share


def zone_m2(latitude: FloatArray, semi_major: float, eccentricity2: float) -> FloatArray:
    """Area between the equator and each latitude, per radian of longitude, m2.

    ``a^2 (1 - e^2) / 2 * (sin / (1 - e^2 sin^2) + artanh(e sin) / e)``: Snyder 1987, "Map
    Projections: A Working Manual", equation 3-12, times ``a^2 / 2``.

    Args:
        latitude: radians, beyond the poles taken as the poles.
        semi_major: of the ellipsoid, m.
        eccentricity2: its squared eccentricity, 0 for a sphere.
    """
    sine = np.sin(np.clip(latitude, -math.pi / 2, math.pi / 2))
    e = math.sqrt(eccentricity2)
    bent = np.arctanh(e * sine) / e if e > 0 else sine
    zone = (1 - eccentricity2) * (sine / (1 - eccentricity2 * sine**2) + bent) / 2
    return np.asarray(semi_major**2 * zone, dtype=np.float64)


def outline(window: Window, points: int) -> tuple[FloatArray, FloatArray]:
    """Rows and columns of points around a window, ``points`` along each edge, in order."""
    step = np.arange(points) / points
    down = window.top + step * window.height
    right = window.left + step * window.width
    up = window.bottom - step * window.height
    left = window.right - step * window.width
    rows = np.concatenate(
        [np.full(points, float(window.top)), down, np.full(points, float(window.bottom)), up]
    )
    cols = np.concatenate(
        [right, np.full(points, float(window.right)), left, np.full(points, float(window.left))]
    )
    return rows, cols
