"""Features of vector files (GeoPackage, GeoJSON, Shapefile ...), and their pixels on a grid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from tilemap.errors import SceneError
from tilemap.geometry import Window
from tilemap.stores.grids import moved


@dataclass(frozen=True)
class Features:
    """Geometries with their attributes.

    Args:
        name: file, and layer where it has several.
        crs: of the geometries; None if the file does not say.
        geometries: shapely, none of them null or empty.
        attributes: by name, one value per geometry.
        nulls: features of the file that had no geometry and were left out.
    """

    name: str
    crs: CRS | None
    geometries: tuple[Any, ...]
    attributes: dict[str, tuple[Any, ...]]
    nulls: int

    def column(self, name: str) -> tuple[Any, ...]:
        """One attribute of each geometry.

        Raises:
            SceneError: naming the attributes there are.
        """
        if name not in self.attributes:
            known = ", ".join(self.attributes) or "none"
            raise SceneError(f"{self.name} must have an attribute {name!r}, it has {known}")
        return self.attributes[name]


def is_vector(path: str | Path) -> bool:
    """Whether a file is read as features, by its ending."""
    return Path(path).suffix.lower() in (".gpkg", ".geojson", ".json", ".shp", ".fgb", ".parquet")


def read_features(path: str | Path, layer: str | None = None) -> Features:
    """All features of one layer.

    Args:
        path: anything GDAL's vector drivers open.
        layer: default the only one with geometries.

    Raises:
        SceneError: if the file cannot be read, or has several layers and none was named.
    """
    import pyogrio
    from pyogrio.errors import DataSourceError

    name = Path(path).name
    if not Path(path).is_file():
        raise SceneError(f"{path}: there is no such file")
    try:
        layers = [str(row[0]) for row in pyogrio.list_layers(path) if row[1] is not None]
        if layer is None and len(layers) != 1:
            raise SceneError(f"{name} has the layers {', '.join(layers) or 'none'}; name one")
        if layer is not None and layer not in layers:
            raise SceneError(f"{name} has the layers {', '.join(layers)}, got {layer!r}")
        meta, _, blobs, columns = pyogrio.raw.read(path, layer=layer or layers[0], force_2d=True)
    except (DataSourceError, ValueError, RuntimeError) as error:
        if isinstance(error, SceneError):
            raise
        text = str(error).splitlines()[0]
        raise SceneError(f"{name} cannot be read as features: {text}") from error
    geometries = shapely.from_wkb(blobs)
    kept = ~(shapely.is_missing(geometries) | shapely.is_empty(geometries))
    return Features(
        name=name if layer is None else f"{name} ({layer})",
        crs=None if meta["crs"] is None else CRS(meta["crs"]),
        geometries=tuple(shapely.make_valid(geometries[kept])),
        attributes={
            str(field): tuple(_plain(value) for value in column[kept])
            for field, column in zip(meta["fields"], columns, strict=True)
        },
        nulls=int(np.count_nonzero(~kept)),
    )


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def onto(features: Features, geobox: GeoBox) -> Features:
    """The features in the CRS of a grid; without a CRS on either side they stay as they are."""
    if features.crs is None or geobox.crs is None or features.crs == geobox.crs:
        return features
    move = Transformer.from_crs(
        features.crs.to_wkt(), geobox.crs.to_wkt(), always_xy=True
    ).transform
    moved_ = tuple(shapely.transform(g, move, interleaved=False) for g in features.geometries)
    return replace(features, crs=geobox.crs, geometries=moved_)


def burn(
    geometries: Sequence[Any],
    values: Iterable[int],
    geobox: GeoBox,
    window: Window | None = None,
    fill: int = 255,
) -> npt.NDArray[np.uint8]:
    """Values of the geometries whose inside holds a pixel's centre; later ones lie on top.

    Args:
        geometries: in the CRS of the grid.
        values: one per geometry, 0..255.
        geobox: the grid.
        window: part of it, in its pixels; default all of it.
        fill: of pixels in no geometry.

    Returns:
        uint8 (y, x) of the window.
    """
    from rasterio.features import rasterize

    rows, cols = geobox.shape
    window = window or Window(0, 0, rows, cols)
    shapes = list(zip(geometries, values, strict=True))
    if not shapes:
        return np.full(window.shape, fill, dtype=np.uint8)
    affine = moved(geobox.affine, window.top, window.left)
    return np.asarray(
        rasterize(shapes, out_shape=window.shape, fill=fill, transform=affine, dtype="uint8")
    )
