"""Polygons of change as a GeoPackage, written whole or not at all."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from odc.geo.geobox import GeoBox

from tilemap.errors import StoreError
from tilemap.stores.grids import apply

LAYER = "changes"
Columns = Mapping[str, Sequence[Any]]


def write_polygons(
    path: Path, shapes: Sequence[Any], columns: Columns, geobox: GeoBox, layer: str = LAYER
) -> None:
    """Write outlines with their attributes; a layer without features where there are none.

    Args:
        path: of the file, ending in .gpkg.
        shapes: polygons in (column, row) of the map.
        columns: attributes by name, one value per polygon.
        geobox: of the map: where a column and a row lie.
        layer: name of the layer.

    Raises:
        StoreError: if it cannot be written.
    """
    import pyogrio

    def world(points: Any) -> Any:
        return np.stack(apply(geobox.affine, points[:, 0], points[:, 1]), axis=1)

    moved = [shapely.transform(shape, world) for shape in shapes]
    partial = path.with_name(path.name + ".partial.gpkg")
    partial.unlink(missing_ok=True)
    fields, values = list(columns), [_array(columns[name]) for name in columns]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="'crs' was not provided")
            pyogrio.raw.write(
                partial,
                geometry=np.array([shapely.to_wkb(shape) for shape in moved], dtype=object),
                field_data=values,
                fields=fields,
                layer=layer,
                driver="GPKG",
                geometry_type="Polygon",
                crs=None if geobox.crs is None else geobox.crs.to_wkt(),
            )
        handle = os.open(partial, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        partial.replace(path)
    except (OSError, RuntimeError, ValueError) as error:
        raise StoreError(f"cannot write {path}: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


def _array(values: Sequence[Any]) -> Any:
    text = any(isinstance(value, str) for value in values)
    return np.array(list(values), dtype=object if text or not len(values) else None)
