"""Polygons of change as a GeoPackage, written whole or not at all."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from odc.geo.geobox import GeoBox

from tilemap.errors import StoreError
from tilemap.files import system_error
from tilemap.stores.grids import apply

LAYER = "changes"
Columns = Mapping[str, Sequence[Any]]

SCHEMA = {
    "id": "int64",
    "from": "object",
    "to": "object",
    "code": "int16",
    "date": "datetime64[D]",
    "earliest": "datetime64[D]",
    "latest": "datetime64[D]",
    "area_ha": "float64",
    "pixels": "int64",
    "p_change": "float64",
    "provisional": "float64",
    "sliver": "float64",
}
"""Types of the attributes of a change, so that an empty file has the same; others are inferred."""

STAMP = "1970-01-01T00:00:00.000Z"
"""Time of the last change that the file must state: no clock, so that equal polygons give equal
bytes."""


def write_polygons(
    path: Path, shapes: Sequence[Any], columns: Columns, geobox: GeoBox, layer: str = LAYER
) -> None:
    """Write outlines with their attributes; a layer without features where there are none.

    Args:
        path: of the file, ending in .gpkg.
        shapes: polygons in (column, row) of the map, outer rings against the clock as a map is
            seen; so are those in the file, in the CRS of the map, in the same order.
        columns: attributes by name, one value per polygon. Those of ``SCHEMA`` are written in its
            types, days given as ISO texts; a NaN as null.
        geobox: of the map: where a column and a row lie.
        layer: name of the layer.

    Raises:
        StoreError: if it cannot be written, or a column has not one value per polygon. What lay
            at ``path`` is untouched then, and nothing else is left.
    """
    import pyogrio

    for name, values in columns.items():
        if len(values) != len(shapes):
            raise StoreError(
                f"attribute {name!r} must have one value for each of {len(shapes)} polygons, "
                f"it has {len(values)}"
            )
    partial = path.with_name(path.name + ".partial.gpkg")
    _remove(partial)
    try:
        with warnings.catch_warnings(), _stamped(pyogrio):
            warnings.filterwarnings("ignore", message="'crs' was not provided")
            pyogrio.raw.write(
                partial,
                geometry=_on_the_ground(shapes, geobox),
                field_data=[_array(name, values) for name, values in columns.items()],
                fields=list(columns),
                layer=layer,
                driver="GPKG",
                geometry_type="Polygon",
                crs=None if geobox.crs is None else geobox.crs.to_wkt(),
            )
        _fsync(partial)
        partial.replace(path)
        _fsync(path.parent)
    except (OSError, RuntimeError, ValueError) as error:
        raise system_error(f"cannot write {path}", error, path.parent) from error
    finally:
        _remove(partial)


def _on_the_ground(shapes: Sequence[Any], geobox: GeoBox) -> npt.NDArray[Any]:
    """WKB of outlines moved by the geotransform, outer rings against the clock."""
    affine = geobox.affine

    def world(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.stack(apply(affine, points[:, 0], points[:, 1]), axis=1)

    moved = shapely.transform(np.array(shapes, dtype=object), world)
    if affine.a * affine.e - affine.b * affine.d > 0:  # rows run to the north
        moved = shapely.reverse(moved)
    wkb: npt.NDArray[Any] = shapely.to_wkb(moved).astype(object)
    return wkb


def _array(name: str, values: Sequence[Any]) -> npt.NDArray[Any]:
    if name in SCHEMA:
        return np.array(list(values), dtype=SCHEMA[name])
    text = any(isinstance(value, str) for value in values)
    return np.array(list(values), dtype=object if text else None)


@contextmanager
def _stamped(pyogrio: Any) -> Iterator[None]:
    """GDAL states the same time for everything it writes."""
    name = "OGR_CURRENT_DATE"
    before = pyogrio.get_gdal_config_option(name)
    pyogrio.set_gdal_config_options({name: STAMP})
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options({name: before})


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(partial: Path) -> None:
    for ending in ("", "-journal", "-wal", "-shm"):
        partial.with_name(partial.name + ending).unlink(missing_ok=True)
