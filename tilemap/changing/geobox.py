"""The grid of a series: that of its first date, as far as the others reach."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from odc.geo.geobox import GeoBox

from tilemap.errors import SceneMismatchError
from tilemap.geometry import Window
from tilemap.stores.grids import (
    at_resolution,
    footprint,
    lattice,
    moved,
    pixel_affine,
    pixel_map,
    whole,
)
from tilemap.stores.opening import plain_path
from tilemap.stores.rasters import describe

Extent = Literal["intersection", "union"]
Named = tuple[str, GeoBox]


def choose_geobox(
    dates: Sequence[Named],
    like: str | Path | None = None,
    resolution: float | None = None,
    extent: Extent = "intersection",
) -> GeoBox:
    """The grid of a series.

    Args:
        dates: name and grid of each, the first one decides CRS, pixel size and where pixels begin.
        like: raster whose grid is taken instead, as it is.
        resolution: other pixel size, in units of the CRS.
        extent: what all dates cover, or what any does.

    Raises:
        SceneMismatchError: if a date does not meet the others; naming both bounding boxes.
    """
    if like is not None:
        chosen = describe(str(plain_path(str(like)))).geobox
        for name, geobox in dates:
            _check(name, geobox, str(like), chosen)
        return chosen
    (first_name, first), others = dates[0], dates[1:]
    if resolution is not None:
        first = at_resolution(first, resolution)
    window = whole(first)
    for name, geobox in others:
        _check(name, geobox, first_name, first)
        # far outside of a CRS's own area coordinates are nonsense, which `footprint` knows
        alike = pixel_affine(geobox, first) is not None
        reach = _reach(geobox, first) if alike or extent == "union" else footprint(geobox, first)
        if extent == "union":
            window = Window(
                min(window.top, reach.top), min(window.left, reach.left),
                max(window.bottom, reach.bottom), max(window.right, reach.right),
            )  # fmt: skip
        else:
            window = window.intersect(reach)
            if window.size == 0:
                raise SceneMismatchError(
                    f"all dates must have some ground in common, {name} ({_bounds(geobox)}) has "
                    f"none with what the dates before it share, from {first_name} "
                    f"({_bounds(first)}) on; leave one out, or map `extent` union"
                )
    return GeoBox(window.shape, moved(first.affine, window.top, window.left), first.crs)


def _check(name: str, geobox: GeoBox, other_name: str, other: GeoBox) -> None:
    """A date has some ground in common with the grid of the series."""
    if (geobox.crs is None) != (other.crs is None):
        lacks, has = (name, other_name) if geobox.crs is None else (other_name, name)
        raise SceneMismatchError(
            f"all dates must have a CRS or none, {lacks} has none, {has} has one; assign it first "
            "(gdal_edit.py -a_srs)"
        )
    if footprint(geobox, other).size == 0:
        raise SceneMismatchError(apart(name, geobox, other_name, other))


def _reach(here: GeoBox, there: GeoBox) -> Window:
    """The rectangle of one grid's continuation that another one covers."""
    col, row = pixel_map(here, there, *lattice(whole(here)))
    known = np.isfinite(col) & np.isfinite(row)
    if not known.any():
        return Window(0, 0, 0, 0)
    col, row = col[known], row[known]
    # a border that lies on a pixel's edge to within rounding does not take the next pixel
    return Window(
        int(np.floor(row.min() + 1e-6)),
        int(np.floor(col.min() + 1e-6)),
        int(np.ceil(row.max() - 1e-6)),
        int(np.ceil(col.max() - 1e-6)),
    )


def apart(name: str, geobox: GeoBox, other_name: str, other: GeoBox) -> str:
    """What to tell of two grids that do not meet: both bounding boxes."""
    return (
        f"{name} and {other_name} must have some ground in common: {name} covers "
        f"{_bounds(geobox)}, {other_name} covers {_bounds(other)}"
    )


def _bounds(geobox: GeoBox) -> str:
    left, bottom, right, top = geobox.boundingbox.bbox
    crs = "no CRS" if geobox.crs is None else geobox.crs
    return f"x {left:.8g} to {right:.8g}, y {bottom:.8g} to {top:.8g} ({crs})"
