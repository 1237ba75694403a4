"""The pixels of a map of classes: read by tiles, counted, found again; the map is never held."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from odc.geo.geobox import GeoBox

from tilemap.area import CellArea
from tilemap.errors import SceneError
from tilemap.evaluation.classes import stored_names
from tilemap.evaluation.request import digests
from tilemap.geometry import TileGrid, Window
from tilemap.stores.mosaic import Handles
from tilemap.stores.opening import GDAL_SETTINGS, plain_path
from tilemap.stores.rasters import Raster, describe

CORE = 2048
CACHE_MB = 64
_MAPS = ("change.tif", "landcover.tif")

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Pixels = tuple[Window, npt.NDArray[np.uint8], npt.NDArray[np.bool_]]


@dataclass(frozen=True)
class Stratum:
    """One class of a map.

    Args:
        value: stored number.
        name: for people.
        pixels: how many there are.
        area_ha: their true area, hectares; NaN where it is not known.
    """

    value: int
    name: str
    pixels: int
    area_ha: float


@dataclass(frozen=True)
class ClassMap:
    """A map of classes, open for reading by windows.

    Args:
        raster: one band of bytes.
        names: of the classes it tells, by stored number.
    """

    raster: Raster
    names: Mapping[int, str]

    @property
    def geobox(self) -> GeoBox:
        """Its grid."""
        return self.raster.geobox

    def name(self, value: int) -> str:
        """Of a class, whether the map tells it or not."""
        return self.names.get(value, f"class {value}")

    @property
    def file(self) -> str:
        """Name of its file."""
        return Path(self.raster.path).name

    @property
    def classes(self) -> dict[int, str]:
        """The classes it tells, but for nodata, by ascending number."""
        nodata = self.raster.bands[0].nodata
        return {v: self.names[v] for v in sorted(self.names) if v != nodata}

    def digest(self) -> str:
        """What tells it from another one."""
        return str(digests({"map": self.raster.path})["map"]["sha256"])

    def tiles(self, only: Sequence[int] | None = None) -> Iterator[Pixels]:
        """Numbers and where there are any, (y, x), rows of tiles top down.

        Args:
            only: rows of tiles to read; default all of them.
        """
        grid = TileGrid(self.raster.shape, CORE, 0, 0)
        with rasterio.Env(GDAL_CACHEMAX=CACHE_MB, **GDAL_SETTINGS), Handles() as handles:
            for tile in grid.tiles():
                if only is None or tile.row in only:
                    window = grid.core_window(tile)
                    image, valid = handles.of(self.raster).read((0,), window)
                    yield window, image[0], valid

    def at(self, row: IntArray, col: IntArray) -> IntArray:
        """Stored numbers of pixels, int64 (n,); -1 where there is none, beyond the map too."""
        rows, cols = self.raster.shape
        found = np.full(row.size, -1, dtype=np.int64)
        inside = (row >= 0) & (row < rows) & (col >= 0) & (col < cols)
        for window, image, valid in self.tiles(np.unique(row[inside] // CORE).tolist()):
            here = (row >= window.top) & (row < window.bottom)
            here &= (col >= window.left) & (col < window.right)
            place = row[here] - window.top, col[here] - window.left
            found[here] = np.where(valid[place], image[place].astype(np.int64), -1)
        return found


def open_map(path: str | Path) -> ClassMap:
    """A map of classes, or the directory of a run that has one.

    Raises:
        SceneError: if it is not one band of bytes.
    """
    place = plain_path(path)
    if place.is_dir():
        place = next((place / name for name in _MAPS if (place / name).is_file()), place / _MAPS[1])
    raster = describe(str(place))
    if len(raster.bands) != 1 or raster.bands[0].dtype != "uint8":
        kind = ", ".join(band.dtype for band in raster.bands)
        raise SceneError(f"a map of classes must have one band of uint8, {path} has {kind}")
    return ClassMap(raster, stored_names(raster.path))


@dataclass(frozen=True)
class Census:
    """The pixels of a map, counted.

    Args:
        strata: each class that occurs, by ascending number.
        in_row: pixels of each in each row, int32 (H, rows).
    """

    strata: tuple[Stratum, ...]
    in_row: npt.NDArray[np.int32]


def census(class_map: ClassMap) -> Census:
    """Count every class that occurs in a map, and add up its area.

    Raises:
        SceneError: if nothing is observed.
    """
    cells, rows = CellArea(class_map.geobox), class_map.raster.shape[0]
    in_row: dict[int, npt.NDArray[np.int32]] = {}
    km2 = np.zeros(256)
    for window, image, valid in class_map.tiles():
        lines = np.arange(window.height, dtype=np.int64)[:, None] * 256
        counts = np.bincount((lines + image)[valid], minlength=window.height * 256)
        counts = counts.reshape(window.height, 256)
        for value in np.flatnonzero(counts.any(axis=0)).tolist():
            line = in_row.setdefault(value, np.zeros(rows, dtype=np.int32))
            line[window.top : window.bottom] += counts[:, value].astype(np.int32)
        area = cells.cell_km2(window)
        if area.shape[1] == 1:  # one number for a row
            km2 += area[:, 0] @ counts if cells.known else 0
        else:
            km2 += np.bincount(image[valid], area[valid], minlength=256)
    if not in_row:
        raise SceneError(f"{class_map.raster.path} must have observed pixels, it has none")
    strata = tuple(
        Stratum(
            value, class_map.name(value), int(in_row[value].sum(dtype=np.int64)),
            float(km2[value]) * 100 if cells.known else math.nan,
        )
        for value in sorted(in_row)
    )  # fmt: skip
    return Census(strata, np.stack([in_row[stratum.value] for stratum in strata]))


def pixel_ha(geobox: GeoBox, row: IntArray, col: IntArray) -> FloatArray:
    """True area of single pixels, hectares, float64 (n,); NaN where it is not known."""
    cells = CellArea(geobox)
    windows = (Window(r, c, r + 1, c + 1) for r, c in zip(row.tolist(), col.tolist(), strict=True))
    return np.array([cells.cell_km2(window)[0, 0] * 100 for window in windows], dtype=np.float64)
