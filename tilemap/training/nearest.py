"""A raster on another grid by nearest neighbour: numbers that must not be mixed, as labels are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox

from tilemap.errors import SceneError, SceneMismatchError
from tilemap.geometry import Window
from tilemap.stores.grids import apply, footprint, pixel_affine, pixel_map, pixel_offset, pixel_size
from tilemap.stores.mosaic import Handles, Mosaic
from tilemap.stores.rasters import AnyArray, BoolArray
from tilemap.stores.warp import quarters

_STEP = 32  # pixels between points that are projected exactly
_LARGEST_SOURCE = 2**24  # pixels read at once; what needs more is quartered
_TIE = 1e-6  # pixels; a centre that falls on a border belongs to the pixel after it
_Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Found:
    """Pixels of a window.

    Args:
        image: (y, x) of the source's dtype.
        valid: bool (y, x), where the source was observed.
        inside: bool (y, x), within the extent of the source.
    """

    image: AnyArray
    valid: BoolArray
    inside: BoolArray


def describe_change(source: GeoBox, target: GeoBox, source_name: str, name: str) -> str | None:
    """A line that says how a raster comes onto a grid; None if it is on that grid.

    Raises:
        SceneMismatchError: if only one of them has a CRS.
        SceneError: if they do not overlap.
    """
    if (source.crs is None) != (target.crs is None):
        lacking = source_name if source.crs is None else name
        raise SceneMismatchError(
            f"scene and labels must both have a CRS or none, {lacking} has none; assign one first "
            "(gdal_edit.py -a_srs)"
        )
    if not footprint(source, target).size:
        raise SceneError(f"labels must overlap their scene, {source_name} and {name} do not meet")
    if pixel_offset(source, target) is not None:
        return None
    return (
        f"{source_name}: labels were brought from pixels of {pixel_size(source):.3g} "
        f"({source.crs}) onto those of {name}, {pixel_size(target):.3g} ({target.crs}), by nearest "
        "neighbour"
    )


def nearest(source: Mosaic, handles: Handles, target: GeoBox, window: Window) -> Found:
    """The pixel of the source that holds each pixel's centre.

    Args:
        source: one band.
        handles: open files.
        target: the grid that is asked for.
        window: in its pixels.
    """
    rows, cols = _pixels(target, source.geobox, window)
    size = source.window
    inside = (rows >= 0) & (rows < size.height) & (cols >= 0) & (cols < size.width)
    image = np.zeros(window.shape, dtype=source.dtype)
    valid = np.zeros(window.shape, dtype=np.bool_)
    if not inside.any():
        return Found(image, valid, inside)
    row, col = rows[inside], cols[inside]
    needed = Window(int(row.min()), int(col.min()), int(row.max()) + 1, int(col.max()) + 1)
    if needed.size > _LARGEST_SOURCE and window.size > 1:
        for quarter in quarters(window):
            found = nearest(source, handles, target, quarter)
            image[quarter.within(window)] = found.image
            valid[quarter.within(window)] = found.valid
        return Found(image, valid, inside)
    pixels, seen = source.read(handles, needed)
    index = row - needed.top, col - needed.left
    image[inside], valid[inside] = pixels[0][index], seen[index]
    return Found(image, valid, inside)


def _pixels(here: GeoBox, there: GeoBox, window: Window) -> tuple[_Integers, _Integers]:
    """Row and column of the other grid's pixel at each centre, (y, x); -1 where there is none.

    Between two CRS every 32nd point is projected, the rest lies on straight lines between them:
    over so few pixels no projection bends by a visible part of one.
    """
    y = np.arange(window.top, window.bottom) + 0.5
    x = np.arange(window.left, window.right) + 0.5
    affine = pixel_affine(here, there)
    if affine is not None:
        col, row = apply(affine, x[None, :], y[:, None])
    else:
        knots_y, weight_y = _knots(y)
        knots_x, weight_x = _knots(x)
        grid_x, grid_y = np.meshgrid(knots_x, knots_y)
        found = pixel_map(here, there, grid_x.ravel(), grid_y.ravel())
        with np.errstate(invalid="ignore"):
            col, row = (
                weight_y @ np.asarray(part).reshape(grid_x.shape) @ weight_x.T for part in found
            )
    shape = window.shape
    row, col = (np.broadcast_to(np.floor(part + _TIE), shape) for part in (row, col))
    with np.errstate(invalid="ignore"):
        near = (np.abs(row) < 2**53) & (np.abs(col) < 2**53)  # and not infinite, not NaN
    return (
        np.where(near, row, -1).astype(np.int64),
        np.where(near, col, -1).astype(np.int64),
    )


def _knots(
    points: npt.NDArray[np.floating[Any]],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Multiples of ``_STEP`` around the points, and their weights at each point, (point, knot)."""
    first = int(points[0] // _STEP)
    last = int(points[-1] // _STEP) + 1
    knots = np.arange(first, last + 1, dtype=np.float64) * _STEP
    share = points / _STEP - first
    at = np.floor(share).astype(np.int64)
    weights = np.zeros((points.size, knots.size))
    index = np.arange(points.size)
    weights[index, at] = 1 - (share - at)
    weights[index, at + 1] = share - at
    return knots, weights
