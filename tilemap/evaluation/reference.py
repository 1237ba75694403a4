"""A reference on the map's grid: class indices of any window, from a raster or from polygons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from tilemap.errors import SceneError, SceneMismatchError
from tilemap.evaluation.classes import UNKNOWN, Lookup, Matching, written
from tilemap.evaluation.metrics import IGNORE
from tilemap.geometry import Window
from tilemap.stores.grids import apply, footprint, moved, whole
from tilemap.stores.mosaic import Handles
from tilemap.stores.placing import Placing
from tilemap.stores.rasters import Raster
from tilemap.stores.vectors import Features, onto, read_features
from tilemap.stores.warp import blocks, quarters

_LARGEST_SOURCE = 2**24  # pixels of the reference read at once
BLOCK = 512  # polygons become pixels in blocks that lie still, whatever the tiles

ByteArray = npt.NDArray[np.uint8]


class Reference(Protocol):
    """What a tile is compared with."""

    def read(self, handles: Handles, window: Window) -> ByteArray:
        """Class indices of a window of the map; ``IGNORE`` where there is no reference."""


@dataclass(frozen=True)
class RasterReference:
    """A raster on any grid, by the pixel that holds the centre of each pixel of the map.

    Args:
        raster: of one band.
        placing: its grid under the map's.
        lookup: class indices of its stored numbers.
        matching: for the error that names unknown values.
    """

    raster: Raster
    placing: Placing
    lookup: Lookup
    matching: Matching

    def read(self, handles: Handles, window: Window) -> ByteArray:
        """Class indices of a window of the map, uint8 (y, x), whatever else is read.

        Raises:
            SceneError: naming values that are no class.
            StoreError: if the file cannot be read.
        """
        out = np.full(window.shape, IGNORE, dtype=np.uint8)
        self._fill(handles, window, out)
        return out

    def _fill(self, handles: Handles, window: Window, out: ByteArray) -> None:
        rows, cols = self.placing.indices(window)
        inside = (rows >= 0) & (cols >= 0)
        if not inside.any():
            return
        r, c = rows[rows >= 0], cols[cols >= 0]
        box = Window(int(r.min()), int(c.min()), int(r.max()) + 1, int(c.max()) + 1)
        if box.size > _LARGEST_SOURCE and window.size > 1:
            for quarter in quarters(window):
                self._fill(handles, quarter, out[quarter.within(window)])
            return
        image, valid = handles.of(self.raster).read((0,), box)
        labels = self.lookup.apply(image[0])
        labels[~valid] = IGNORE
        picked = labels[np.maximum(rows - box.top, 0), np.maximum(cols - box.left, 0)]
        np.copyto(out, picked, where=inside)
        if (out == UNKNOWN).any():
            odd = np.unique(image[0][labels == UNKNOWN])
            raise self.matching.unknown(f"{value:g}" for value in odd.tolist())


class Shapes:
    """Polygons with a whole number each, on the map's grid.

    Args:
        geobox: of the map.
        geometries: in its CRS; later ones lie on top.
        numbers: one per geometry, from 0.
    """

    def __init__(self, geobox: GeoBox, geometries: Sequence[Any], numbers: Sequence[int]) -> None:
        self._geobox, self._geometries, self._numbers = geobox, geometries, numbers
        self._tree = shapely.STRtree(list(geometries))

    def burn(self, window: Window) -> npt.NDArray[np.int32]:
        """Number of the polygon that holds each pixel's centre, int32 (y, x); -1 in none.

        The same for a pixel in whatever window: a centre on an edge is decided by rounding, so
        pixels are always made in the same blocks.
        """
        out = np.full(window.shape, -1, dtype=np.int32)
        for block in blocks(window, whole(self._geobox).shape, BLOCK):
            both = block.intersect(window)
            pixels = self._block(block)
            if both.size and pixels is not None:
                out[both.within(window)] = pixels[both.within(block)]
        return out

    def _block(self, block: Window) -> npt.NDArray[np.int32] | None:
        from rasterio.features import rasterize

        affine = moved(self._geobox.affine, block.top, block.left)
        found = np.sort(self._tree.query(_outline(affine, block.shape), predicate="intersects"))
        if not found.size:
            return None
        shapes = [(self._geometries[i], self._numbers[i]) for i in found]
        return np.asarray(
            rasterize(shapes, out_shape=block.shape, fill=-1, transform=affine, dtype="int32")
        )


@dataclass(frozen=True)
class VectorReference:
    """Polygons with a class.

    Args:
        shapes: numbered by class index; ``IGNORE`` for those that do not count.
        background: class index outside of them; ``IGNORE`` if there is no reference.
    """

    shapes: Shapes
    background: int = IGNORE

    def read(self, handles: Handles, window: Window) -> ByteArray:
        """Class indices of a window of the map, uint8 (y, x)."""
        del handles  # polygons are held in memory
        burnt = self.shapes.burn(window)
        return np.where(burnt < 0, self.background, burnt).astype(np.uint8)


@dataclass(frozen=True)
class PartialReference:
    """A reference that counts only inside some polygons.

    Args:
        whole: the reference.
        area: the polygons.
    """

    whole: Reference
    area: Shapes

    def read(self, handles: Handles, window: Window) -> ByteArray:
        """Class indices of a window of the map, uint8 (y, x)."""
        labels = self.whole.read(handles, window)
        labels[self.area.burn(window) < 0] = IGNORE
        return labels


def place_raster(raster: Raster, geobox: GeoBox, matching: Matching, lookup: Lookup) -> Reference:
    """A raster as reference of a map.

    Raises:
        SceneMismatchError: if the two do not meet, or only one of them has a CRS.
        SceneError: if it has several bands.
    """
    if len(raster.bands) != 1:
        raise SceneError(
            f"a reference must have one band of classes, {raster.path} has {len(raster.bands)}"
        )
    if (raster.geobox.crs is None) != (geobox.crs is None):
        raise SceneMismatchError(
            "map and reference must both have a CRS or none; assign one first (gdal_edit.py -a_srs)"
        )
    if footprint(raster.geobox, geobox).size == 0:
        raise _apart(raster.path)
    return RasterReference(raster, Placing(geobox, raster.geobox), lookup, matching)


def _apart(name: str) -> SceneMismatchError:
    return SceneMismatchError(
        f"map and reference must overlap, {name} lies elsewhere; compare their CRS and extents"
    )


def _outline(affine: Affine, shape: tuple[int, int]) -> shapely.Polygon:
    rows, cols = shape
    corners = ((0, 0), (cols, 0), (cols, rows), (0, rows))
    return shapely.Polygon([apply(affine, x, y) for x, y in corners])


def features_on(path: str, layer: str | None, geobox: GeoBox) -> Features:
    """Features of a file in the map's CRS, those that reach the map only.

    Raises:
        SceneError: if the file cannot be read.
        SceneMismatchError: if none of them reaches the map.
    """
    features = onto(read_features(path, layer), geobox)
    outline = _outline(geobox.affine, whole(geobox).shape)
    finite = np.isfinite(shapely.bounds(features.geometries)).all(axis=1)  # else no place there
    near = [
        i for i, shape in enumerate(features.geometries) if finite[i] and outline.intersects(shape)
    ]
    if not near:
        raise _apart(features.name)
    return Features(
        name=features.name,
        crs=features.crs,
        geometries=tuple(features.geometries[i] for i in near),
        attributes={n: tuple(v[i] for i in near) for n, v in features.attributes.items()},
        nulls=features.nulls,
    )


def place_features(
    features: Features,
    values: Sequence[Any],
    geobox: GeoBox,
    matching: Matching,
    background: str | None = None,
) -> VectorReference:
    """Features as reference of a map.

    Features without a value do not count, but hide what they lie on.

    Args:
        values: class of each feature, by name or value.
        background: class of what no feature covers; without it there is no reference there.

    Raises:
        SceneError: naming values that are no class.
    """
    numbers = [IGNORE if _missing(value) else matching.index(value) for value in values]
    around = IGNORE if background is None else matching.index(background)
    odd = [str(v) for v, n in zip(values, numbers, strict=True) if n == UNKNOWN]
    if around == UNKNOWN:
        odd.append(str(background))
    if odd:
        raise matching.unknown(odd)
    return VectorReference(Shapes(geobox, features.geometries, tuple(numbers)), around)


def place_area(features: Features, geobox: GeoBox) -> Shapes:
    """Features as the area in which a reference counts."""
    return Shapes(geobox, features.geometries, (0,) * len(features.geometries))


def place_regions(
    features: Features, column: str, geobox: GeoBox
) -> tuple[tuple[str, ...], Shapes]:
    """Features as regions: those with the same value in a column are one region.

    Returns:
        Names of the regions in the order of their first feature, and the shapes numbered by it.

    Raises:
        SceneError: if there is no such column.
    """
    values = [_name(value) for value in features.column(column)]
    names = tuple(dict.fromkeys(values))
    index = {name: i for i, name in enumerate(names)}
    return names, Shapes(geobox, features.geometries, tuple(index[value] for value in values))


def _name(value: Any) -> str:
    return "(no name)" if _missing(value) else str(value)


def _missing(value: Any) -> bool:
    return value is None or value != value or written(value) in ("", "nan")
