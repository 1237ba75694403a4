"""CF and GeoZarr attributes, so that xarray, rioxarray and odc-geo know where a store lies."""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr
from odc.geo.geobox import GeoBox

from tilemap.geometry import TileGrid

GRID_MAPPING = "spatial_ref"


def is_axis_aligned(geobox: GeoBox) -> bool:
    """Whether rows and columns run along the axes of the CRS."""
    return bool(geobox.affine.b == 0 and geobox.affine.d == 0)


def geobox_attributes(geobox: GeoBox) -> dict[str, Any]:
    """Shape, geotransform and CRS as plain JSON."""
    return {
        "spatial:shape": [int(n) for n in geobox.shape],
        "spatial:transform": [float(v) for v in tuple(geobox.affine)[:6]],
        "proj:wkt2": None if geobox.crs is None else geobox.crs.to_wkt(),
    }


def geobox_from_attributes(attributes: dict[str, Any]) -> GeoBox:
    """The inverse of ``geobox_attributes``."""
    from affine import Affine

    return GeoBox(
        tuple(attributes["spatial:shape"]),
        Affine(*attributes["spatial:transform"]),
        attributes["proj:wkt2"],
    )


def add_grid_mapping(group: zarr.Group, geobox: GeoBox) -> None:
    """Add the CF grid mapping variable."""
    affine = geobox.affine
    attributes: dict[str, Any] = {
        "GeoTransform": " ".join(
            repr(float(v)) for v in (affine.c, affine.a, affine.b, affine.f, affine.d, affine.e)
        )
    }
    if geobox.crs is not None:
        attributes["crs_wkt"] = attributes["spatial_ref"] = geobox.crs.to_wkt()
    array = group.create_array(
        GRID_MAPPING,
        shape=(),
        dtype=np.int32,
        fill_value=0,
        dimension_names=(),
        attributes=attributes,
    )
    array[...] = 0


def _add_coordinate(
    group: zarr.Group, name: str, values: Any, dims: tuple[str, ...], **attrs: str
) -> None:
    values = np.asarray(values, dtype=np.float64)
    array = group.create_array(
        name,
        shape=values.shape,
        chunks=tuple(max(n, 1) for n in values.shape),
        dtype=np.float64,
        fill_value=np.nan,
        dimension_names=dims,
        attributes=dict(attrs),
    )
    array[...] = values


def add_map_coordinates(group: zarr.Group, geobox: GeoBox) -> None:
    """Pixel centres as 1-D ``y`` and ``x``; in scene pixels where the scene is rotated."""
    rows, cols = (int(n) for n in geobox.shape)
    y, x = np.arange(rows) + 0.5, np.arange(cols) + 0.5
    if is_axis_aligned(geobox):
        affine = geobox.affine
        y, x = affine.f + affine.e * y, affine.c + affine.a * x
    _add_coordinate(group, "y", y, ("y",), **_axis("y", geobox))
    _add_coordinate(group, "x", x, ("x",), **_axis("x", geobox))


def _axis(axis: str, geobox: GeoBox) -> dict[str, str]:
    if not is_axis_aligned(geobox):
        return {"long_name": f"{axis} in scene pixels"}
    if geobox.crs is not None and geobox.crs.geographic:
        name = "latitude" if axis == "y" else "longitude"
        return {"standard_name": name, "units": "degrees_north" if axis == "y" else "degrees_east"}
    return {"standard_name": f"projection_{axis}_coordinate", "axis": axis.upper()}


def add_patch_coordinates(group: zarr.Group, geobox: GeoBox, grid: TileGrid) -> None:
    """Where each pixel of each patch lies: ``scene_row`` (row, y) and ``scene_col`` (col, x).

    In scene pixels, counted at pixel centres; ``yc`` and ``xc`` are the same in the CRS where the
    scene is not rotated. Pixels beyond the scene are reflections.
    """
    inside = np.arange(grid.patch) - grid.halo + 0.5
    rows = np.arange(grid.shape[0])[:, None] * grid.core + inside
    cols = np.arange(grid.shape[1])[:, None] * grid.core + inside
    _add_coordinate(group, "scene_row", rows, ("row", "y"), long_name="row in scene pixels")
    _add_coordinate(group, "scene_col", cols, ("col", "x"), long_name="column in scene pixels")
    if is_axis_aligned(geobox):
        affine = geobox.affine
        _add_coordinate(group, "yc", affine.f + affine.e * rows, ("row", "y"), **_axis("y", geobox))
        _add_coordinate(group, "xc", affine.c + affine.a * cols, ("col", "x"), **_axis("x", geobox))
