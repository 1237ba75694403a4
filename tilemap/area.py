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
SQUARE = 64


class CellArea:
    """True area of the cells of a raster, in km2.

    Degrees: the exact area of a cell between two parallels and two meridians of the ellipsoid.
    Any other CRS: the area of the window's outline on the ellipsoid, whose edges are followed by
    16 geodesics each; so a projection that stretches areas (EPSG:3857 four times at 60 degrees)
    does not stretch these.

    Args:
        geobox: shape, geotransform and CRS of the raster.
    """

    def __init__(self, geobox: GeoBox) -> None:
        self._affine = geobox.affine
        self._geod: Geod | None = None
        self._radians = 0.0
        self._to_degrees: Any = None
        crs = None if geobox.crs is None else CRS(geobox.crs.to_wkt())
        if crs is None or crs.geodetic_crs is None:
            return
        self._geod = crs.get_geod()
        straight = self._affine.b == 0 and self._affine.d == 0
        if crs.is_geographic and not crs.is_derived and straight:
            self._radians = crs.axis_info[0].unit_conversion_factor
        else:
            self._to_degrees = Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)

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

    def cell_km2(self, window: Window) -> npt.NDArray[np.float64]:
        """True area of each pixel of a window, km2; NaN where it is not known.

        It does not depend on how the map is cut. Degrees: exact, row by row. Any other CRS: the
        mean over squares of 64 pixels that lie still on the map.

        Returns:
            float64, (y, 1) in degrees, else (y, x).
        """
        if self._geod is None:
            return np.full((window.height, 1), math.nan)
        if self._radians:
            edges = self._affine.f + self._affine.e * np.arange(window.top, window.bottom + 1)
            zones = zone_m2(edges * self._radians, self._geod.a, self._geod.es)
            width = abs(self._affine.a) * self._radians
            return np.abs(np.diff(zones))[:, None] * width / 1e6
        area = np.empty(window.shape)
        for row in range(window.top // SQUARE, -(-window.bottom // SQUARE)):
            for col in range(window.left // SQUARE, -(-window.right // SQUARE)):
                square = Window(
                    row * SQUARE, col * SQUARE, (row + 1) * SQUARE, (col + 1) * SQUARE
                )
                part = square.intersect(window)
                area[part.within(window)] = self.mean_km2(square)
        return area

    def _geographic_m2(self, geod: Geod, window: Window) -> float:
        north = self._affine.f + self._affine.e * window.top
        south = self._affine.f + self._affine.e * window.bottom
        width = abs(self._affine.a) * window.width * self._radians
        zones = zone_m2(np.array([north, south]) * self._radians, geod.a, geod.es)
        return float(abs(zones[0] - zones[1]) * width)

    def _outline_m2(self, geod: Geod, window: Window) -> float:
        rows, cols = outline(window, EDGE_POINTS)
        a, b, c, d, e, f = tuple(self._affine)[:6]
        x, y = a * cols + b * rows + c, d * cols + e * rows + f
        lon, lat = self._to_degrees.transform(x, y)
        if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
            return math.nan
        area, _ = geod.polygon_area_perimeter(lon, lat)
        return abs(float(area))


def zone_m2(
    latitude: npt.NDArray[np.float64], semi_major: float, eccentricity2: float
) -> npt.NDArray[np.float64]:
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


def outline(window: Window, points: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
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
