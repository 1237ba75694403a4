"""A raster brought onto another grid: bilinear where that is about as fine, else averaged.

Where the axes of both grids run alike (same CRS, or none) each pixel is computed from its own row
and column alone. Else GDAL's warper does it, which rounds differently for differently cut
requests: there the target is cut once and for all into blocks. Either way the numbers do not
depend on how windows are cut.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio.warp
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling

from tilemap.errors import SceneMismatchError, StoreError
from tilemap.geometry import Window
from tilemap.stores.grids import (
    bounded,
    common_points,
    gdal_crs,
    lattice,
    moved,
    pixel_affine,
    pixel_map,
    whole,
)
from tilemap.stores.mosaic import Handles, Mosaic
from tilemap.stores.opening import naming_file
from tilemap.stores.rasters import AnyArray, BoolArray
from tilemap.stores.resample import average_taps, bilinear_taps, resample

BLOCK = 256
_SMALLEST_BLOCK = 64
_BENT = 0.01  # pixels of the source by which a row of a block may differ from a straight line
AVERAGE_FROM = 1.2  # pixels of the source per pixel of the target, along one axis
OBSERVED = 0.5  # share of an averaged pixel that must be observed
_LARGEST_SOURCE = 2**22  # pixels the warper reads at once; what needs more is quartered
_AT_ONCE = 2**18  # pixels weighed at once, source or target: what the cache of a core holds
_LARGEST_PIXEL = 2**26  # pixels of the source that one pixel may take
_Part = tuple[Window, AnyArray, BoolArray]


@dataclass(frozen=True, slots=True)
class Warp:
    """A mosaic on another grid.

    A pixel is valid by its centre: where the pixel of the source that holds it is (bilinear), or
    where at least half of its area was observed (average). What is not valid weighs nothing.

    Args:
        source: the pixels.
        target: the grid they are brought to.
        ratio: pixels of the source per pixel of the target, along one axis.
        block: side of the blocks; GDAL takes a row for straight as long as it is so to an eighth
            of a pixel, so where rows bend blocks are smaller.
    """

    source: Mosaic
    target: GeoBox
    ratio: float
    block: int = BLOCK

    @property
    def average(self) -> bool:
        """Whether pixels are averaged, not interpolated."""
        return self.ratio > AVERAGE_FROM

    def read(self, handles: Handles, window: Window) -> tuple[AnyArray, BoolArray]:
        """Pixels of the target.

        Args:
            handles: open files.
            window: in pixels of the target, inside it.

        Returns:
            image (band, y, x), 0 where not valid; valid bool (y, x).
        """
        image = np.zeros((self.source.count, *window.shape), dtype=self.source.dtype)
        valid = np.zeros(window.shape, dtype=np.bool_)
        for part, pixels, seen in self._parts(handles, window):
            both = part.intersect(window)
            if both.size:
                image[:, *both.within(window)] = pixels[:, *both.within(part)]
                valid[both.within(window)] = seen[both.within(part)]
        return image, valid

    def _parts(self, handles: Handles, window: Window) -> Iterator[_Part]:
        """What has pixels in a window, piece by piece."""
        affine = pixel_affine(self.target, self.source.geobox)
        if affine is not None and _alike(affine, self.target):
            yield from self._separable(handles, window, affine)
            return
        for block in blocks(window, whole(self.target).shape, self.block):
            yield from self._block(handles, block)

    def _separable(self, handles: Handles, window: Window, affine: Affine) -> Iterator[_Part]:
        if window.size == 0:
            return
        taps = average_taps if self.average else bilinear_taps
        if window.size * max(1, abs(affine.a * affine.e)) > _AT_ONCE and window.size > 1:
            for quarter in quarters(window):
                yield from self._separable(handles, quarter, affine)
            return
        _check_ratio(abs(affine.a * affine.e))
        rows = taps(affine.e, affine.f, window.top, window.bottom)
        cols = taps(affine.a, affine.c, window.left, window.right)
        needed = Window(rows.start, cols.start, rows.stop, cols.stop)
        if needed.intersect(self.source.window).size == 0:
            return
        image, valid = self.source.read(handles, needed)
        least = OBSERVED if self.average else None
        yield window, *resample(image, valid, rows, cols, least)

    def _block(self, handles: Handles, block: Window) -> Iterator[_Part]:
        needed = self._source_window(block)
        if needed is None or needed.intersect(self.source.window).size == 0:
            return
        if needed.size > _LARGEST_SOURCE and block.size > 1:
            for quarter in quarters(block):
                yield from self._block(handles, quarter)
            return
        _check_ratio(needed.size)
        image, valid = self.source.read(handles, needed)
        if valid.any():
            yield block, *self._reproject(image, valid, needed, block)

    def _reproject(
        self, image: AnyArray, valid: BoolArray, source: Window, block: Window
    ) -> tuple[AnyArray, BoolArray]:
        placing = self._placing(source, block)
        method = Resampling.average if self.average else Resampling.bilinear
        pixels = np.zeros((image.shape[0] + 1, *block.shape), dtype=image.dtype)
        with naming_file("the warped scene", "read", StoreError):
            rasterio.warp.reproject(
                _with_alpha(image, valid),
                pixels,
                src_alpha=pixels.shape[0],
                dst_alpha=pixels.shape[0],
                SRC_ALPHA_MAX="1",
                DST_ALPHA_MAX="1",
                resampling=method,
                **placing,
            )
            seen = pixels[-1] > 0
            if self.average:
                share = np.zeros(block.shape, dtype=np.float32)
                rasterio.warp.reproject(
                    valid.astype(np.float32), share, resampling=method, **placing
                )
                seen &= share >= OBSERVED * (1 - 1e-4)
        pixels = pixels[:-1]
        np.copyto(pixels, 0, where=~seen)
        return pixels, seen

    def _placing(self, source: Window, block: Window) -> dict[str, Any]:
        """Where both arrays lie; in one CRS, in pixels of the source, which keeps digits."""
        here, there = self.source.geobox, self.target
        affine = pixel_affine(there, here)
        if affine is not None:
            crs = {"src_crs": gdal_crs(None), "dst_crs": gdal_crs(None)}
            from_source, from_target = Affine.identity(), affine
        else:
            crs = {"src_crs": gdal_crs(here.crs), "dst_crs": gdal_crs(there.crs)}
            from_source, from_target = here.affine, there.affine
        placed = {
            "src_transform": moved(from_source, source.top, source.left),
            "dst_transform": moved(from_target, block.top, block.left),
        }
        # GDAL guesses the scale anew for each block, and widens its kernel by it
        scale = {"XSCALE": str(1 / self.ratio), "YSCALE": str(1 / self.ratio)}
        if not self.average:
            scale = {"XSCALE": "1", "YSCALE": "1"}
        return {**scale, **crs, **placed}

    def _source_window(self, block: Window) -> Window | None:
        """All that a block may touch in the source, overhanging it; None if it maps nowhere."""
        x, y = lattice(block)
        col, row = pixel_map(self.target, self.source.geobox, x, y)
        finite = np.isfinite(col) & np.isfinite(row)
        if not finite.all():
            if block.size == 1 or not finite.any():
                return None
            return self.source.window  # part maps nowhere, so the rest may reach anywhere
        reach = 2 + math.ceil(self.ratio)
        margin = reach + max(np.ptp(col), np.ptp(row)) / 64
        col = np.array([col.min() - margin, col.max() + margin])
        row = np.array([row.min() - margin, row.max() + margin])
        return bounded(self.source.window.grow(reach), col, row)


def make_warp(source: Mosaic, target: GeoBox, name: str) -> Warp:
    """How a mosaic is brought onto a grid.

    Args:
        source: the pixels.
        target: the grid.
        name: what to call the mosaic in an error.

    Raises:
        SceneMismatchError: if only one of them has a CRS, or the two cannot be related.
    """
    here, there = source.geobox, target
    if (here.crs is None) != (there.crs is None):
        lacking = name if here.crs is None else "the grid it is brought to"
        unplaced = next((p.raster.unplaced for p in source.pieces if p.raster.unplaced), "")
        raise SceneMismatchError(
            f"both grids must have a CRS or none, {lacking} has none; "
            + (unplaced or "assign one first (gdal_edit.py -a_srs)")
        )
    x, y = common_points(here, there)
    start, right, below = (
        np.stack(pixel_map(there, here, x + dx, y + dy)) for dx, dy in ((0, 0), (1, 0), (0, 1))
    )
    with np.errstate(invalid="ignore"):
        (a, d), (b, e) = right - start, below - start
        area = np.abs(a * e - b * d)
    area = area[np.isfinite(area)]
    if area.size == 0 or not np.median(area) > 0:
        raise SceneMismatchError(f"{name} has no place in the CRS of the grid, {there.crs}")
    return Warp(source, target, float(np.sqrt(np.median(area))), _straight_block(source, target))


def _straight_block(source: Mosaic, target: GeoBox) -> int:
    """The largest block whose rows are straight in the source, or the smallest there is."""
    x, y = common_points(source.geobox, target)
    start, middle, end = (
        np.stack(pixel_map(target, source.geobox, x + step, y)) for step in (0, BLOCK / 2, BLOCK)
    )
    with np.errstate(invalid="ignore"):
        away = np.abs(start - 2 * middle + end) / 2
    bend = float(away[np.isfinite(away)].max(initial=0))
    block = BLOCK
    while bend > _BENT and block > _SMALLEST_BLOCK:
        block, bend = block // 2, bend / 4
    return block


def blocks(window: Window, scene: tuple[int, int], side: int = BLOCK) -> Iterator[Window]:
    """The fixed blocks that a window touches, clipped by the scene, row by row."""
    for top in range(window.top // side * side, window.bottom, side):
        for left in range(window.left // side * side, window.right, side):
            yield Window(top, left, min(top + side, scene[0]), min(left + side, scene[1]))


def quarters(block: Window) -> Iterator[Window]:
    """A block cut at its middle, in up to four parts."""
    row, col = (block.top + block.bottom + 1) // 2, (block.left + block.right + 1) // 2
    for top, bottom in ((block.top, row), (row, block.bottom)):
        for left, right in ((block.left, col), (col, block.right)):
            if top < bottom and left < right:
                yield Window(top, left, bottom, right)


def _alike(affine: Affine, target: GeoBox) -> bool:
    """Whether rows are rows and columns columns, to a thousandth of a pixel anywhere."""
    rows, cols = target.shape
    return bool(abs(affine.b) * rows < 1e-3 and abs(affine.d) * cols < 1e-3)


def _check_ratio(pixels: float) -> None:
    if pixels > _LARGEST_PIXEL:
        raise StoreError(
            f"a pixel may take at most {_LARGEST_PIXEL} pixels of the source, this grid needs "
            f"{pixels:.0f}; choose a finer one"
        )


def _with_alpha(image: AnyArray, valid: BoolArray) -> AnyArray:
    """A further plane, 1 = observed; what is not observed is 0 already."""
    return np.concatenate([image, valid[None].astype(image.dtype)])
